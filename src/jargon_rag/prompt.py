"""What the language model is told: what to write, the question, and the numbered evidence."""

from __future__ import annotations

from collections.abc import Sequence

from jargon_rag.types import AnswerForm, Message, Style

NONE = "NONE"  # what the model writes when the evidence does not answer the question
_RULES = (
    f"with sentences of the facts, word for word, each followed by its number, like [1]. "
    f"If the facts do not answer the question, write {NONE}."
)
INSTRUCTIONS: dict[Style, str] = {
    "rick": f"Write a short dialogue: Morty asks the question in his own words, Rick answers {_RULES}",
    "plain": f"Answer the question {_RULES}",
}


def build_messages(question: str, facts: Sequence[tuple[int, str, str]], *, style: Style) -> list[Message]:
    """Return the chat messages for a question; `facts` holds (marker, term, passage) in the order to be shown.

    The question stands before the facts, so that they are read in its light, and again where the answer begins.
    """
    shown = "\n".join(
        f"[{marker}] {passage}" if passage.startswith(f"{term}: ") else f"[{marker}] {term}: {passage}"
        for marker, term, passage in facts
    )
    return [
        {"role": "system", "content": INSTRUCTIONS[style]},
        {"role": "user", "content": f"Question: {question}\n\nFacts:\n{shown}\n\nQuestion: {question}"},
    ]


def with_form(messages: Sequence[Message], form: AnswerForm) -> list[Message]:
    """Return the messages with the form of the answer in words, for a language model that cannot be held to it."""
    first = form.facts[0][0]
    sentences = f"A sentence of the facts. [{first}] Another one. [{first}]"
    shown = f"Morty: {form.asked or 'His question?'}\nRick: {sentences}" if form.style == "rick" else sentences
    rules = [
        f"Write exactly this, nothing before or after it:\n{shown}",
        f"One to {form.max_claims} sentences, the first from fact [{first}]; stop when the question is answered.",
        "Copy each sentence word for word from one fact: add nothing, join nothing, put nothing in your own words.",
        "A clause after a dash, a semicolon or a colon may be left out.",
    ]
    if form.style == "rick":
        rules.append("Rick may begin a sentence with 'Listen, Morty,'.")
    if form.required:
        rules.append(f"Cite each of {', '.join(f'[{marker}]' for marker in sorted(form.required))}.")
    system, *rest = messages
    return [{**system, "content": "\n".join([system["content"], *rules])}, *rest]
