"""Measure retrieval, refusal and follow-ups; print the tables and write docs/retrieval.md.

    python -m evals.retrieval [--splits dev test] [--failures] [--peers]

Each share has a 95 % bootstrap interval (1,000 resamples, seed 0). Every row of a table answers the same questions.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evals.data import read_rows
from evals.peers import Search, peers
from jargon_rag.calibration import Calibration
from jargon_rag.chunking import chunk_glossary
from jargon_rag.conversation import standalone_question
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.generator import LocalGenerator
from jargon_rag.glossary import read_glossary, read_questions
from jargon_rag.index import Index, build_index, load_index
from jargon_rag.paths import default_cache_dir, shipped_folder
from jargon_rag.retriever import Likelihoods, Retriever
from jargon_rag.types import Embedder, Retrieval

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "retrieval.md"
SAILING = HERE / "sailing"
RESAMPLES = 1000
TOP_K = 5
OTHERS = 300  # questions of other writers, of each split
FIRST_FUSION = Calibration(
    False, {"cosine": 1.0, "bm25": 0.2, "name": 0.15}, 20.0, {"cosine": 1.0}, {"bias": 0.0}, {"bias": 0.0}
)
COSINE = replace(FIRST_FUSION, ranking={"cosine": 1.0})
KINDS_OUTSIDE = ("everyday", "computing", "near-miss", "other-field")


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of one table: those that the glossary answers, and those that it does not."""

    name: str
    inside: list[dict[str, Any]]
    outside: list[dict[str, Any]]
    follow_ups: list[dict[str, Any]]


def main() -> None:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", default=["dev", "test"], choices=["train", "dev", "test"])
    parser.add_argument("--failures", action="store_true", help="print the questions that went wrong")
    parser.add_argument("--peers", action="store_true", help="measure other libraries too (pip install -e '.[peers]')")
    options = parser.parse_args()
    tuned = SentenceTransformerEmbedder(cache_dir=default_cache_dir())
    plain = SentenceTransformerEmbedder(cache_dir=default_cache_dir(), lora=False)
    lines = ["# Retrieval, measured", "", "Made by `make eval`; 95 % bootstrap intervals in brackets.", ""]
    corpus = shipped_folder("corpus")
    model = LocalGenerator(cache_dir=default_cache_dir(), adapter=shipped_folder("adapter"))
    ours = Retriever(load_index(shipped_folder("index")), tuned)
    rows = methods(corpus, ours, plain, model) | (peers(corpus, plain) if options.peers else {})
    for split in options.splits:
        lines += tables(own_exam(split), ours, rows, model, failures=options.failures)
        lines += others_table(split, rows)
    glossary = SAILING / "glossary.md"
    at_sea = Retriever(_index(glossary, tuned, with_questions=False), tuned)
    rows = methods(glossary, at_sea, plain, model) | (peers(glossary, plain) if options.peers else {})
    lines += tables(sailing_exam(), at_sea, rows, model, failures=options.failures)
    report = "\n".join(lines) + "\n"
    print(report)
    REPORT.write_text(report, encoding="utf-8")


def methods(glossary: Path, ours: Retriever, plain: Embedder, model: LocalGenerator) -> dict[str, Search]:
    """Return the ways of searching that are compared, each by its name."""
    index, embedder, fitted = ours.index, ours.embedder, ours.calibration
    without_lora = Retriever(_index(glossary, plain, with_questions=True), plain)
    found = {
        "without the language model's reading": ours,
        "without the LoRA": without_lora,
        **{
            f"without the signal {name}": Retriever(
                index, embedder, replace(fitted, ranking={**fitted.ranking, name: 0.0})
            )
            for name in fitted.ranking
        },
        "published embedder, cosine + 0.2 BM25 + 0.15 name": Retriever(without_lora.index, plain, FIRST_FUSION),
        "published embedder, cosine alone": Retriever(without_lora.index, plain, COSINE),
    }
    if any(chunk.kind == "question" for chunk in index.chunks):
        found["without indexed questions"] = Retriever(_index(glossary, embedder, with_questions=False), embedder)
    shipped = {"as shipped": _headings(ours, model.likelihoods)}
    return shipped | {name: _headings(retriever) for name, retriever in found.items()}


def own_exam(split: str) -> Exam:
    """Return one split's questions about our glossary."""
    asked = [
        row for file in sorted(shipped_folder("corpus").glob("questions/asked-*.jsonl")) for row in read_rows(file)
    ]
    return Exam(
        f"Our glossary, {split} terms",
        [row for row in asked if row["split"] == split],
        [row for row in read_rows(HERE / "out_of_scope.jsonl") if row["split"] == split],
        [row for row in read_rows(HERE / "follow_ups.jsonl") if row["split"] == split],
    )


def others_table(split: str, rows: Mapping[str, Search]) -> list[str]:
    """Return the tables of what other writers asked about one split's terms.

    They saw the entries and the indexed questions, which they were told not to repeat, and nothing that measures. So these are
    harder than what people ask by themselves: most do not name the term, and what is near an indexed question is left out.
    """
    asked = [row for row in read_rows(HERE / "others.jsonl") if row["split"] == split]
    some = random.Random(split).sample(asked, OTHERS)
    title = f"## Our glossary, {split} terms, asked by other writers"
    return [title, "", f"{OTHERS} of {len(asked):,} questions.", "", *_ranking_tables(some, rows), ""]


