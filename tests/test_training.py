"""The training data: well formed, and nothing of a development or test term in it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from evals.data import read_rows
from jargon_rag.chunking import chunk_glossary
from jargon_rag.lint import lint_glossary
from training.answers import NONE, faults
from training.data import GLOSSARIES, HELD_OUT, Field, read_fields, read_own
from training.language_model import read_examples, vary

FIELDS = read_fields()
OWN = read_own()
PROMPTS = read_rows(GLOSSARIES.parent / "prompts.jsonl")
ANSWERS = read_rows(GLOSSARIES.parent / "answers.jsonl")
SPLITS = json.loads((OWN.path / "questions" / "splits.json").read_text("utf-8"))
ENTRY_KINDS = {"term", "symptom", "paraphrase", "how", "why", "keyword", "assumption", "compare", "free"}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_field_has_twenty_entries_questions_for_each_and_questions_that_none_answers(field: Field) -> None:
    terms = {entry.term for entry in field.entries}
    assert len(terms) == 20
    for term in terms:
        asked = [question for question in field.questions if question.terms[:1] == (term,)]
        assert len(asked) == (10 if field.name in HELD_OUT else 14)  # four more that never name their term
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


def test_no_dialogue_about_a_development_or_test_term_is_read_for_training() -> None:
    terms = {entry.term for entry in OWN.entries}
    assert OWN.dialogues
    assert {dialogue.term for dialogue in OWN.dialogues} <= terms | {None}


def test_no_prompt_shows_a_passage_of_a_development_or_test_term() -> None:
    kept_apart = [*read_own("dev").entries, *read_own("test").entries]
    passages = {chunk.passage for chunk in chunk_glossary(kept_apart, [])}
    assert len(passages) > 300
    terms = {entry.term for entry in kept_apart}
    assert not any(terms & set(row["terms"]) for row in PROMPTS if row["id"].startswith("own-"))
    assert {fact for row in PROMPTS for _, fact in row["facts"]} & passages == set()


def test_every_written_answer_is_certified_and_no_opening_is_used_twice() -> None:
    assert [row["id"] for row in ANSWERS] == [row["id"] for row in PROMPTS]
    found = {p["id"]: faults(p, a["answer"]) for p, a in zip(PROMPTS, ANSWERS, strict=True)}
    assert {name: some for name, some in found.items() if some} == {}
    openings = [row["answer"].split("\n")[0] for row in ANSWERS if row["answer"].startswith("Morty: ")]
    assert len(set(openings)) == len(openings) > 1_000
    assert len({row["answer"] for row in ANSWERS} - {NONE}) >= 1_500


def test_an_example_keeps_its_answer_s_sources_however_its_facts_are_shuffled() -> None:
    rng = random.Random(0)
    rows = read_examples()[::8]
    shuffled = 0
    for row in rows:
        varied = vary(row, rows, rng)
        shuffled += [text for _, text in varied["facts"]] != [text for _, text in row["facts"]]
        assert {text for _, text in row["facts"]} <= {text for _, text in varied["facts"]}
        assert faults(varied, varied["answer"]) == []
        assert varied["facts"][0][0] == 1
    assert shuffled > 0.3 * len(rows)


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
