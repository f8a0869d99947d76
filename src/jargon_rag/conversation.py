"""Turn a follow-up into a question that can be understood alone.

A question that leans on what was said before gets the topic of the conversation: the entry, or the compared entries,
that the last question in scope was about. Whether it leans is judged by its words (a pronoun, an 'and' at the start, few
words, an announced change) and by what retrieval finds for it alone and with the topic; `calibration.json` weighs them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from jargon_rag.calibration import probability, weighted
from jargon_rag.errors import InputError
from jargon_rag.retriever import Retriever
from jargon_rag.terms import content_words, words
from jargon_rag.types import Message

MAX_HISTORY = 50  # messages; older ones are not looked at
MAX_TURNS = 4  # earlier questions that are read again to find the topic
MAX_TURN_CHARS = 2_000  # of each message: a pasted page need not be read whole
EARLY = 4  # words before a pronoun that can hardly hold what it stands for
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_PRONOUN = re.compile(
    r"\b(it|its|it's|they|them|their|he|she)\b|\b(that|this|these|those)\b(?=\s*(?:[?.,!;:]|$|(?:an?|the|is|are|was|does|do|can|will|still|also|really|"
    r"even|always|ever|only|too|then|good|bad|safe|work|works|help|helps|matter|matters|mean|means|happen|happens|or|and|but|in|on|at|for|"
    r"with|to|from|when|if|because|any|more|less|not|thing|way|case)\b))",
    re.IGNORECASE,
)
_REFERS = re.compile(
    r"\b(one|ones|former|latter|both|same|instead|else|another|either|neither|each|others?|first|second|two)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"^\s*(and|but|so|or|then|also|ok|okay|what about|how about|why|why not|how|when|where|how much|how many|how long|how often|"
    r"any|an? example|examples?|for example|such as|more|again|really|go on|continue|show me|code)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r"\b(different|another|other|next|new) (thing|question|topic|subject|one)\b|\b(unrelated|separately|anyway|by the way|btw|forget|"
    r"switching|changing|moving on|off.?topic|on to|leaving)\b",
    re.IGNORECASE,
)


def standalone_question(question: str, history: Sequence[Message], *, retriever: Retriever) -> str:
    """Return the question as it would be asked without the history.

    `history` holds messages of roles user and assistant, oldest first; only what the user asked counts, so any
    alternation will do.
    """
    asked = [message["content"] for message in history if message["role"] == "user" and message["content"].strip()]
    topic, previous = "", ""
    for earlier in asked[-MAX_TURNS:]:
        alone = _resolve(" ".join(earlier.split()), topic, previous, retriever)
        topic, previous = _topic(alone, retriever) or topic, alone
    return _resolve(question, topic, previous, retriever)


def follow_up_signals(question: str, topic: str, previous: str, retriever: Retriever) -> dict[str, float]:
    """Return what tells a question that leans on `topic` from one that starts afresh."""
    alone, joined = retriever.retrieve(question, top_k=2), retriever.retrieve(f"{topic}: {question}", top_k=2)
    topics = retriever.named(topic)
    other = any(slug not in topics for slug in retriever.named(question))
    pronoun = _PRONOUN.search(question)
    early = pronoun is not None and len(words(question[: pronoun.start()])) <= EARLY
    content = len(content_words(question))
    return {
        "pronoun": float(pronoun is not None),
        "early pronoun": float(early),
        "refers": float(bool(_REFERS.search(question))),
        "goes on": float(bool(_GOES_ON.search(question))),
        "changes": float(bool(_CHANGES.search(question))),
        "length": math.log1p(len(words(question))),
        "content": math.log1p(content),
        "bare": float(content <= 1 and not other),
        "names other": float(other),
        "names other, no pronoun": float(other and pronoun is None),
        "names topic": float(any(slug in topics for slug in retriever.named(question))),
        "alone": alone.confidence,
        "alone, no pronoun": alone.confidence * (pronoun is None),
        "joined": joined.confidence,
        "alone score": alone.results[0].score,
        "same entry": float(alone.results[0].entry.slug == joined.results[0].entry.slug),
        "topic found": float(joined.results[0].entry.slug in topics),
        "near previous": retriever.similarity(question, previous),
    }


def _resolve(question: str, topic: str, previous: str, retriever: Retriever) -> str:
    """Return the reading of a question, alone or with the topic, whose outcome is the likelier one.

    Each reading makes every entry, or a refusal, so likely; the two are mixed by how likely the question leans on the
    topic, and the reading is taken that the likeliest outcome of the mixture owes more to.
    """
    if not topic:
        return question
    signals = follow_up_signals(question, topic, previous, retriever)
    leans = probability(weighted(retriever.calibration.follow_up, signals))
    joined = f"{topic}: {question}"
    with_topic = {slug: leans * share for slug, share in _outcomes(joined, retriever).items()}
    alone = {slug: (1 - leans) * share for slug, share in _outcomes(question, retriever).items()}
    with_topic["refused with it"], alone["refused alone"] = with_topic.pop(""), alone.pop("")
    likeliest = max({**alone, **with_topic}, key=lambda slug: with_topic.get(slug, 0.0) + alone.get(slug, 0.0))
    return joined if with_topic.get(likeliest, 0.0) >= alone.get(likeliest, 0.0) else question


def _outcomes(question: str, retriever: Retriever) -> dict[str, float]:
    """Return how likely each entry is to be the right one; "" stands for none of them."""
    found = retriever.retrieve(question)
    total = sum(result.odds for result in found.results)
    shares = {result.entry.slug: found.confidence * result.odds / total for result in found.results}
    return {**shares, "": 1 - found.confidence}


def _topic(question: str, retriever: Retriever) -> str:
    """Return the headings that a question is about, nothing when it is out of scope."""
    found = retriever.retrieve(question)
    named = retriever.named(question)
    terms = [result.entry.term for result in found.results if result.entry.slug in named]
    if not found.in_scope:
        return ""
    return " and ".join(terms[:3]) if len(terms) > 1 else found.results[0].entry.term


def check_history(history: object) -> list[Message]:
    """Return a history as messages, without control characters; raises InputError that says what a message looks like."""
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        raise InputError('history must be a list of messages such as {"role": "user", "content": "What is dropout?"}.')
    messages: list[Message] = []
    for message in history[-MAX_HISTORY:]:
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("content"), str)
            or message.get("role") not in ("user", "assistant")
        ):
            raise InputError(
                f'A message of the history needs "role" ("user" or "assistant") and "content" (text); found {str(message)[:80]!r}.'
            )
        messages.append({"role": message["role"], "content": _UNREADABLE.sub(" ", message["content"][:MAX_TURN_CHARS])})
    return messages
