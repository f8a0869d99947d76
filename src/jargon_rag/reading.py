"""Read what a language model writes: split the stream into sentences with their speaker and markers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jargon_rag.chunking import split_sentences

MARKER = re.compile(r"\s*\[\s*(\d{1,3})\s*\]", re.ASCII)
_MARKED = re.compile(
    MARKER.pattern + r"(?:[.!?,;]?" + MARKER.pattern + r")*[.!?,;]?\s*[^\s\[\].!?,;]"
)  # markers, then something else
_BRACKETED = re.compile(r"\s*\[[^\[\]]{0,40}\]?")
_SPEAKER = re.compile(r"^\W*(rick|morty|question|answer)\b\W*:(?:\*\*|__)?\s*", re.IGNORECASE)
_BULLET = re.compile(r"^\s*[-*•]\s+")


@dataclass(frozen=True, slots=True)
class RawSentence:
    """A sentence as the model wrote it, with the markers that it wrote; nothing is checked yet."""

    speaker: str | None
    text: str
    markers: tuple[int, ...]


def read_sentences(pieces: Iterable[str]) -> Iterator[RawSentence]:
    """Yield sentences as soon as they are complete: with the marker that follows, or at their full stop or line's end.

    Brackets that hold anything but a number are dropped; text without letters or digits is no sentence.
    """
    speaker: str | None = None
    buffer = ""
    for piece in pieces:
        buffer += piece
        while (end := _sentence_end(buffer)) is not None:
            complete, buffer = buffer[:end], buffer[end:]
            speaker, sentence = _read_sentence(complete, speaker)
            if sentence:
                yield sentence
    _, sentence = _read_sentence(buffer, speaker)
    if sentence:
        yield sentence


def _sentence_end(buffer: str) -> int | None:
    """Return where the first sentence ends, or None while what comes next could still belong to it."""
    ends = [newline + 1] if (newline := buffer.find("\n")) >= 0 else []
    if marked := _MARKED.search(buffer):
        ends.append(marked.end() - 1)
    first, *rest = split_sentences(buffer.split("\n", 1)[0]) or [""]
    if rest and not rest[0].startswith("["):
        ends.append(buffer.index(first) + len(first))
    return min(ends, default=None)


def _read_sentence(text: str, speaker: str | None) -> tuple[str | None, RawSentence | None]:
    if spoken := _SPEAKER.match(text):
        name = spoken[1].capitalize()
        speaker = name if name in ("Rick", "Morty") else None
        text = text[spoken.end() :]
    text = _BULLET.sub("", text)
    markers = tuple(dict.fromkeys(int(number) for number in MARKER.findall(text)))
    text = " ".join(_BRACKETED.sub("", text).split())
    text = re.sub(r"([.!?])[.,;]+$", r"\1", re.sub(r"\s+([.,;:!?])", r"\1", text)).lstrip(".,;:!? ")
    text = re.sub(r"\s*[,;:—–]+$", ".", text)  # cut off before a list or a second half
    if text.count('"') % 2 or (text.count('"') == 2 and text[0] == text[-1]):  # around the sentence, or a whole line
        text = text.strip('"')
    return speaker, RawSentence(speaker, text, markers) if any(char.isalnum() for char in text) else None
