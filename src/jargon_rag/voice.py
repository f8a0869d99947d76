"""What is said around the claims: fixed lines that claim nothing, and how a line loses its voice in plain style."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TypeVar

from jargon_rag import lines
from jargon_rag.types import Style

T = TypeVar("T")
_TROUBLE = re.compile(r"\b(my|our|mine|ours)\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"\W*(why|how|when|where|which way)\b", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"\W*((so|and|but|wait|ok|okay)\W+)*(is|are|am|was|were|do|does|did|can|could|should|shall|would|will|may|might|must|has|have)"
    r"(n.?t)?\b",
    re.IGNORECASE,
)


def opening(question: str, terms: Sequence[str]) -> str:
    """Return Morty's first line for a question, the same one each time it is asked."""
    if len(terms) > 1:
        return _pick(lines.MORTY_COMPARES, question).format(terms=_listed(terms))
    return _pick(lines.MORTY_ASKS, question).format(term=terms[0])


def riposte(question: str, *, compares: bool, shows_code: bool) -> str:
    """Return Rick's first line, before any claim: it fits the manner of the question and says nothing of its matter."""
    if compares:
        return _pick(lines.RICK_BEGINS_A_COMPARISON, question)
    if shows_code:
        return _pick(lines.RICK_BEGINS_WITH_CODE, question)
    if _TROUBLE.search(question):
        return _pick(lines.RICK_BEGINS_WITH_TROUBLE, question)
    if _EXPLAIN.match(question):
        return _pick(lines.RICK_BEGINS_TO_EXPLAIN, question)
    if _YES_OR_NO.match(question):
        return _pick(lines.RICK_BEGINS_WITHOUT_A_VERDICT, question)
    return _pick(lines.RICK_BEGINS, question)


def farewell(question: str) -> tuple[str, str] | None:
    """Return who has the last word, after the claims, and what it is; every third answer ends without one."""
    speaker = _pick(("Rick", "Morty", None), question)
    if speaker is None:
        return None
    return speaker, _pick(lines.RICK_ENDS if speaker == "Rick" else lines.MORTY_ENDS, question)


def refusal(question: str, nearest: Sequence[str], *, style: Style) -> list[str]:
    """Return the sentences that say that the glossary has no answer, and what it has instead."""
    first = lines.PLAIN_REFUSAL if style == "plain" else _pick(lines.REFUSALS, question)
    return [first, lines.NEAREST.format(terms=_listed(nearest))] if nearest else [first]


def silence(question: str, nearest: Sequence[str], *, style: Style) -> list[str]:
    """Return the sentences that say that the nearest entry does not hold the answer."""
    first = (lines.PLAIN_SILENCE if style == "plain" else _pick(lines.SILENCES, question)).format(term=nearest[0])
    return [first, lines.NEAREST.format(terms=_listed(nearest))]


def without_address(text: str) -> str:
    """Return a line of Rick's without 'Morty': in plain style nobody is spoken to."""
    text = re.sub(r"^Morty,\s*(\w)", lambda match: match[1].upper(), text)
    return re.sub(r",?\s*\bMorty\b(?=[,.!?;:]|\s*$)", "", text).strip()


def _pick(choices: Sequence[T], question: str) -> T:
    """Return the choice that goes with a question; lists of like length must not go hand in hand."""
    return choices[zlib.crc32(f"{choices[-1]} {question.strip().lower()}".encode()) % len(choices)]


def _listed(terms: Sequence[str]) -> str:
    return ", ".join(terms[:-1]) + " and " + terms[-1] if len(terms) > 1 else terms[0]
