"""What the language model is told: numbered evidence, the question, and the form of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from jargon_rag.types import Message, Style

SYSTEM = {
    "rick": (
        "You are Rick. Answer Morty's question in two or three short sentences, using only sentences from the facts. "
        "After each sentence write the number of its fact in square brackets."
    ),
    "plain": (
        "Answer the question in two or three short sentences, using only sentences from the facts. "
        "After each sentence write the number of its fact in square brackets."
    ),
}
ASKS = {"rick": "Morty", "plain": "Question"}


def build_messages(question: str, evidence: Sequence[tuple[int, str, str]], *, style: Style) -> list[Message]:
    """Return the chat messages for a question; `evidence` holds (marker, term, passage) in the order to be shown."""
    facts = "\n".join(f"[{marker}] {term}: {passage}" for marker, term, passage in evidence)
    return [
        {"role": "system", "content": SYSTEM[style]},
        {"role": "user", "content": f"Facts:\n{facts}\n\n{ASKS[style]}: {question}"},
    ]
