from __future__ import annotations

import re
from pathlib import Path

import pytest

from jargon_rag import lines
from jargon_rag.chunking import chunk_glossary, split_sentences
from jargon_rag.glossary import read_glossary
from jargon_rag.lines import MORTY_ASKS, MORTY_COMPARES, PLAIN_REFUSAL, REFUSALS
from jargon_rag.types import Style
from jargon_rag.voice import farewell, opening, refusal, riposte, without_address

QUESTIONS = [f"Question number {n}?" for n in range(2_000)]


def test_an_opening_names_the_term() -> None:
    assert {opening(question, ["Dropout"]) for question in QUESTIONS} == {
        line.format(term="Dropout") for line in MORTY_ASKS
    }


def test_an_opening_for_a_comparison_names_every_term() -> None:
    expected = {line.format(terms="Precision, Recall and F1") for line in MORTY_COMPARES}
    assert {opening(question, ["Precision", "Recall", "F1"]) for question in QUESTIONS} == expected


def test_a_question_gets_the_same_opening_each_time_whatever_its_case() -> None:
    assert all(opening(question, ["X"]) == opening(f"  {question.upper()} ", ["X"]) for question in QUESTIONS)


def test_a_term_with_braces_is_shown_as_it_is() -> None:
    assert "{x}" in opening("What?", ["{x}"])
    assert "{x}" in refusal("What?", ["{x}"], style="rick")[1]


@pytest.mark.parametrize(
    ("question", "shows_code", "pool"),
    [
        ("overfitting", False, lines.RICK_BEGINS),
        ("Explain overfitting", False, lines.RICK_BEGINS),
        ("Why does my loss explode?", False, lines.RICK_BEGINS_WITH_TROUBLE),
        ("our anchor drags, what now", False, lines.RICK_BEGINS_WITH_TROUBLE),
        ("why do big models memorise", False, lines.RICK_BEGINS_TO_EXPLAIN),
        ("So is it true that more data helps?", False, lines.RICK_BEGINS_WITHOUT_A_VERDICT),
        ("isn't dropout off at inference?", False, lines.RICK_BEGINS_WITHOUT_A_VERDICT),
        ("how do I write it in numpy", True, lines.RICK_BEGINS_WITH_CODE),
    ],
)
def test_rick_begins_in_the_manner_of_the_question(question: str, shows_code: bool, pool: tuple[str, ...]) -> None:
    assert riposte(question, compares=False, shows_code=shows_code) in pool
    assert riposte(question, compares=True, shows_code=shows_code) in lines.RICK_BEGINS_A_COMPARISON
    assert len({riposte(f"{question} {n}", compares=False, shows_code=shows_code) for n in range(500)}) == len(pool)


def test_the_last_word_is_ricks_or_mortys_or_nobodys() -> None:
    spoken = [farewell(question) for question in QUESTIONS]
    assert 0.25 < sum(said is None for said in spoken) / len(spoken) < 0.42
    assert {text for speaker, text in filter(None, spoken) if speaker == "Rick"} == set(lines.RICK_ENDS)
    assert {text for speaker, text in filter(None, spoken) if speaker == "Morty"} == set(lines.MORTY_ENDS)


SPOKEN = [
    line
    for name, pool in vars(lines).items()
    if name.startswith(("RICK", "MORTY", "REFUSALS", "SILENCES"))
    for line in pool
]


def test_no_line_occurs_twice() -> None:
    assert len(SPOKEN) == len(set(SPOKEN)) > 350


@pytest.mark.parametrize("line", SPOKEN)
def test_a_line_has_one_form_and_takes_no_side(line: str) -> None:
    assert line.isascii()
    assert line[-1] in ".?!"
    assert 3 <= len(line.split()) <= 24
    assert "[" not in line
    leaning = "true|false|myth|right|wrong|correct|exactly|always|never works|of course|easy|simple|common|rare"
    assert not re.search(rf"\b({leaning})\b", line, re.IGNORECASE)
    assert line.count("{") == (line in MORTY_ASKS or line in MORTY_COMPARES or "{term}" in line)


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
