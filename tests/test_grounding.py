from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evals.data import read_rows
from jargon_rag.chunking import split_sentences
from jargon_rag.glossary import read_glossary
from jargon_rag.grounding import ASIDES, check_support
from jargon_rag.terms import split_heading

SHIPPED = Path(__file__).parents[1] / "corpus"

# What the check lets pass

EVIDENCE = (
    "Weight decay shrinks every weight a little at each step, so no single weight grows large. "
    "It's not a cure for bad labels: it'll learn the noise. "
    "Use 0.01 with AdamW; L2 regularization (ridge) differs there. "
    "Layers don't all need it, because norms and biases are few. "
    "The method (Loshchilov and Hutter) decouples decay from the gradient."
)


@pytest.mark.parametrize(
    "claim",
    [
        "Weight decay shrinks every weight a little at each step, so no single weight grows large.",
        "Weight decay shrinks every weight a little at each step.",
        "Yeah, Morty, weight decay shrinks every weight a little at each step.",
        "Listen, Rick: weight decay shrinks every weight a little at each step",
        "weight decay shrinks every weights a little at each steps",
        "It is not a cure for bad labels: it will learn the noise.",
        "It’s not a cure for bad labels.",
        "It is not a cure for the bad label.",
        "Use 0.01 with AdamW.",
        "L2 regularization (ridge) differs there.",
        "Layers do not all need it, because norms and biases are few.",
        "The method decouples decay from the gradient.",
        "Use 0.01 with AdamW. The method decouples decay from the gradient.",
        "**Use** `0.01` with AdamW",
    ],
)
def test_a_claim_in_the_evidence_s_words_passes(claim: str) -> None:
    verdict = check_support(claim, EVIDENCE)
    assert (verdict.supported, verdict.score) == (True, 1.0)


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("Layers don't need it.", "Layers do not need it."),
        ("Layers do not need it.", "Layers don't need it."),
        ("You cannot skip it.", "You can't skip it."),
        ("They are slow and we will wait.", "They're slow and we'll wait."),
        ("Cafe\u0301 data is small.", "Caf\u00e9 data is small."),
        ("It costs 12,000 tokens.", "It costs 12000 tokens."),
        ("A few units are off.", "A few units are off."),
        ("Use fine‑tuning first.", "Use fine-tuning first."),
    ],
)
def test_spelling_variants_of_one_claim_pass(claim: str, evidence: str) -> None:
    assert check_support(claim, evidence).supported


def test_the_quote_is_the_whole_sentence_that_the_claim_rests_on() -> None:
    verdict = check_support("Use 0.01 with AdamW.", EVIDENCE)
    assert verdict.quote == "Use 0.01 with AdamW; L2 regularization (ridge) differs there."


def test_the_quote_spans_the_right_sentences_where_one_ends_like_another() -> None:
    evidence = "Old models fit. Big old models fit. Old models fit. Trees split."
    assert check_support("Big old models fit. Old models fit.", evidence).quote == "Big old models fit. Old models fit."


