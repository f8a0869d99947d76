"""The form of an answer as token ids: what may be written next, so that every answer is valid by construction.

    rick   "Morty:" question newline "Rick:" claim+
    plain  "Answer:" claim+
    claim  an opening of the voice perhaps, a sentence of a passage, whole or trimmed as the certificate allows, " [n]"

Morty's question is given. The passages that may well be the one that answers are each said, the likeliest first. All else is
copied, so most tokens leave the model no choice, and it is asked only where there is one (jump-forward decoding: Zheng et
al. 2024, SGLang). That the passages do not answer cannot be written: after an epoch of training on such
prompts too, the model is at chance at it (docs/how-it-works.md), and retrieval is not. Nothing here runs a model: token ids in, token ids out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from jargon_rag.chunking import split_sentences
from jargon_rag.grounding import ASIDES, check_support
from jargon_rag.terms import name_key, singular, split_heading
from jargon_rag.terms import words as spoken
from jargon_rag.types import AnswerForm

T = TypeVar("T")
Options = tuple[int, ...]
Steps = Generator[Options, int, T]  # yields the tokens that may come next, is sent the one that was taken

MIN_CLAIM_WORDS = 3
STOP = "stop"
_CUT = re.compile(r"\s+[—–]\s+|[;:]\s+|,\s+(?=(?:so|which|because)\b)")
_BRACKET = re.compile(r"\s*\([^()]*\)")
_PAUSE = re.compile(r"(?=[,;:]\s)|(?=\.$)")
_LEANS_BACK = re.compile(
    r"(it|its|they|their|them|this|that|these|those|he|she|but|and|so|then|or|there|here|such|both|neither|either|instead|"
    r"otherwise|still|also)\b",
    re.IGNORECASE,
)
_PRONOUNS = frozenset("it its they them their this that these those he him his she her one both such".split())
_OPENINGS = tuple(
    f" {aside[0].upper()}{aside[1:]}{sign}" for aside in (*ASIDES, "listen", "okay", "yeah", "*burp*") for sign in ",:"
)


class Vocabulary:
    """What the form needs of a tokenizer: how texts are written in tokens, and which one ends an answer."""

    def __init__(self, encode: Callable[[str], list[int]], stop_id: int) -> None:
        """`encode` adds no special tokens."""
        self.encode = lru_cache(50_000)(lambda text: tuple(encode(text)))
        self.stop_id = stop_id


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sentence that may be written, in all its allowed wordings, each with its marker."""

    sentence: str  # as the passage has it
    before: str  # the sentence before it there, if it cannot be understood without
    passage: int  # which
    marker: int
    wordings: tuple[str, ...]


def write_form(form: AnswerForm, words: Vocabulary) -> Steps[None]:
    """Walk one answer: yield the ids that may come next, at least one, and be sent the one that was taken."""
    opening = f"Morty: {form.asked}\nRick:" if form.style == "rick" else "Answer:"
    yield from _choose({words.encode(opening): None})
    claims = [claim for number in range(len(form.facts)) for claim in _claims(number, form)]
    said: list[_Claim] = []
    while True:
        left = _sayable(claims, said, form)
        ways: dict[tuple[int, ...], _Claim | str] = {}
        if not left or (said and not _owed(left, said, form)):
            ways[(words.stop_id,)] = STOP
        if left and form.style == "rick":
            ways |= {words.encode(opening): opening for opening in (*_OPENINGS, " *burp*", " Morty,")}
        ways |= {words.encode(f" {text}"): claim for claim in left for text in claim.wordings}
        taken = yield from _choose(ways)
        if isinstance(taken, str) and taken != STOP:
            taken = yield from _after_opening(left, words, addressed=taken == " Morty,")
        if not isinstance(taken, _Claim):
            return
        said.append(taken)


def _choose(ways: Mapping[tuple[int, ...], T]) -> Steps[T]:
    """Walk one of several token sequences and return what it stands for."""
    left, position = list(ways), 0
    while True:
        token = yield tuple(dict.fromkeys(way[position] for way in left))
        position += 1
        left = [way for way in left if way[position - 1] == token]
        for way in left:
            if len(way) == position:
                return ways[way]


def _after_opening(claims: Sequence[_Claim], words: Vocabulary, *, addressed: bool) -> Steps[_Claim]:
    """Walk what follows an opening: 'Morty' unless he was addressed, then a claim, its first letter large or small."""
    if not addressed:
        address: dict[tuple[int, ...], _Claim | None] = {words.encode(f" Morty{sign}"): None for sign in ",:"}
        claim = yield from _choose(address | _after_address(claims, words, again=True))
        if claim is not None:
            return claim
    return (yield from _choose(_after_address(claims, words, again=False)))


