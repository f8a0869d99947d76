"""Make docs/SCORECARD.md of the answers in `evals/answers/` and the labels in `evals/labels/`; draw sheets for new labels.

    python -m evals.scorecard            writes docs/SCORECARD.md
    python -m evals.scorecard --sheets DIR   writes what readers are given: claims with their passage, and whole answers

Two readers label each claim without seeing anything but claim and passage ("does the passage say this?"), and each answer
beside its question ("does it answer what was asked?"). A label belongs to the text that was read: where an answer has
changed since, its label no longer counts and the card says how many are left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.answers import ANSWERS, GLOSSARIES, ROWS
from evals.data import read_rows
from evals.retrieval import HERE, share
from jargon_rag.glossary import read_glossary
from jargon_rag.paths import shipped_folder
from jargon_rag.types import Entry

LABELS = HERE / "labels"
REPORT = HERE.parent / "docs" / "SCORECARD.md"
READERS = ("reader-1", "reader-2")
_FORM = re.compile(
    r"(?:Morty: [^\n\[\]]+[?.!]\nRick: (?:[^\n\[\]]+ \[\d\] ?)+\n?){1,2}|Answer: (?:[^\n\[\]]+ \[\d\] ?)+|NONE"
)

Row = dict[str, Any]


def main() -> None:
    """Write the card, or the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=Path, metavar="DIR")
    options = parser.parse_args()
    found = {row: read_rows(ANSWERS / f"{row}.jsonl") for row in ROWS if (ANSWERS / f"{row}.jsonl").is_file()}
    entries = {name: _entries(corpus) for name, corpus in GLOSSARIES.items()}
    if options.sheets:
        write_sheets(found, entries, options.sheets)
        return
    REPORT.write_text("\n".join(card(found, entries)) + "\n", encoding="utf-8")
    print(REPORT.read_text("utf-8"))


