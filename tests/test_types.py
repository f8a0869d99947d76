from __future__ import annotations

import dataclasses

import pytest

from jargon_rag import errors
from jargon_rag.types import Answer, Citation, CodeBlock, Entry, Retrieval, Sentence, Timings, Turn

OVERFITTING = Entry("Overfitting", "overfitting", "Generalization", "corpus/g.md", 1, 9)
DROPOUT = Entry("Dropout", "dropout", "Generalization", "corpus/g.md", 11, 19)


def sentence(speaker: str | None, text: str, *citations: int) -> Sentence:
    return Sentence(speaker, text, citations, bool(citations) or None, 1.0, "model")


def answer(*sentences: Sentence, citations: tuple[Citation, ...] = (), code: tuple[CodeBlock, ...] = ()) -> Answer:
    return Answer("Q?", "Q?", sentences, citations, Retrieval("Q?", "Q?", (), True, "so"), False, code=code)


def test_what_one_speaker_says_in_a_row_stands_on_one_line() -> None:
    spoken = answer(
        sentence("Morty", "Why?"), sentence("Rick", "It fits noise.", 1), sentence("Rick", "Prune it.", 1, 2), sentence("Morty", "Oh.")
    )  # fmt: skip
    assert spoken.text == "Morty: Why?\nRick: It fits noise. [1] Prune it. [1][2]\nMorty: Oh."


def test_plain_sentences_stand_on_one_line_without_a_speaker() -> None:
    assert answer(sentence(None, "One.", 1), sentence(None, "Two.", 2)).text == "One. [1] Two. [2]"


def test_a_speaker_after_nobody_starts_a_line() -> None:
    assert answer(sentence(None, "One."), sentence("Rick", "Two.")).text == "One.\nRick: Two."


def test_an_answer_without_sentences_is_empty_text() -> None:
    assert (answer().text, str(answer())) == ("", "")


def test_a_printed_answer_ends_in_code_and_each_source_once_in_order() -> None:
    citations = (
        Citation(2, DROPOUT, "b", "corpus/g.md#L12"),
        Citation(1, OVERFITTING, "a", "corpus/g.md#L3-L4"),
        Citation(1, OVERFITTING, "c", "corpus/g.md#L7"),
    )
    code = (CodeBlock("python", "x = 1\n\ny = 2", 1),)
    assert str(answer(sentence("Rick", "Yes.", 2, 1), citations=citations, code=code)).split("\n\n") == [
        "Rick: Yes. [2][1]",
        "```python\nx = 1",
        "y = 2\n```",
        "[1] Overfitting (corpus/g.md#L3-L4)\n[2] Dropout (corpus/g.md#L12)",
    ]


def test_an_exchange_is_a_morty_turn_and_the_rick_turn_right_after_it() -> None:
    speakers = ["Rick", "Morty", "Morty", "Rick", "Rick", "Summer", "Rick", "Morty", "Rick", "Morty"]
    turns = tuple(Turn(speaker, str(n), n, n) for n, speaker in enumerate(speakers))
    entry = dataclasses.replace(DROPOUT, turns=turns)
    assert [(asked.text, replied.text) for asked, replied in entry.exchanges()] == [("2", "3"), ("7", "8")]


def test_everything_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DROPOUT.term = "x"  # type: ignore[misc]


def test_timings_start_as_numbers() -> None:
    assert set(dataclasses.asdict(Timings()).values()) == {0}


@pytest.mark.parametrize("name", ["InputError", "GlossaryError", "IndexFileError", "WeightsError"])
def test_every_error_is_caught_by_the_base(name: str) -> None:
    with pytest.raises(errors.JargonRAGError, match="do this"):
        raise getattr(errors, name)("do this")
