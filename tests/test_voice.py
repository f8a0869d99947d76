from __future__ import annotations

import re
from pathlib import Path

import pytest

from jargon_rag.chunking import chunk_glossary, split_sentences
from jargon_rag.glossary import read_glossary
from jargon_rag.types import Style
from jargon_rag.voice import COMPARE_OPENINGS, OPENINGS, PLAIN_REFUSAL, REFUSALS, opening, refusal, without_address

QUESTIONS = [f"Question number {n}?" for n in range(200)]


def test_an_opening_names_the_term() -> None:
    assert {opening(question, ["Dropout"]) for question in QUESTIONS} == {
        line.format(term="Dropout") for line in OPENINGS
    }


def test_an_opening_for_a_comparison_names_every_term() -> None:
    expected = {line.format(terms="Precision, Recall and F1") for line in COMPARE_OPENINGS}
    assert {opening(question, ["Precision", "Recall", "F1"]) for question in QUESTIONS} == expected


def test_a_question_gets_the_same_opening_each_time_whatever_its_case() -> None:
    assert all(opening(question, ["X"]) == opening(f"  {question.upper()} ", ["X"]) for question in QUESTIONS)


def test_a_term_with_braces_is_shown_as_it_is() -> None:
    assert "{x}" in opening("What?", ["{x}"])
    assert "{x}" in refusal("What?", ["{x}"], style="rick")[1]


def test_a_refusal_says_so_and_names_what_is_near() -> None:
    first, second = refusal("What is a soup?", ["Epoch", "Batch"], style="rick")
    assert first in REFUSALS
    assert "Epoch and Batch" in second


def test_a_refusal_without_anything_near_is_one_sentence() -> None:
    assert refusal("What is a soup?", [], style="plain") == [PLAIN_REFUSAL]


@pytest.mark.parametrize("style", ["rick", "plain"])
def test_a_refusal_addresses_nobody_in_plain_style(style: Style) -> None:
    spoken = " ".join(" ".join(refusal(question, ["Epoch"], style=style)) for question in QUESTIONS)
    assert not re.search(r"\b(Morty|Rick)\b", spoken)
    assert (spoken.count(PLAIN_REFUSAL) == len(QUESTIONS)) == (style == "plain")


@pytest.mark.parametrize(
    ("spoken", "plain"),
    [
        ("It fits noise, Morty.", "It fits noise."),
        ("Morty, it fits noise.", "It fits noise."),
        ("No, Morty, it does not.", "No, it does not."),
        ("The answer, Morty: it depends.", "The answer: it depends."),
        ("It fits noise, Morty", "It fits noise"),
        ("Mortyfication stays, and so does 5.", "Mortyfication stays, and so does 5."),
    ],
)
def test_an_address_is_taken_out_of_a_line(spoken: str, plain: str) -> None:
    assert without_address(spoken) == plain


def test_no_quotable_line_of_the_shipped_glossary_addresses_anybody_in_plain_style(corpus: Path) -> None:
    chunks = chunk_glossary(read_glossary(corpus), [])
    lines = [line for chunk in chunks if chunk.kind != "code" for line in split_sentences(chunk.passage)]
    addressed = [line for line in lines if "Morty" in line]
    assert addressed
    assert [line for line in addressed if re.search(r"\bMorty\b|,\s*,|^[\s,]", without_address(line))] == []