# What it must not let pass


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("L1 regularization zeroes weights.", "L2 regularization zeroes weights."),
        ("Use fp16 weights.", "Use fp32 weights."),
        ("The F score is a mean.", "The F1 score is a mean."),
        ("A rate of 1e5 is fine.", "A rate of 1e-5 is fine."),
        ("A shift of 5 is fine.", "A shift of -5 is fine."),
        ("A shift of 5 is fine.", "A shift of \u22125 is fine."),
        ("The threshold is 5.", "The threshold is .5."),
        ("Use 12 layers.", "Use 1,2 layers."),
        ("Take x*2.", "Take x**2."),
        ("Take x 2.", "Take x * 2."),
        ("The update is w lr g.", "The update is w - lr g."),
        ("Mix them 1-10.", "Mix them 1:10."),
        ("It takes 5 of memory.", "It takes 5% of memory."),
        ("It takes 5 ms.", "It takes 5 s."),
        ("No regularization helps.", "No, regularization helps."),
        ("Never, train on the test set.", "Never train on the test set."),
        ("Few units are off.", "A few units are off."),
        ("Little noise helps.", "A little noise helps."),
        ("Option is faster than option B.", "Option A is faster than option B."),
        ("The winner is B.", "The winner is A. B loses."),
        ("There are three: red; green.", "There are three: red; green; blue."),
        ("Take red; blue.", "Take red; then green; blue."),
        ("The winner is B loses.", "The winner is: A. B loses."),
        ("The first is not learned weights are.", "The first is not learned. Weights are."),
        ("Dropout is active.", "Dropout is active (during training)."),
        ("Dropout is active.", "Dropout is active — in training, that is."),
        ("Networks need labels.", "Networks (deep) need labels."),
        ("It helps.", "It helps — in theory."),
        ("Bigger is better.", "Bigger is better — sometimes."),
        ("Accuracy is enough.", "Accuracy is enough — a myth."),
        ("Accuracy is enough.", "Accuracy is enough: not!"),
        ("It runs etc.", "It runs etc.; only if you pay."),
        ("The scale is one.", "At inference, dropout is off; the scale is one."),
        ("Scale it up.", "Scale it up if data is plenty."),
        ("It helps, so ship it.", "It helps, so ship it if tests pass."),
        ("It is fast, which pays.", "It is fast, which pays when traffic is high."),
        ("Trees overfit.", "Trees can overfit."),
        ("Trees overfit.", "Trees often overfit."),
        ("All trees overfit.", "Trees overfit."),
        ("Trees overfit.", "Do trees overfit?"),
        ("Trees overfit.", "Do you think, e.g. that Trees overfit?"),
        ("Trees overfit?", "Trees overfit."),
        ("do trees overfit", "Do trees overfit? Some say so."),
        ("The us team won.", "The team won."),
        ("", "Trees overfit."),
        ("Yeah, Morty.", "Yeah, Morty."),
        ("Trees overfit.", ""),
        ("Trees overfit.", " \n "),
        ("...", "..."),
    ],
)  # fmt: skip
def test_a_claim_that_the_evidence_does_not_make_fails(claim: str, evidence: str) -> None:
    verdict = check_support(claim, evidence)
    assert not verdict.supported
    assert verdict.score < 1
    assert verdict.quote == ""
    assert verdict.reason


def test_a_lie_behind_four_hundred_true_words_fails() -> None:
    evidence = "word " * 398 + "ends."
    assert check_support(evidence, evidence).supported
    assert not check_support(evidence + " And the moon is made of weights.", evidence).supported


def test_a_condition_that_lies_beyond_what_is_read_still_counts() -> None:
    evidence = "Noise hurts. " + "Word " * 396 + "helps only if it rains."
    assert not check_support("word " * 396 + "helps.", evidence).supported
    assert check_support("Noise hurts.", evidence).supported


def test_the_reason_names_the_foreign_word() -> None:
    assert "'dog'" in check_support("Trees overfit dogs.", "Trees overfit noise.").reason


def test_the_reason_names_the_limit_that_was_left_out() -> None:
    assert "'unless'" in check_support("Trees overfit.", "Trees overfit unless you prune.").reason


# Mutations of the shipped glossary: none may pass


@dataclass(frozen=True)
class Place:
    sentence: str
    evidence: str
    term: str


def places() -> list[Place]:
    found: list[Place] = []
    for entry in read_glossary(SHIPPED):
        passages = [passage.text for passage in (*entry.definition, *entry.gotchas)]
        passages += [turn.text for turn in entry.turns if turn.speaker == "Rick"]
        for text in passages:
            found += [Place(sentence, text, entry.term) for sentence in split_sentences(text) if "?" not in sentence]
    return found


def folded(text: str) -> list[str]:
    """Words, numbers and signs that calculate; without case, articles and plural endings."""
    words = re.findall(r"[^\W_]+|[%$+=/<>^~≤≥×]|-(?=\d)", unicodedata.normalize("NFC", text).lower())
    return [re.sub(r"(?<=\w{3})s$", "", word) for word in words if word not in ("a", "an", "the", "morty")]


def says_the_same(mutated: str, place: Place) -> bool:
    """Exclude what is no change: the words that are left are those of whole sentences of the evidence, in order."""
    words = folded(mutated)
    return any(words == folded(sentence) for sentence in [place.evidence, *split_sentences(place.evidence)])


