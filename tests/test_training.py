"""The training data: well formed, and nothing of a development or test term in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jargon_rag.lint import lint_glossary
from training.answers import NONE, faults
from training.data import GLOSSARIES, HELD_OUT, Field, read_fields, read_own

FIELDS = read_fields()
OWN = read_own()
SPLITS = json.loads((OWN.path / "questions" / "splits.json").read_text("utf-8"))
ENTRY_KINDS = {"term", "symptom", "paraphrase", "how", "why", "keyword", "assumption", "compare", "free"}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_field_has_twenty_entries_ten_questions_each_and_questions_that_none_answers(field: Field) -> None:
    terms = {entry.term for entry in field.entries}
    assert len(terms) == 20
    for term in terms:
        asked = [question for question in field.questions if question.terms[:1] == (term,)]
        assert len(asked) == 10
        assert {question.kind for question in asked} == ENTRY_KINDS
    assert all(set(question.terms) <= terms for question in field.questions)
    assert sum(not question.terms for question in field.questions) == 45
    assert len(field.dialogues) == 14
    assert all(dialogue.term in terms | {None} and len(dialogue.turns) >= 2 for dialogue in field.dialogues)


@pytest.mark.parametrize("file", sorted(GLOSSARIES.glob("*.md")), ids=lambda file: file.stem)
def test_lint_finds_nothing_in_a_field(file: Path) -> None:
    assert lint_glossary(file)[1] == []


def test_the_fields_held_out_exist_and_sailing_is_no_field() -> None:
    names = {field.name for field in FIELDS}
    assert set(HELD_OUT) < names
    assert "sailing" not in names


def test_no_development_or_test_term_is_read_for_training() -> None:
    assert {SPLITS[entry.slug] for entry in OWN.entries} == {"train"}
    terms = {entry.term for entry in OWN.entries}
    assert {question.terms[0] for question in OWN.questions if question.terms} == terms


PROMPT = {
    "style": "rick",
    "facts": [[1, "Dropout zeroes random units, which keeps them from leaning on each other. It is off at inference."]],
}


@pytest.mark.parametrize(
    "answer",
    [
        NONE,
        "Morty: Who switches my units off?\nRick: Dropout zeroes random units, Morty. [1]",
        "Morty: Also in production?\nRick: It is off at inference. [1] Dropout zeroes random units. [1]",
    ],
)
def test_a_certified_answer_has_no_fault(answer: str) -> None:
    assert faults(PROMPT, answer) == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Morty: Really?\nRick: Dropout zeroes all units. [1]", "not certified"),
        ("Morty: Really?\nRick: Dropout zeroes random units. [2]", "no fact [2]"),
        ("Morty: Really?\nRick: Dropout zeroes random units.", "every sentence ends with its marker"),
        ("Morty: It is on at inference.\nRick: It is off at inference. [1]", "Morty asks"),
        ("Rick: It is off at inference. [1]", "first line"),
        ("Morty: Really?\nSummer: It is off at inference. [1]", "a line begins"),
        ("Morty: Really?", "one to four claims"),
    ],
)
def test_a_faulty_answer_is_told_apart(answer: str, fault: str) -> None:
    assert any(fault in found for found in faults(PROMPT, answer))
