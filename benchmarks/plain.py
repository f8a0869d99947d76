"""The plain way, which ours is compared with: three whole entries in the prompt, and transformers' `generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jargon_rag.glossary import glossary_files
from jargon_rag.paths import shipped_folder
from jargon_rag.prompt import build_messages
from jargon_rag.rag import JargonRAG
from jargon_rag.reading import read_sentences
from jargon_rag.types import Entry

ENTRIES = 3  # in the prompt
LIMIT = 120  # tokens of an answer

Row = dict[str, Any]


class Clock:
    """A streamer for `generate` that keeps each token and the milliseconds since `started` at which it came."""

    def __init__(self, started: float) -> None:
        """Start with nothing; the first that `generate` puts is the prompt."""
        self._started = started
        self.prompt_tokens = 0
        self.tokens: list[int] = []
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        """Take the prompt's ids, shape (1, n), then one id a step, shape (1,)."""
        if not self.prompt_tokens:
            self.prompt_tokens = value.numel()
            return
        self.tokens.append(int(value))
        self.times.append(1000 * (time.perf_counter() - self._started))

    def end(self) -> None:
        """Do nothing: the last token was put."""


def whole_entries(entries: Sequence[Entry]) -> list[tuple[int, str, str]]:
    """Return (marker, term, whole text) of entries of the shipped glossary, as `build_messages` takes them."""
    lines = {file.name: file.read_text("utf-8").split("\n") for file in glossary_files(shipped_folder("corpus"))}
    return [
        (n, entry.term, "\n".join(lines[Path(entry.path).name][entry.line : entry.end_line]).strip())
        for n, entry in enumerate(entries, start=1)
    ]


def ask_transformers(
    model: Any, tokenizer: Any, bot: JargonRAG, question: str, *, limit: int = LIMIT, at_least: int = 0
) -> tuple[Row, list[float]]:
    """Answer with `generate`, greedily; return the measures and the time of each token in milliseconds.

    The entries are found by our own retrieval, so that what differs is what happens to them.
    """
    started = time.perf_counter()
    found = bot.retrieve(question, top_k=ENTRIES).results
    prompt = tokenizer.apply_chat_template(
        build_messages(question, whole_entries([result.entry for result in found]), style="rick"),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    clock = Clock(started)
    model.generate(**prompt, do_sample=False, max_new_tokens=limit, min_new_tokens=at_least, streamer=clock)
    total = 1000 * (time.perf_counter() - started)
    sentence, cited = first_texts(
        clock.tokens, clock.times, lambda ids: tokenizer.decode(ids, skip_special_tokens=True)
    )
    row = {
        "total_ms": total,
        "first_token_ms": clock.times[0],
        "first_sentence_ms": sentence,
        "first_cited_ms": cited,
        "prompt_tokens": clock.prompt_tokens,
        "answer_tokens": len(clock.tokens),
    }
    return row, clock.times


def first_texts(
    tokens: Sequence[int], times: Sequence[float], decode: Callable[[Sequence[int]], str]
) -> tuple[float | None, float | None]:
    """Return when the first sentence was whole, and when the first with a marker was; None for what never came."""
    now = 0.0

    def pieces() -> Iterator[str]:
        nonlocal now
        shown = ""
        for number, now in enumerate(times, start=1):  # noqa: B007 (read below, as sentences come out)
            text = decode(tokens[:number])
            yield text[len(shown) :]
            shown = text

    sentence = cited = None
    for found in read_sentences(pieces()):
        sentence = now if sentence is None else sentence
        cited = now if cited is None and found.markers else cited
    return sentence, cited
