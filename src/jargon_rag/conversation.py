"""Turn a follow-up into a question that can be understood alone.

By rule: a question that leans on what was said before (a pronoun, an ellipsis, few words) and names no entry itself
gets the topic of the last question that had one. A question that names an entry starts afresh.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jargon_rag.errors import InputError
from jargon_rag.terms import words
from jargon_rag.types import Message

MAX_HISTORY = 50
MAX_TOPIC_CHARS = 300  # of an earlier question that named nothing; a pasted page must not become the prompt
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_LEANS_BACK = re.compile(
    r"\b(it|its|it's|they|them|their|this|that|these|those|one|ones|he|she|former|latter|both|same|instead|else|another)\b"
    r"|^\s*(and|but|so|or|then|also|ok|okay|what about|how about|why|why not|how|when|where|how much|how many|how long|how often|"
    r"any|an? example|examples?|for example|such as|more|again|really|go on|continue|show me|code)\b",
    re.IGNORECASE,
)
_SHORT = 4  # words; "any gotchas?" leans on something


def standalone_question(question: str, history: Sequence[Message], *, named: Callable[[str], list[str]]) -> str:
    """Return the question as it would be asked without the history.

    `named` returns the headings that a text spells. `history` holds messages of roles user and assistant, oldest first;
    only what the user asked counts, so any alternation will do.
    """
    asked = [message["content"] for message in history if message["role"] == "user" and message["content"].strip()]
    leans_back = bool(_LEANS_BACK.search(question)) or len(words(question)) <= _SHORT
    if not asked or named(question) or not leans_back:
        return question
    topic = ""
    for earlier in reversed(asked):
        terms = named(earlier)
        topic = " and ".join(terms) if terms else topic or " ".join(earlier[:MAX_TOPIC_CHARS].split())
        if terms:
            break
    return f"{topic}: {question}"


def check_history(history: object) -> list[Message]:
    """Return a history as messages, without control characters; raises InputError that says what a message looks like."""
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        raise InputError('history must be a list of messages such as {"role": "user", "content": "What is dropout?"}.')
    messages: list[Message] = []
    for message in history:
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("content"), str)
            or message.get("role") not in ("user", "assistant")
        ):
            raise InputError(
                f'A message of the history needs "role" ("user" or "assistant") and "content" (text); found {str(message)[:80]!r}.'
            )
        messages.append({"role": message["role"], "content": _UNREADABLE.sub(" ", message["content"])})
    return messages[-MAX_HISTORY:]
