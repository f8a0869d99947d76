"""Cut entries into the chunks that are searched, each with the passage that an answer may quote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jargon_rag.types import Chunk, Entry, Passage, Question

MAX_PASSAGE_CHARS = 900  # MiniLM reads 256 tokens; what is longer is cut between sentences
_SENTENCE_END = re.compile(r"(?<=[.!?])['\"”’)]*\s+(?=[\"“‘'(]?[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|etc|al|Fig|Eq|approx|Dr|Prof)|\b[A-Z])\.$")


def chunk_glossary(entries: Iterable[Entry], questions: Iterable[Question]) -> list[Chunk]:
    """Return the chunks of all entries, in reading order; a question that names no part quotes the definition."""
    asked: dict[str, list[Question]] = {}
    for question in questions:
        asked.setdefault(question.slug, []).append(question)
    return [chunk for entry in entries for chunk in chunk_entry(entry, asked.get(entry.slug, []))]


def chunk_entry(entry: Entry, questions: Sequence[Question] = ()) -> list[Chunk]:
    """Return the chunks of one entry. The searched text begins with the term, so that no chunk loses its subject."""

    def chunk(kind: str, text: str, passage: str, line: int, end_line: int) -> Chunk:
        return Chunk(entry.slug, kind, text, passage, line, end_line)  # type: ignore[arg-type]

    names = f"{entry.term} ({', '.join(entry.aliases)})" if entry.aliases else entry.term
    definition = [part for passage in entry.definition for part in split_passage(passage)]
    chunks = [
        chunk(
            "definition",
            f"{names}: {part.text}" if number == 0 else f"{entry.term}: {part.text}",
            part.text,
            part.line,
            part.end_line,
        )
        for number, part in enumerate(definition)
    ]
    exchanges = [
        chunk("exchange", f"{entry.term}: {question.text} {answer.text}", answer.text, answer.line, answer.end_line)
        for question, answer in entry.exchanges()
    ]
    gotchas = [
        chunk("gotcha", f"{entry.term}: {item.text}", item.text, item.line, item.end_line) for item in entry.gotchas
    ]
    code = [
        chunk(
            "code",
            f"{entry.term} code example: {snippet.text[:MAX_PASSAGE_CHARS]}",
            snippet.text,
            snippet.line,
            snippet.end_line,
        )
        for snippet in entry.snippets
    ]
    parts = {"definition": chunks[:1], "exchange": exchanges, "gotcha": gotchas, "code": code}
    chunks = chunks + exchanges + gotchas + code
    if not chunks:  # a bare heading can still be found by its name
        chunks = [chunk("definition", names, entry.term, entry.line, entry.line)]
    for question in questions:
        kind, _, number = question.passage.partition(":")
        position = int(number) - 1 if number.isdecimal() else 0
        candidates = parts.get(kind) or []
        source = candidates[position] if 0 <= position < len(candidates) else chunks[0]
        chunks.append(chunk("question", question.text, source.passage, source.line, source.end_line))
    return chunks


def split_passage(passage: Passage) -> list[Passage]:
    """Return a passage in parts that an embedder can read whole, cut between sentences; lines are the whole passage's."""
    if len(passage.text) <= MAX_PASSAGE_CHARS:
        return [passage]
    parts: list[str] = [""]
    for sentence in split_sentences(passage.text):
        for piece in (sentence[i : i + MAX_PASSAGE_CHARS] for i in range(0, len(sentence), MAX_PASSAGE_CHARS)):
            if parts[-1] and len(parts[-1]) + len(piece) >= MAX_PASSAGE_CHARS:
                parts.append("")
            parts[-1] = f"{parts[-1]} {piece}".strip()
    return [Passage(part, passage.line, passage.end_line) for part in parts]


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, by rule: an abbreviation such as 'e.g.' ends none."""
    sentences: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[max(start, end.start() - 12) : end.start()]):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    return [*sentences, text[start:].strip()] if text[start:].strip() else sentences