def card(found: dict[str, list[Row]], entries: dict[str, dict[str, Entry]]) -> list[str]:
    """Return the lines of the scorecard."""
    lines = [
        "# Scorecard",
        "",
        "Made by `make eval` from the answers in `evals/answers/` and the labels in `evals/labels/`; 95 % bootstrap",
        "intervals in brackets (1,000 resamples, seed 0). Test terms of our glossary, and the sailing glossary, which nothing",
        "was trained or tuned on. Retrieval has a page of its own: [retrieval.md](retrieval.md).",
        "",
        "`base`: the language model as published, told what to write. `base-form`: held to the form. `adapter`: with the",
        "shipped adapter, told only. `shipped`: adapter and form, as in the chat. `plain`: the same in plain style. All pass",
        "the checks before they are shown.",
        "",
    ]
    for glossary in GLOSSARIES:
        rows = {name: [r for r in answers if r["glossary"] == glossary] for name, answers in found.items()}
        lines += [f"## {'Our glossary, test terms' if glossary == 'own' else 'Sailing'}", ""]
        lines += ["| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
        lines.append("| questions | " + " | ".join(str(len(answers)) for answers in rows.values()) + " |")
        for title, measure in measures(entries[glossary]).items():
            cells = []
            for answers in rows.values():
                hits = list(measure(answers))
                cells.append(share(hits) if hits else "")
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        lines.append("")
    return [*lines, *labelled(found)]


def measures(entries: dict[str, Entry]) -> dict[str, Callable[[list[Row]], Iterable[bool]]]:
    """Return what is counted over a row's answers, each by its title."""

    def claims(answers: list[Row]) -> list[Row]:
        return [sentence for answer in answers for sentence in answer["sentences"] if sentence["supported"]]

    def inside(answers: list[Row]) -> list[Row]:
        return [answer for answer in answers if answer["asked"].get("term")]

    def has_fact(answer: Row) -> bool:
        wanted = passage_of(entries, answer["asked"])
        return any(citation["quote"] in wanted for citation in answer["citations"])

    def complete(answer: Row) -> bool:
        cited = {citation["term"] for citation in answer["citations"]}
        return {answer["asked"]["term"], *answer["asked"]["also"]} <= cited

    def verbatim(sentence: Row) -> bool:
        return bool(sentence["text"].rstrip(".!") == sentence["quote"].rstrip(".!"))

    def by_origin(answers: list[Row], origin: str) -> list[bool]:
        return [sentence["origin"] == origin for answer in answers for sentence in answer["sentences"]]

    model = "model"
    return {
        "cites the entry that was asked for": lambda rows: [
            any(c["term"] == r["asked"]["term"] for c in r["citations"]) for r in inside(rows)
        ],
        "contains the passage that answers": lambda rows: [has_fact(r) for r in inside(rows)],
        "comparisons complete": lambda rows: [complete(r) for r in inside(rows) if r["asked"].get("also")],
        "in scope, answered": lambda rows: [not r["refused"] for r in inside(rows)],
        "out of scope, refused": lambda rows: [r["refused"] for r in rows if not r["asked"].get("term")],
        "refusals that are right (precision)": lambda rows: [not r["asked"].get("term") for r in rows if r["refused"]],
        "the model's text has the form": lambda rows: [
            bool(_FORM.fullmatch(r["said"].strip())) for r in rows if r["said"]
        ],
        "claims by the model": lambda rows: [c["origin"] == model for c in claims(rows)],
        "claims by the glossary (fallback)": lambda rows: [c["origin"] == "entry" for c in claims(rows)],
        "the model's claims that copy a whole line": lambda rows: [
            verbatim(c) for c in claims(rows) if c["origin"] == model
        ],
        "Morty's lines that occur once": lambda rows: _once(
            [s["text"] for r in rows for s in r["sentences"] if s["speaker"] == "Morty"]
        ),
        "Rick's lines around the claims that occur once": lambda rows: _once(
            [
                s["text"]
                for r in rows
                for s in r["sentences"]
                if s["speaker"] == "Rick" and s["origin"] == "fixed" and not r["refused"]
            ]
        ),
        "sentences by the model": lambda rows: by_origin(rows, model),
        "sentences by the glossary": lambda rows: by_origin(rows, "entry"),
        "sentences that are fixed lines": lambda rows: by_origin(rows, "fixed"),
    }


def labelled(found: dict[str, list[Row]]) -> list[str]:
    """Return the table of what readers said."""
    lines = ["## Read by hand", ""]
    lines += [
        "A label belongs to the text that was read. Where only part of the answers is counted, the others have changed",
        "since, most of them because they were found wanting: such a share is no estimate for all.",
        "Labels are of several readings, two readers each. Two rules (what is said of another entry, and of one named by the way)",
        "were made after a reading of these very answers, so the figures here are no longer of questions that nothing was tuned",
        "on: new ones are needed to trust them. The readers of the last 278 answers were told to call a line about an entry that nobody asked about out of place, which",
        "those before them were not. Of the claims that a reader found unsupported, nearly all are a passage's second sentence,",
        "which says what it does only after the first: so it stands in the answer, and the reader saw it alone.",
        "",
    ]
    lines += ["| | n | reader 1 | reader 2 | they agree |", "|---|---|---|---|---|"]
    for title, kind, name, row in (
        ("claims that their passage supports", "claims", "label", "shipped"),
        ("claims that their passage supports", "claims", "label", "plain"),
        ("answers that answer what was asked", "answers", "label", "shipped"),
        ("answers that answer what was asked", "answers", "label", "plain"),
        ("answers with a line that is out of place", "answers", "odd", "shipped"),
        ("answers that made the reader smile", "answers", "smile", "shipped"),
    ):
        keys = list(_keys(found.get(row, []), kind))
        labels = [_labels(reader, kind, name) for reader in READERS]
        read = [key for key in keys if all(key in some for some in labels)]
        if not read:
            continue
        one, two = ([some[key] for key in read] for some in labels)
        both = share([a == b for a, b in zip(one, two, strict=True)])
        lines.append(f"| {title}, `{row}` | {len(read)} of {len(keys)} | {share(one)} | {share(two)} | {both} |")
    return lines


def write_sheets(found: dict[str, list[Row]], entries: dict[str, dict[str, Entry]], folder: Path) -> None:
    """Write claims with their passage, and answers with their question, without a word on where they come from.

    What both readers have labelled already is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claims: dict[str, Row] = {}
    answers: dict[str, Row] = {}
    for name in ("shipped", "plain"):
        for answer in found.get(name, []):
            if answer["asked"].get("term") and not answer["refused"]:
                key = _key(answer["question"], shown(answer))
                answers[key] = {"question": answer["question"], "answer": shown(answer)}
            for sentence in answer["sentences"]:
                if sentence["supported"]:
                    slug = next(c["slug"] for c in answer["citations"] if c["quote"] == sentence["quote"])
                    passage = quoted_in(entries[answer["glossary"]][slug], sentence["quote"])
                    claims[_key(sentence["text"], sentence["quote"])] = {"claim": sentence["text"], "passage": passage}
    for name, rows in (("claims", claims), ("answers", answers)):
        last = "label" if name == "claims" else "smile"
        read = set.intersection(*(set(_labels(reader, name, last)) for reader in READERS))
        new = ((key, row) for key, row in sorted(rows.items()) if key not in read)
        text = "".join(json.dumps({"id": key, **row}, ensure_ascii=False) + "\n" for key, row in new)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def shown(answer: Row) -> str:
    """Return all that a reader of an answer sees but its sources."""
    return "\n\n".join([answer["answer"], *(block["text"] for block in answer["code"])])


def passage_of(entries: dict[str, Entry], asked: Row) -> str:
    """Return the text of the part of an entry that answers a question."""
    entry = next(entry for entry in entries.values() if entry.term == asked["term"])
    kind, _, number = asked["passage"].partition(":")
    parts = {
        "definition": [" ".join(part.text for part in entry.definition)],
        "exchange": [answer.text for _, answer in entry.exchanges()],
        "gotcha": [part.text for part in entry.gotchas],
        "code": ["\n".join(snippet.text for snippet in entry.snippets)],
    }
    return parts[kind][int(number) - 1 if number else 0]


def quoted_in(entry: Entry, quote: str) -> str:
    """Return the entry's name and the passage that a quote stands in."""
    texts = [part.text for part in (*entry.definition, *entry.gotchas)] + [turn.text for turn in entry.turns]
    return f"{entry.term}: {next(text for text in texts if quote in text)}"


def _keys(answers: Sequence[Row], kind: str) -> list[str]:
    if kind == "answers":
        answered = [answer for answer in answers if answer["asked"].get("term") and not answer["refused"]]
        return [_key(answer["question"], shown(answer)) for answer in answered]
    return [_key(s["text"], s["quote"]) for answer in answers for s in answer["sentences"] if s["supported"]]


def _key(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _labels(reader: str, kind: str, name: str) -> dict[str, bool]:
    """Return what a reader said of each text by its id; early readers were not asked everything."""
    file = LABELS / f"{reader}-{kind}.jsonl"
    return {row["id"]: bool(row[name]) for row in read_rows(file) if name in row} if file.is_file() else {}


def _entries(corpus: Path | None) -> dict[str, Entry]:
    return {entry.slug: entry for entry in read_glossary(corpus or shipped_folder("corpus"))}


def _once(lines: Sequence[str]) -> list[bool]:
    values, counts = np.unique(lines, return_counts=True)
    often = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return [often[line] == 1 for line in lines]


if __name__ == "__main__":
    main()
