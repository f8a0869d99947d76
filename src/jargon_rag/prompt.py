"""What the language model is told: the question, numbered evidence, and what to do with it."""

from __future__ import annotations

from collections.abc import Sequence

from jargon_rag.types import Message

INSTRUCTION = "Which of these facts answer the question? Repeat them word for word, each with its number."


def build_messages(question: str, evidence: Sequence[tuple[int, str]]) -> list[Message]:
    """Return the chat messages for a question; `evidence` holds (marker, passage) in the order to be shown.

    The untuned 135M model copies best when the facts come last and the instruction after them (docs/generation.md).
    """
    facts = "\n".join(f"[{marker}] {passage}" for marker, passage in evidence)
    return [{"role": "user", "content": f"Question: {question}\n\nFacts:\n{facts}\n\n{INSTRUCTION}"}]