def sailing_exam() -> Exam:
    """Return the questions about the glossary that nobody tuned for."""
    return Exam(
        "A glossary nobody tuned for: sailing",
        read_rows(SAILING / "questions.jsonl"),
        read_rows(SAILING / "out_of_scope.jsonl"),
        [],
    )


def tables(exam: Exam, ours: Retriever, rows: dict[str, Search], model: LocalGenerator, *, failures: bool) -> list[str]:
    """Return the Markdown tables of one exam."""
    lines = [f"## {exam.name}", "", f"{len(exam.inside)} questions.", "", *_ranking_tables(exam.inside, rows)]
    compared = [row for row in exam.inside if row.get("also")]
    if compared:
        complete = [{row["term"], *row["also"]} <= set(rows["as shipped"](row["question"])) for row in compared]
        lines += [
            "",
            f"Comparisons with every compared entry in the top {TOP_K}: {share(complete)} of {len(complete)}.",
        ]
    prose = [row for row in exam.inside if row["passage"] != "code"]
    lines += ["", "Of the right entry's passages, the one that answers is", ""]
    for name, likelihoods in {"as shipped": model.likelihoods, "without the language model's reading": None}.items():
        firsts = [_passage_rank(ours, row, likelihoods) for row in prose]
        lines.append(
            f"- {name}: first {share([r == 0 for r in firsts])}, in the top three {share([r < 3 for r in firsts])}"
        )
    lines += _scope_table(exam, ours, failures=failures)
    if exam.follow_ups:
        lines += _follow_up_table(exam, ours, model, failures=failures)
    asked = [row["question"] for row in exam.inside[:100]]
    took, alone = _timed(ours, asked, model.likelihoods), _timed(ours, asked, None)
    lines += [
        "",
        (
            f"One question takes {np.median(took):.1f} ms at the median, {np.quantile(took, 0.95):.1f} ms at p95;"
            f" without the language model's reading {np.median(alone):.1f} and {np.quantile(alone, 0.95):.1f}."
        ),
        "",
    ]
    if failures:
        for rank, row in zip(_ranks(exam.inside, rows["as shipped"], "failures"), exam.inside, strict=True):
            if rank:
                found = ours.retrieve(row["question"], likelihoods=model.likelihoods)
                shown = [(result.entry.term, round(result.score, 2)) for result in found.results[:3]]
                print(f"{row['kind']}: {row['question']} | {row['term']} | {shown}")
    return lines


def _ranking_tables(asked: Sequence[dict[str, Any]], rows: Mapping[str, Search]) -> list[str]:
    """Return the tables of right entries by method, and as shipped by kind of question."""
    lines = ["| method | right entry first | in the top three |", "|---|---|---|"]
    found = {name: _ranks(asked, search, name) for name, search in rows.items()}
    for name, ranks in found.items():
        lines.append(f"| {name} | {share([r == 0 for r in ranks])} | {share([r < 3 for r in ranks])} |")
    lines += ["", "As shipped, by kind of question:", ""]
    lines += ["| kind | n | right entry first | in the top three |", "|---|---|---|---|"]
    for kind in sorted({row["kind"] for row in asked}):
        some = [rank for rank, row in zip(found["as shipped"], asked, strict=True) if row["kind"] == kind]
        lines.append(f"| {kind} | {len(some)} | {share([r == 0 for r in some])} | {share([r < 3 for r in some])} |")
    return lines


def _scope_table(exam: Exam, ours: Retriever, *, failures: bool) -> list[str]:
    lines = ["", "| questions | n | answered |", "|---|---|---|"]
    kept = [ours.retrieve(row["question"]) for row in exam.inside]
    lines.append(f"| in scope | {len(kept)} | {share([found.in_scope for found in kept])} |")
    refused = [ours.retrieve(row["question"]) for row in exam.outside]
    for kind in [kind for kind in KINDS_OUTSIDE if any(row["kind"] == kind for row in exam.outside)]:
        some = [found.in_scope for found, row in zip(refused, exam.outside, strict=True) if row["kind"] == kind]
        lines.append(f"| out of scope: {kind} | {len(some)} | {share(some)} |")
    lines.append(f"| out of scope, all | {len(refused)} | {share([found.in_scope for found in refused])} |")
    if failures:
        for found, row in [*zip(kept, exam.inside, strict=True), *zip(refused, exam.outside, strict=True)]:
            if found.in_scope == (row in exam.outside):
                print(
                    f"{'answered' if found.in_scope else 'refused'} {row['kind']}: {row['question']} | {found.reason}"
                )
    sure = np.array([found.confidence for found in [*kept, *refused]])
    truth = np.array([True] * len(kept) + [False] * len(refused))
    lines += [
        "",
        "How sure it was, and how often it was so (reliability):",
        "",
        "| confidence | n | in scope |",
        "|---|---|---|",
    ]
    for low in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        high = {0.0: 0.1, 0.9: 1.01}.get(low, low + 0.2)
        inside = (sure >= low) & (sure < high)
        if inside.any():
            lines.append(f"| {low:.1f} to {min(high, 1.0):.1f} | {inside.sum()} | {truth[inside].mean():.2f} |")
    return lines


