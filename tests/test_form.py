"""Every answer that the form lets through is valid: markers, speakers, certified claims. No weights are needed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jargon_rag.form import Options, Vocabulary, write_form
from jargon_rag.grounding import check_support
from jargon_rag.reading import read_sentences
from jargon_rag.types import AnswerForm, Style

DROPOUT = (
    "Dropout zeroes random units (in training), so that none can be leaned on. It is off at inference: all units work there. "
    "Is it always useful? Rates vary by layer; wide layers use 0.1."
)
DECAY = "Weight decay shrinks every weight a little at each step — a nudge toward zero. That is no cure for bad labels."
PASSAGES = (
    (1, "Dropout", DROPOUT),
    (1, "Dropout", "Keep dropout away from batch norm, because the variances shift."),
    (2, "Weight Decay", DECAY),
)


def vocabulary(seed: int, *, merges: int = 300) -> tuple[Vocabulary, list[str]]:
    """Return a random vocabulary: all characters, and random runs of a few that occur in the texts."""
    rng = random.Random(seed)
    text = f"\nMorty:\nRick:\nAnswer: {DROPOUT} {DECAY} [1] [2] Look, Morty, plot twist: what is this thing then, yeah?"
    pieces = ["<stop>", *sorted({*text, *map(chr, range(32, 127)), "\n"})]
    runs = {text[i : i + rng.randint(2, 6)] for i in (rng.randrange(len(text)) for _ in range(merges))}
    pieces += sorted(runs - set(pieces) - {run for run in runs if "?" in run})
    longest = sorted(range(1, len(pieces)), key=lambda i: (-len(pieces[i]), pieces[i]))

    def encode(written: str) -> list[int]:
        ids, start = [], 0
        while start < len(written):
            token = next(i for i in longest if written.startswith(pieces[i], start))
            ids.append(token)
            start += len(pieces[token])
        return ids

    return Vocabulary(encode, 0), pieces


ASKED = "What is this?"
VOCABULARIES = [vocabulary(seed) for seed in range(8)]


def walk(form: AnswerForm, words: Vocabulary, pick: Callable[[Options], int]) -> list[int]:
    """Return the tokens of one answer; `pick` chooses among the options."""
    steps, made = write_form(form, words), []
    options = next(steps)
    while True:
        assert len(options)
        assert all(token == words.stop_id or token > 0 for token in options)
        token = int(pick(options))
        made.append(token)
        if token == words.stop_id:
            return made
        options = steps.send(token)


def text_of(made: Sequence[int], pieces: list[str]) -> str:
    return "".join(pieces[token] for token in made if token)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, len(VOCABULARIES) - 1),
    st.randoms(use_true_random=False),
    st.sampled_from(["rick", "plain"]),
    st.sampled_from([frozenset(), frozenset({1, 2})]),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_whatever_is_picked_is_a_valid_answer(
    number: int, rng: random.Random, style: Style, required: frozenset[int], likely: int, max_claims: int
) -> None:
    words, pieces = VOCABULARIES[number]
    form = AnswerForm(style, PASSAGES, ASKED, likely, required, max_claims)
    text = text_of(walk(form, words, rng.choice), pieces)
    lines = text.split("\n")
    if style == "plain":
        assert len(lines) == 1
        assert text.startswith("Answer: ")
    else:
        assert len(lines) == 2
        assert lines[0] == f"Morty: {ASKED}"
        assert lines[1].startswith("Rick: ")
    claims = [sentence for sentence in read_sentences([text]) if sentence.speaker != "Morty"]
    assert 1 <= len(claims) <= max(max_claims, 1)
    for claim in claims:
        (marker,) = claim.markers
        assert any(check_support(claim.text, passage).supported for n, _, passage in PASSAGES if n == marker), claim
    used = [next(i for i, (_, _, passage) in enumerate(PASSAGES) if said(claim.text, passage)) for claim in claims]
    assert [i for i in dict.fromkeys(used) if i < likely] == list(range(min(likely, max_claims)))
    cited = {claim.markers[0] for claim in claims}
    assert required <= cited or len(claims) == max_claims < likely + len(required)


@pytest.mark.parametrize(
    ("markers", "max_claims", "of_each"),
    [
        ((1, 1), 6, [2, 2]),
        ((1, 1), 4, [2, 2]),
        ((1, 1), 3, [2, 1]),
        ((1, 1), 2, [1, 1]),
        ((1, 1), 1, [1, 0]),
        ((1, 2), 3, [2, 1]),
    ],
)
def test_likely_passages_are_said_to_their_end_as_far_as_that_leaves_room_for_the_others(
    markers: tuple[int, int], max_claims: int, of_each: list[int]
) -> None:
    passages = (
        "Dropout zeroes units. Dropout is off at inference.",
        "Dropout slows training. Dropout helps wide layers.",
    )
    words, pieces = vocabulary(0, merges=0)
    facts = tuple((marker, "Dropout", text) for marker, text in zip(markers, passages, strict=True))
    form = AnswerForm("plain", facts, "", 2, frozenset(), max_claims)
    for seed in range(20):
        text = text_of(walk(form, words, random.Random(seed).choice), pieces)
        claims = [sentence.text for sentence in read_sentences([text])]
        assert [sum(said(claim, passage) for claim in claims) for passage in passages] == of_each


def test_of_another_entry_s_likely_passage_the_model_may_leave_the_rest_out() -> None:
    words, pieces = vocabulary(0, merges=0)
    facts = ((1, "Dropout", "Dropout zeroes units."), (2, "Epoch", "An epoch is one pass. An epoch has many steps."))
    found = set()
    for seed in range(20):
        text = text_of(
            walk(AnswerForm("plain", facts, "", 2, frozenset(), 6), words, random.Random(seed).choice), pieces
        )
        found.add(sum(said(sentence.text, facts[1][2]) for sentence in read_sentences([text])))
    assert found == {1, 2}


def said(claim: str, passage: str) -> bool:
    return check_support(claim, passage).supported


def always(wanted: str, pieces: list[str]) -> Callable[[Options], int]:
    """Return a pick that spells a text out and fails where the form does not let it."""
    left = wanted

    def pick(options: Options) -> int:
        nonlocal left
        if not left:
            assert 0 in options, f"{wanted!r} cannot end there"
            return 0
        fits = [token for token in options if token and left.startswith(pieces[token])]
        assert fits, f"nothing fits {left!r}"
        token = max(fits, key=lambda i: len(pieces[i]))
        left = left[len(pieces[token]) :]
        return token

    return pick


FIRST = "Dropout zeroes random units (in training), so that none can be leaned on. [1]"
SECOND = "It is off at inference: all units work there. [1]"
ANSWERS = [
    f"Morty: What is this?\nRick: {FIRST} {SECOND}",
    f"Morty: What is this?\nRick: Plot twist, Morty: d{FIRST[1:]} {SECOND}",
    f"Morty: What is this?\nRick: {FIRST} {SECOND} Keep dropout away from batch norm, because the variances shift, Morty. [1]",
    f"Morty: What is this?\nRick: {FIRST} {SECOND} Weight decay shrinks every weight a little at each step. [2]",
]


@pytest.mark.parametrize("text", ANSWERS)
def test_it_lets_through(text: str) -> None:
    words, pieces = vocabulary(0, merges=0)
    assert text_of(walk(AnswerForm("rick", PASSAGES, ASKED), words, always(text, pieces)), pieces) == text


@pytest.mark.parametrize(
    "text",
    [
        f"Morty: What is that?\nRick: {FIRST}",
        f"Morty: What is this?\nRick: {FIRST}\nMorty: What is that then?\nRick: Keep dropout away from batch norm. [1]",
        f"Morty: What is this?\nRick: {FIRST[:-3]}[2]",
        f"Morty: What is this?\nRick: {FIRST.replace('none', 'many')}",
        f"Morty: What is this?\nRick: {FIRST}",
        f"Morty: What is this?\nRick: {FIRST} {SECOND} {FIRST}",
        "Morty: What is this?\nRick: Morty, dropout zeroes random units, so that none can be leaned on, Morty. [1]",
        f"Morty: What is this?\nRick: Morty, Morty: {FIRST}",
        "Morty: What is this?\nRick: It is off at inference: all units work there. [1]",
        "Morty: What is this?\nRick: Weight decay shrinks every weight a little at each step. [2]",
        f"Morty: What is this?\nRick: {FIRST} {SECOND} Is it always useful? [1]",
        f"Morty: What is this?\nRick: {FIRST} {SECOND} Wide layers use 0.1. [1]",
        f"Morty: What is this?\nRick: {FIRST} {SECOND} Weight decay shrinks every weight. [2]",
        "Morty: What is this?",
        "NONE",
        f"Rick: {FIRST}",
    ],
)
def test_it_does_not_let_through(text: str) -> None:
    words, pieces = vocabulary(0, merges=0)
    with pytest.raises(AssertionError, match=r"nothing fits|cannot end"):
        walk(AnswerForm("rick", PASSAGES, ASKED), words, always(text, pieces))


@pytest.mark.parametrize(
    ("term", "passage", "alone"),
    [
        ("Neap Tide", "Grounding at a spring high is a trap. Sailors call that being neaped.", False),
        ("Neap Tide", "Grounding at a spring high is a trap. A neap tide has the smallest range.", True),
        (
            "Neap Tide",
            "Grounding at a spring high is a trap. It may last a fortnight until the neap tide is over.",
            False,
        ),
    ],
)
def test_a_sentence_that_points_back_follows_the_one_before_it(term: str, passage: str, alone: bool) -> None:
    pieces = ["<stop>", "\n", *map(chr, range(32, 127))]
    words = Vocabulary(lambda text: [pieces.index(letter) for letter in text], 0)
    first = "Dropout is off at inference."
    form = AnswerForm("plain", ((1, "Dropout", first), (1, term, passage)))
    second = re.split(r"(?<=[.]) ", passage)[1]
    text = f"Answer: {first} [1] {second} [1]"
    if alone:
        assert text_of(walk(form, words, always(text, pieces)), pieces) == text
    else:
        with pytest.raises(AssertionError, match="nothing fits"):
            walk(form, words, always(text, pieces))


def test_a_comparison_does_not_end_before_both_are_cited() -> None:
    words, pieces = vocabulary(0, merges=0)
    form = AnswerForm("plain", PASSAGES, required=frozenset({1, 2}))
    with pytest.raises(AssertionError, match="cannot end"):
        walk(form, words, always(f"Answer: {FIRST}", pieces))


def test_passages_without_a_sentence_end_the_answer() -> None:
    words, pieces = vocabulary(2)
    text = text_of(walk(AnswerForm("plain", ((1, "Dropout", "Dropout"),)), words, lambda options: options[-1]), pieces)
    assert text == "Answer:"
