"""Read the training data: small glossaries of many fields, and the training terms of our own.

Nothing of a development or test term is read here: not its entry, not its questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.data import read_rows
from jargon_rag.glossary import read_glossary
from jargon_rag.paths import shipped_folder
from jargon_rag.types import Entry

HERE = Path(__file__).parent
GLOSSARIES = HERE / "glossaries"
EVALS = HERE.parent / "evals"
HELD_OUT = ("coffee", "networking", "investing", "climbing")  # fields kept for choosing between methods
FITTED_ON = (  # fields that no network is trained on: how far its scores can be trusted is fitted on these
    "astronomy", "beekeeping", "contracts", "databases", "heating", "music", "psychology", "typography",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the training data; no term means that the glossary does not answer it."""

    question: str
    terms: tuple[str, ...]
    kind: str
    passage: str
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns of one person; `term` is what the last one is about, None when it leaves the glossary."""

    turns: tuple[str, ...]
    term: str | None
    standalone: str
    kind: str


@dataclass(frozen=True, slots=True)
class Field:
    """A glossary with its questions and dialogues."""

    name: str
    path: Path
    entries: tuple[Entry, ...]
    questions: tuple[Asked, ...]
    dialogues: tuple[Dialogue, ...]


def read_fields() -> list[Field]:
    """Return the glossaries of other fields, in the order of their names."""
    fields = []
    for path in sorted(GLOSSARIES.glob("*.md")):
        rows = read_rows(path.with_suffix(".jsonl"))
        questions = _asked(row for row in rows if "turns" not in row)
        dialogues = _dialogues(row for row in rows if "turns" in row)
        fields.append(Field(path.stem, path, tuple(read_glossary(path)), questions, dialogues))
    return fields


def read_own(split: str = "train") -> Field:
    """Return our glossary's terms of one split with everything that was written about them."""
    corpus = shipped_folder("corpus")
    splits = json.loads((corpus / "questions" / "splits.json").read_text("utf-8"))
    entries = tuple(entry for entry in read_glossary(corpus) if splits[entry.slug] == split)
    terms = {entry.term for entry in entries}
    rows = [row for file in sorted((corpus / "questions").glob("*.jsonl")) for row in read_rows(file)]
    outside = [row for row in read_rows(EVALS / "out_of_scope.jsonl") if row["split"] == split]
    questions = _asked([*(row for row in rows if row["term"] in terms), *({**row, "term": None} for row in outside)])
    dialogues = _dialogues(row for row in read_rows(EVALS / "follow_ups.jsonl") if row["split"] == split)
    return Field("own", corpus, entries, questions, dialogues)


def _asked(rows: Iterable[dict[str, Any]]) -> tuple[Asked, ...]:
    return tuple(
        Asked(
            row["question"],
            (row["term"], *row.get("also", ())) if row["term"] else (),
            row["kind"],
            row.get("passage", "definition"),
            row.get("split") == "index",
        )
        for row in rows
    )


def _dialogues(rows: Iterable[dict[str, Any]]) -> tuple[Dialogue, ...]:
    return tuple(Dialogue(tuple(row["turns"]), row["term"], row["standalone"], row["kind"]) for row in rows)


def exam(questions: Iterable[Asked]) -> list[Asked]:
    """Return the questions that are not indexed."""
    return [question for question in questions if not question.indexed]


def halves(own: Field) -> tuple[Field, Field]:
    """Return our glossary twice, no question in both: the indexed ones to train on, the others to fit on."""
    outside = [asked for asked in own.questions if not asked.terms]
    train = [asked for asked in own.questions if asked.indexed] + outside[::2]
    fit = exam(asked for asked in own.questions if asked.terms) + outside[1::2]
    return replace(own, questions=tuple(train)), replace(own, questions=tuple(fit))