def _follow_up_table(exam: Exam, ours: Retriever, model: LocalGenerator, *, failures: bool) -> list[str]:
    known = [row for row in exam.follow_ups if row["term"]]
    left = [row for row in exam.follow_ups if not row["term"]]
    ways: dict[str, Callable[[list[str]], Retrieval]] = {
        "as shipped": lambda turns: last_turn(ours, turns, model.likelihoods),
        "without the language model's reading": lambda turns: last_turn(ours, turns),
        "last turn alone": lambda turns: ours.retrieve(turns[-1]),
        "turns joined": lambda turns: ours.retrieve(" ".join(turns)),
    }
    lines = ["", "| dialogues | n | right entry first | in the top three |", "|---|---|---|---|"]
    for name, search in ways.items():
        found = [search(row["turns"]) for row in known]
        ranks = [
            _rank([result.entry.term for result in f.results], row["term"]) for f, row in zip(found, known, strict=True)
        ]
        lines.append(f"| {name} | {len(known)} | {share([r == 0 for r in ranks])} | {share([r < 3 for r in ranks])} |")
        if name == "as shipped":
            changed = [r == 0 for r, row in zip(ranks, known, strict=True) if row["kind"] == "topic-change"]
            lines.append(f"| as shipped, topic changes | {len(changed)} | {share(changed)} | |")
            if failures:
                for rank, row, f in zip(ranks, known, found, strict=True):
                    if rank:
                        print(
                            f"{row['kind']}: {row['turns']} | {row['term']} | {f.standalone_question!r} {f.results[0].entry.term}"
                        )
    refused = [not last_turn(ours, row["turns"]).in_scope for row in left]
    return [*lines, "", f"A change to something out of scope is refused: {share(refused)} of {len(left)}."]


def last_turn(retriever: Retriever, turns: list[str], likelihoods: Likelihoods | None = None) -> Retrieval:
    """Return what is found for the last turn of a dialogue."""
    history = [{"role": "user", "content": turn} for turn in turns[:-1]]
    alone = standalone_question(turns[-1], history, retriever=retriever)
    return retriever.retrieve(turns[-1], standalone_question=alone, likelihoods=likelihoods)


def share(hits: Iterable[bool]) -> str:
    """Return a share with its 95 % bootstrap interval."""
    values = np.asarray(list(hits), dtype=float)
    drawn = np.random.default_rng(0).choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.2f}, {high:.2f}]"


def _index(corpus: Path, embedder: Embedder, *, with_questions: bool) -> Index:
    entries = read_glossary(corpus)
    questions = read_questions(corpus, entries) if with_questions else []
    return build_index(entries, chunk_glossary(entries, questions), embedder, corpus_hash="", progress=True)


def _headings(retriever: Retriever, likelihoods: Likelihoods | None = None) -> Search:
    def search(question: str) -> list[str]:
        found = retriever.retrieve(question, top_k=TOP_K, likelihoods=likelihoods)
        return [result.entry.term for result in found.results]

    return search


def _ranks(rows: Sequence[dict[str, Any]], search: Search, name: str) -> list[int]:
    return [_rank(search(row["question"]), row["term"]) for row in tqdm(rows, desc=name, leave=False)]


def _rank(found: Sequence[str], term: str) -> int:
    return list(found).index(term) if term in found else 99


def _passage_rank(retriever: Retriever, row: dict[str, Any], likelihoods: Likelihoods | None) -> int:
    """Return where the passage that answers stands among those of the right entry."""
    entry = next(entry for entry in retriever.index.entries if entry.term == row["term"])
    kind, _, number = row["passage"].partition(":")
    parts = {
        "definition": [passage.line for passage in entry.definition],
        "exchange": [answer.line for _, answer in entry.exchanges()],
        "gotcha": [passage.line for passage in entry.gotchas],
    }
    wanted = parts[kind][int(number) - 1 if number else 0]
    read = retriever.retrieve(row["question"], likelihoods=likelihoods).read
    lines = [chunk.line for chunk, _ in retriever.passages(row["question"], entry.slug, read)]
    return lines.index(wanted) if wanted in lines else 99


def _timed(retriever: Retriever, questions: list[str], likelihoods: Likelihoods | None) -> list[float]:
    """Return the milliseconds that each question takes; a fresh retriever remembers none of them."""
    fresh = Retriever(retriever.index, retriever.embedder)
    fresh.retrieve("warm up")
    took = []
    for question in dict.fromkeys(questions):
        started = time.perf_counter()
        fresh.retrieve(question, likelihoods=likelihoods)
        took.append(1000 * (time.perf_counter() - started))
    return took


if __name__ == "__main__":
    main()
