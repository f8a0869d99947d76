"""The fixed lines of an answer: they claim nothing, so they need no citation. A parody voice, in our own words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from jargon_rag.types import Style

OPENINGS = (
    "Rick, someone at work said '{term}' and I nodded. Help?",
    "Can you give me {term} in words I could repeat in a meeting?",
    "Quick, Rick, before the code review: {term}?",
    "I have been pretending to understand {term} since Monday, Rick.",
    "Okay, {term}. Pretend I am five, but an engineer.",
    "What is the deal with {term}, Rick?",
    "So, {term}. I nodded in the stand-up. What did I just agree to?",
    "My manager wrote {term} on a sticky note and left. What now, Rick?",
    "{term}, Rick. Short version, I have a bus to catch.",
    "Somebody left a review comment about {term}, and it is my pull request.",
    "Rick, is {term} one of those things I should have known on day one?",
    "I googled {term} and now I know less. Rick?",
    "If I say {term} out loud tomorrow, will anybody laugh at me?",
    "Explain {term} before the coffee wears off, Rick.",
    "The slide just says {term}. That is the whole slide, Rick.",
    "Rick, tell me about {term} like the build is on fire.",
    "They asked me about {term} in an interview once. I said 'yes'.",
    "Can we talk about {term} without the whiteboard this time?",
)
COMPARE_OPENINGS = (
    "{terms}: how do I keep them apart, Rick?",
    "Everybody throws {terms} around as if I knew which is which.",
    "Rick, {terms}. One at a time, please.",
)
REFUSALS = (
    "I do not have that in my glossary, and I will not make something up to fill the silence.",
    "Not on my shelves. I only talk about what is written there, unlike some models I could name.",
    "My glossary is silent on that one, and so am I.",
    "That is outside what I have written down, and guessing is how bad slides get made.",
)
SILENCES = (
    "I have {term} on file, but that particular detail is not in there, and I am not inventing it.",
    "Close, but what I have on {term} does not answer that. I checked. Twice. I was sober for one of them.",
    "My notes on {term} stop short of that question, so I stop short of an answer.",
    "I looked under {term}, and the answer is not written there.",
)
PLAIN_SILENCE = "The glossary has an entry on {term}, but it does not answer this."
PLAIN_REFUSAL = "The glossary does not cover this."
NEAREST = "The nearest things in there: {terms}."


def opening(question: str, terms: Sequence[str]) -> str:
    """Return Morty's first line for a question, the same one each time it is asked."""
    if len(terms) > 1:
        return _pick(COMPARE_OPENINGS, question).format(terms=_listed(terms))
    return _pick(OPENINGS, question).format(term=terms[0])


def refusal(question: str, nearest: Sequence[str], *, style: Style) -> list[str]:
    """Return the sentences that say that the glossary has no answer, and what it has instead."""
    first = PLAIN_REFUSAL if style == "plain" else _pick(REFUSALS, question)
    return [first, NEAREST.format(terms=_listed(nearest))] if nearest else [first]


def silence(question: str, nearest: Sequence[str], *, style: Style) -> list[str]:
    """Return the sentences that say that the nearest entry does not hold the answer."""
    first = (PLAIN_SILENCE if style == "plain" else _pick(SILENCES, question)).format(term=nearest[0])
    return [first, NEAREST.format(terms=_listed(nearest))]


def without_address(text: str) -> str:
    """Return a line of Rick's without 'Morty': in plain style nobody is spoken to."""
    text = re.sub(r"^Morty,\s*(\w)", lambda match: match[1].upper(), text)
    return re.sub(r",?\s*\bMorty\b(?=[,.!?;:]|\s*$)", "", text).strip()


def _pick(lines: Sequence[str], question: str) -> str:
    return lines[zlib.crc32(question.strip().lower().encode()) % len(lines)]


def _listed(terms: Sequence[str]) -> str:
    return ", ".join(terms[:-1]) + " and " + terms[-1] if len(terms) > 1 else terms[0]