def _after_address(claims: Sequence[_Claim], words: Vocabulary, *, again: bool) -> dict[tuple[int, ...], _Claim]:
    """Return the ways to say each claim; Morty may be addressed in it again, or not where that can be helped."""
    said = [(claim, wording) for claim in claims for wording in claim.wordings]
    if not again:
        said = [(claim, wording) for claim, wording in said if "Morty" not in wording] or said
    return {
        words.encode(f" {text}"): claim
        for claim, wording in said
        for text in (wording, wording[0].lower() + wording[1:])
    }


def _sayable(claims: Sequence[_Claim], said: Sequence[_Claim], form: AnswerForm) -> list[_Claim]:
    """Return the claims that may come next: not said yet, what needs the sentence before it only after that."""
    if len(said) >= form.max_claims:
        return []
    known = {claim.sentence for claim in said}
    last = said[-1].sentence if said else None
    left = [claim for claim in claims if claim.sentence not in known and claim.before in ("", last)]
    owed = _owed(left, said, form)
    if not owed:
        cited = {claim.marker for claim in said}
        best = {marker: number for number, (marker, _, _) in reversed(list(enumerate(form.facts)))}
        return [claim for claim in left if claim.marker in cited or claim.passage == best[claim.marker]] or left
    first = min(claim.passage for claim in left if claim.passage in owed[0])
    return [claim for claim in left if claim.passage == first]


def _owed(left: Sequence[_Claim], said: Sequence[_Claim], form: AnswerForm) -> list[frozenset[int]]:
    """Return groups of facts that something has to be said of yet, in their order: the likely ones, then the required entries.

    A likely one of the likeliest one's entry is said to its end, as far as that leaves room for the others.
    """
    groups = [(frozenset({number}), form.facts[number][0] == form.facts[0][0]) for number in range(form.likely)]
    for wanted in sorted(form.required):
        groups.append((frozenset(n for n, (marker, _, _) in enumerate(form.facts) if marker == wanted), False))
    groups = [(group, whole) for group, whole in groups if any(claim.passage in group for claim in left)]
    begun = [any(claim.passage in group for claim in said) for group, _ in groups]
    room = form.max_claims - len(said) > begun.count(False)
    return [group for (group, whole), said_of in zip(groups, begun, strict=True) if not said_of or (whole and room)]


def _claims(number: int, form: AnswerForm) -> list[_Claim]:
    """Return what may be said of a passage.

    A sentence can do without the one before it if it names the term, does not begin with 'It' or the like, and has no pronoun
    before the name; the first one has none before it: it answers a question about the entry, as Morty's is.
    """
    marker, term, passage = form.facts[number]
    names = [key for name in split_heading(term) if (key := name_key(name))]
    claims = []
    before = ""
    for sentence, texts in _wordings(passage, addressed=form.style == "rick"):
        if texts:
            needs = before if _LEANS_BACK.match(sentence) or not _names_first(sentence, names) else ""
            claims.append(_Claim(sentence, needs, number, marker, tuple(f"{text} [{marker}]" for text in texts)))
        before = sentence
    return claims


def _names_first(sentence: str, names: Sequence[str]) -> bool:
    """Tell whether a sentence names one of the names, and no pronoun stands before it."""
    said = ""
    for word in spoken(sentence):
        if word in _PRONOUNS:
            return False
        said += singular(word)
        if any(name in said for name in names):
            return True
    return False


@lru_cache(2_000)
def _wordings(passage: str, *, addressed: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Return the sentences of a passage, each with the wordings that the certificate lets pass; none for a question."""
    found = []
    for sentence in split_sentences(passage):
        trimmed = [sentence[: cut.start()] + "." for cut in _CUT.finditer(sentence)]
        trimmed += [_BRACKET.sub("", text) for text in (sentence, *trimmed) if "(" in text]
        texts = [text for text in dict.fromkeys([sentence, *trimmed]) if _may_stand(text, passage)]
        if addressed:
            addresses = [
                f"{text[: p.start()]}, Morty{text[p.start() :]}" for text in texts for p in _PAUSE.finditer(text)
            ]
            texts += addresses
        found.append((sentence, tuple(texts)))
    return found


def _may_stand(text: str, passage: str) -> bool:
    whole = "[" not in text and text.endswith((".", "!")) and len(text.split()) >= MIN_CLAIM_WORDS
    return whole and check_support(text, passage).supported
