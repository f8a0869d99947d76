from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jargon_rag.reading import RawSentence, read_sentences


def read(*pieces: str) -> list[RawSentence]:
    return list(read_sentences(pieces))


def texts(*pieces: str) -> list[str]:
    return [sentence.text for sentence in read(*pieces)]


def test_a_sentence_takes_the_markers_that_follow_it() -> None:
    assert read("Rick: Dropout drops units [1]. It is off at inference [2][3].") == [
        RawSentence("Rick", "Dropout drops units.", (1,)),
        RawSentence("Rick", "It is off at inference.", (2, 3)),
    ]


def test_a_marker_after_the_full_stop_belongs_to_the_sentence_before() -> None:
    assert read("Dropout drops units. [1] Batch norm scales. [2]") == [
        RawSentence(None, "Dropout drops units.", (1,)),
        RawSentence(None, "Batch norm scales.", (2,)),
    ]


def test_a_repeated_marker_counts_once_and_order_is_kept() -> None:
    assert read("It scales [3][1][3].")[0].markers == (3, 1)


def test_the_speaker_changes_with_the_line() -> None:
    assert [
        (s.speaker, s.text) for s in read("Morty: Why?\nRick: Because it fits noise.\nIt memorizes.\nMorty: Oh.")
    ] == [
        ("Morty", "Why?"),
        ("Rick", "Because it fits noise."),
        ("Rick", "It memorizes."),
        ("Morty", "Oh."),
    ]


def test_the_speaker_changes_within_a_line() -> None:
    assert [(s.speaker, s.text) for s in read("Rick: It fits noise. Morty: Is that bad?")] == [
        ("Rick", "It fits noise."),
        ("Morty", "Is that bad?"),
    ]


def test_a_label_that_is_nobody_ends_the_speech() -> None:
    assert [s.speaker for s in read("Rick: It scales.\nAnswer: It shifts.")] == ["Rick", None]


def test_a_sentence_is_yielded_before_the_stream_ends() -> None:
    def endless() -> Iterator[str]:
        yield "One thing [1]. "
        while True:
            yield "Then more. "

    assert next(read_sentences(endless())).text == "One thing."


@pytest.mark.parametrize("text", ["", " \n\n ", "[1]", "... [2] !", "Rick:", "Rick:\nMorty:", "[note]"])
def test_text_without_words_is_no_sentence(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "words", "markers"),
    [
        ("It fits [12", "It fits", ()),
        ("It fits [", "It fits", ()),
        ("It fits [note].", "It fits.", ()),
        ("It fits [see 3].", "It fits.", ()),
        ("It fits [1234].", "It fits.", ()),
        ("It fits [99999999999999999999999].", "It fits.", ()),
        ("It fits [\u0663].", "It fits.", ()),
        ("It fits [\uff11].", "It fits.", ()),
        ("It fits [\u00b2].", "It fits.", ()),
        ("It fits [-1].", "It fits.", ()),
        ("It fits [1, 2].", "It fits.", ()),
        ("It fits [ 2 ].", "It fits.", (2,)),
        ("It fits [0].", "It fits.", (0,)),
        ("It fits 1] here.", "It fits 1] here.", ()),
        ("It fits (1).", "It fits (1).", ()),
    ],
)
def test_only_ascii_numbers_in_square_brackets_are_markers(text: str, words: str, markers: tuple[int, ...]) -> None:
    assert read(text) == [RawSentence(None, words, markers)]


@pytest.mark.parametrize("text", ["It fits [[1]].", "It fits [[x]1].", "It fits [a[2]b].", "It fits [[[[3]]]] [4"])
def test_nested_brackets_leave_no_marker_in_the_text(text: str) -> None:
    assert all(not re.search(r"\[", sentence.text) for sentence in read(text))


def test_a_sentence_cut_off_at_a_colon_or_dash_ends_in_a_full_stop() -> None:
    assert texts("It has two parts: [1] It scales — [2]") == ["It has two parts.", "It scales."]


def test_a_full_stop_of_an_abbreviation_ends_no_sentence() -> None:
    assert texts("Use a small model, e.g. MiniLM, as in Fig. 2 [1].") == [
        "Use a small model, e.g. MiniLM, as in Fig. 2."
    ]


STREAM = st.text(
    alphabet=st.one_of(st.sampled_from(list("[]12 .!?\n\"')(:;,ABab")), st.characters(codec="utf-8")), max_size=80
) | st.lists(
    st.sampled_from(
        [
            "Rick: ",
            "Morty: ",
            "It fits",
            " noise",
            ". ",
            "? ",
            "! ",
            "[1]",
            "[22]",
            "[",
            "]",
            "\n",
            " ",
            '"',
            "e.g. ",
            "Fig. ",
            "A",
            "(",
            ")",
            "é",
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(STREAM, st.lists(st.integers(0, 80), max_size=10))
def test_any_chunking_of_a_stream_gives_the_same_sentences(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert read(*pieces) == read(text) == read(*text)


@settings(max_examples=400, deadline=None)
@given(STREAM)
def test_no_sentence_holds_a_bracketed_marker_or_lacks_words(text: str) -> None:
    for sentence in read(text):
        assert "[" not in sentence.text
        assert any(char.isalnum() for char in sentence.text)
        assert "\n" not in sentence.text