Mutation = Callable[[Place, random.Random], Iterator[str]]


def replaced(pattern: str, replacement: str | Callable[[re.Match[str]], str], text: str) -> Iterator[str]:
    """Yield the text with one match replaced, for each match."""
    for match in re.finditer(pattern, text, re.IGNORECASE):
        new = replacement if isinstance(replacement, str) else replacement(match)
        yield text[: match.start()] + new + text[match.end() :]


def insert_negator(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(
        r"\b(is|are|was|can|will|does|do|should|has|have|must|may)\b", lambda m: f"{m[0]} not", place.sentence
    )
    words = place.sentence.split()
    at = rng.randrange(1, len(words)) if len(words) > 1 else 0
    yield " ".join([*words[:at], rng.choice(["not", "never", "no", "hardly", "without"]), *words[at:]])


def remove_guard(place: Place, rng: random.Random) -> Iterator[str]:
    guards = (
        r"not|never|no|without|only|nor|neither|rarely|seldom|usually|often|sometimes|mostly|typically|generally|may|might|can|could|should|"
        r"about|roughly|nearly|almost|at least|at most|up to|just|even|few|some|many|more|less|cannot"
    )
    yield from replaced(rf"\s?\b({guards})\b", "", place.sentence)
    yield from replaced(r"n['’]t\b", "", place.sentence)


def change_number(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(r"\d+", lambda m: str(int(m[0]) + rng.randint(1, 9)), place.sentence)
    yield from replaced(r"\d+", lambda m: m[0] + "0", place.sentence)
    yield from replaced(r"(?<![\w.,-])\d+", lambda m: "-" + m[0], place.sentence)
    yield from replaced(r"(?<![\w.,])\d", lambda m: "." + m[0], place.sentence)
    yield from replaced(r"(?<=\d)[.](?=\d)", "", place.sentence)
    yield from replaced(r"(?<=[A-Za-z])\d+\b", "", place.sentence)
    numbers = {"one": "two", "two": "three", "three": "two", "four": "five", "five": "ten", "ten": "five", "half": "third", "twice": "thrice",
               "first": "second", "second": "third", "zero": "one", "hundred": "thousand", "thousand": "million", "million": "billion"}  # fmt: skip
    yield from replaced(rf"\b({'|'.join(numbers)})\b", lambda m: numbers[m[0].lower()], place.sentence)


def change_unit(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(
        r"(?<=\d)\s?(%|percent|ms|GB|MB|KB|kB|bits?|bytes?|tokens?|epochs?|steps?)", " lightyears", place.sentence
    )
    yield from replaced(r"%|\$|×|(?<=\d)\s?(ms|GB|MB)", "", place.sentence)
    yield from replaced(r"(?<=\s)[-+=<>≤≥](?=\s)", "", place.sentence)
    yield from replaced(r"(?<=\s)-(?=\s)", "+", place.sentence)


def pairs(*listed: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in listed:
        left, right = pair.split("/")
        found |= {left: right, right: left}
    return found


COMPARATIVES = pairs(
    "more/less", "higher/lower", "larger/smaller", "bigger/tinier", "before/after", "increases/decreases", "increase/decrease", "faster/slower",
    "better/worse", "above/below", "most/least", "longer/shorter", "rises/falls", "raises/lowers", "up/down", "earlier/later", "over/under",
    "best/worst", "grows/shrinks", "always/never", "all/some", "every/no", "easier/harder", "cheaper/dearer", "fewer/greater",
)  # fmt: skip
ANTONYMS = pairs(
    "training/inference", "high/low", "large/small", "positive/negative", "true/false", "on/off", "precision/recall", "bias/variance",
    "overfitting/underfitting", "input/output", "inputs/outputs", "encoder/decoder", "supervised/unsupervised", "dense/sparse", "in/out",
    "with/without", "good/bad", "same/different", "wide/narrow", "short/long", "fast/slow", "cheap/expensive", "hard/easy", "first/last",
    "linear/nonlinear", "maximum/minimum", "and/or", "can/cannot", "query/document", "train/test", "left/right", "many/few", "from/to",
    "wrong/right", "labels/features", "gradient/loss", "model/data", "deterministic/random", "strong/weak", "frozen/trained", "if/unless",
)  # fmt: skip


def swap_comparative(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(rf"\b({'|'.join(COMPARATIVES)})\b", lambda m: COMPARATIVES[m[0].lower()], place.sentence)


def swap_antonym(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(rf"\b({'|'.join(ANTONYMS)})\b", lambda m: ANTONYMS[m[0].lower()], place.sentence)


def swap_words(place: Place, rng: random.Random) -> Iterator[str]:
    words = place.sentence.split()
    content = [n for n, word in enumerate(words) if len(word) > 3]
    if len(content) > 1:
        first, second = sorted(rng.sample(content, 2))
        if folded(words[first]) != folded(words[second]):
            words[first], words[second] = words[second], words[first]
            yield " ".join(words)


def other_term(place: Place, rng: random.Random) -> Iterator[str]:
    for name in split_heading(place.term):
        other = rng.choice(TERMS)
        if folded(other) != folded(name):
            yield from replaced(rf"\b{re.escape(name)}\b", other, place.sentence)


def drop_condition(place: Place, rng: random.Random) -> Iterator[str]:
    starts = r"if|when|unless|until|while|without|before|after|except|provided|whenever|once|where|unlike|rather than|instead of"
    yield from replaced(rf"(^|,?\s|[(—–]\s?)\b({starts})\b[^,.;:—–()]*[,)]?", " ", place.sentence)


def drop_narrowing(place: Place, rng: random.Random) -> Iterator[str]:
    yield from replaced(
        r"(^|,?\s|[(—–]\s?)\b(in|on|at|for|during|with|within|under|over|by|from|per)\b[^,.;:—–()]*[,)]?",
        " ",
        place.sentence,
    )


def drop_word(place: Place, rng: random.Random) -> Iterator[str]:
    words = place.sentence.split()
    at = rng.randrange(len(words))
    stands_alone = re.search(r"[();:—–]", words[at])  # 'quantization (PTQ)': a bracket may be left out
    if folded(words[at]) and not stands_alone:
        yield " ".join(words[:at] + words[at + 1 :])


def graft_clause(place: Place, rng: random.Random) -> Iterator[str]:
    other = rng.choice(PLACES)
    if other.term != place.term:
        yield other.sentence
        yield f"{place.sentence.rstrip('.')}, so {other.sentence}"
        yield f"{place.sentence.rstrip('.')}; {other.sentence}"
        words, foreign = place.sentence.split(), other.sentence.split()
        yield " ".join(words[: len(words) // 2] + foreign[len(foreign) // 2 :])


def splice_sentences(place: Place, rng: random.Random) -> Iterator[str]:
    """The head of one sentence of a passage and the tail of another one of it."""
    others = [
        sentence for sentence in split_sentences(place.evidence) if sentence != place.sentence and "?" not in sentence
    ]
    if others:
        head, tail = place.sentence.split(), rng.choice(others).split()
        yield " ".join(head[: rng.randrange(1, len(head) + 1)] + tail[rng.randrange(len(tail)) :]).replace(". ", " ")


PLACES = places()
TERMS = sorted({place.term for place in PLACES})
MUTATIONS = [
    insert_negator, remove_guard, change_number, change_unit, swap_comparative, swap_antonym, swap_words, other_term, drop_condition,
    drop_narrowing, drop_word, graft_clause, splice_sentences,
]  # fmt: skip
SAMPLE = 500


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: str(mutate.__name__))
def test_no_mutated_sentence_of_the_shipped_glossary_passes(mutate: Mutation) -> None:
    rng = random.Random(7)
    mutated = [(claim, place) for place in PLACES for claim in mutate(place, rng)]
    rng.shuffle(mutated)
    tried = list(islice((pair for pair in mutated if not says_the_same(*pair)), SAMPLE))
    assert len(tried) > 15
    assert [(claim, place.evidence) for claim, place in tried if check_support(claim, place.evidence).supported] == []


def test_hardly_any_false_claim_passes_that_somebody_wrote_without_knowing_the_check() -> None:
    rows = read_rows(SHIPPED.parent / "evals" / "claims.jsonl")
    false = [(claim, row["passage"]) for row in rows for claim in row["false"]]
    assert len(false) >= 400
    passed = [pair for pair in false if check_support(*pair).supported]
    assert len(passed) <= 0.02 * len(false), passed


def test_every_sentence_of_the_shipped_glossary_supports_itself() -> None:
    chosen = random.Random(3).sample(PLACES, 700)
    assert [place for place in chosen if not check_support(place.sentence, place.evidence).supported] == []


def test_a_trimmed_clause_of_the_shipped_glossary_mostly_passes() -> None:
    trimmed = [
        (place.sentence[: cut.start()], place.evidence)
        for place in PLACES
        if (
            cut := re.search(
                r", so (?!.*\b(if|when|can|may|might|should|must|only|more|most|before|after|until|without)\b)",
                place.sentence,
            )
        )
    ]
    passed = [pair for pair in trimmed if check_support(*pair).supported]
    assert len(passed) > 0.5 * len(trimmed) > 20


def test_an_opening_of_the_voice_is_no_claim_and_hides_none() -> None:
    for opening in (*ASIDES, "Plot twist, Morty", "*burp* Look", "Wow. Look, Morty"):
        for sign in (",", ":", "!", " —"):
            assert check_support(f"{opening}{sign} use 0.01 with AdamW.", EVIDENCE).supported
            assert not check_support(f"{opening}{sign} use 0.02 with AdamW.", EVIDENCE).supported
        assert not check_support(f"Use 0.01 with AdamW, {opening} never.", EVIDENCE).supported
    assert not check_support("Oh no, use 0.01 with AdamW.", EVIDENCE).supported
    assert not check_support("Spoiler:", EVIDENCE).supported
    assert check_support("Look, Morty: use 0.01.", "Look, Morty: use 0.01.").supported
    assert not check_support("Look here: use 0.01.", EVIDENCE).supported


# Properties

STARTING_BIG = [place for place in PLACES if place.sentence[0].isupper()]  # 'k-means ...' begins no sentence elsewhere
WORDS = st.lists(
    st.sampled_from(
        "dropout the a an not no never few a-few if so which because it's can't don't 5 -5 0.5 1e-5 L2 % — – - : ; , . ? ! ( ) \" ' Morty, İ ß Fig. e.g. "
        "A B is off in training Recall rises 1,000 3–5 x*2".split()
    ),
    max_size=40,
).map(" ".join)
ANYTHING = st.text(st.characters(codec="utf-8"), max_size=120) | WORDS


@settings(max_examples=300, deadline=None)
@given(ANYTHING, ANYTHING)
def test_a_verdict_is_well_formed_for_any_text(claim: str, evidence: str) -> None:
    verdict = check_support(claim, evidence)
    assert 0 <= verdict.score <= 1
    assert verdict.supported == (verdict.score == 1.0) == bool(verdict.quote)
    assert verdict.quote in unicodedata.normalize("NFC", evidence)


@settings(max_examples=300, deadline=None)
@given(ANYTHING, ANYTHING)
@example("\x1f", "A(0")
def test_a_whole_sentence_of_any_passage_passes(before: str, after: str) -> None:
    passage = f"{before}\n{after}"
    for sentence in split_sentences(unicodedata.normalize("NFC", passage)):
        asserts = "?" not in sentence and re.search(
            r"[^\W_]", re.sub(r"\b(an?|the|Morty)\b", "", sentence, flags=re.IGNORECASE)
        )
        if asserts:
            assert check_support(sentence, passage).supported


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STARTING_BIG), st.sampled_from(STARTING_BIG))
def test_a_sentence_passes_wherever_it_stands_in_a_passage(place: Place, other: Place) -> None:
    assert check_support(place.sentence, f"{other.sentence} {place.sentence} {other.sentence}").supported


@pytest.mark.parametrize("text", ["a", "-1", "e.g. A", "(", "it's ", "[1] ", "! A", "no, "])
def test_two_hundred_thousand_characters_are_judged(text: str) -> None:
    long = text * (200_000 // len(text))
    assert not check_support(long, "Trees overfit.").supported
    assert not check_support("Trees overfit.", long).supported
    assert not check_support(long, long).supported or len(long.split()) == 1
