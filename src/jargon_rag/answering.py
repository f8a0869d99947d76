"""The pieces of an answer: which sentence rests on which passage, the glossary's own words, and the draft they go into."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from jargon_rag.chunking import split_sentences
from jargon_rag.errors import EngineError
from jargon_rag.evidence import Evidence, stated
from jargon_rag.grounding import check_support, without_aside
from jargon_rag.reading import MARKER, RawSentence
from jargon_rag.terms import words
from jargon_rag.types import Answer, Chunk, Citation, CodeBlock, Entry, Retrieval, Sentence, Style, TextPiece, Timings
from jargon_rag.voice import farewell, opening, refusal, riposte, without_address

_log = logging.getLogger(__name__)
MAX_IDLE_TOKENS = 160  # without a claim that passed, after which the model is stopped
MAX_SECONDS = (
    120.0  # of writing, after which it is stopped too: what passed so far is the answer, or the glossary's own words
)
SAME_QUESTION = 0.35  # cosine; so near, nine of ten are the right one of their entry's (1,525 training questions)
_LEANS_BACK = re.compile(r"^(and|but|so|then|or)\b|\b(it|its|that|this|they|them|those|these|there)\b", re.IGNORECASE)


@dataclass(slots=True)
class Draft:
    """An answer while it is being made: what was said, what it rests on, what it took."""

    retrieval: Retrieval
    style: Style
    started: float
    retrieve_ms: float
    stop: threading.Event | None = None  # set by whoever does not want the rest any more
    sentences: list[Sentence] = field(default_factory=list)
    claims: list[Sentence] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    code: list[CodeBlock] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)  # shown marker of each source cited, by the evidence's marker
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    check_ms: float = 0.0
    first_token_ms: float = 0.0
    first_shown_ms: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    broken_off: bool = False  # the language model's server failed while it wrote

    @property
    def stopped(self) -> bool:
        """Tell whether nobody wants the rest."""
        return self.stop is not None and self.stop.is_set()

    def add(self, sentence: Sentence) -> Sentence:
        """Keep a sentence and return it; what looks like a marker in a glossary's own words, '[7]', becomes '(7)'."""
        shown = replace(sentence, text=MARKER.sub(r" (\1)", sentence.text).strip())
        self.sentences.append(shown)
        return shown

    def refuse(self, lines: Sequence[str]) -> Iterator[Sentence]:
        """Keep and yield the lines of a refusal."""
        for text in lines:
            yield self.add(Sentence("Rick" if self.style == "rick" else None, text, (), None, 0.0, "fixed"))

    def has(self, text: str) -> bool:
        """Tell whether these words were said already, give or take articles and punctuation."""
        return any(_said(sentence.text) == _said(text) for sentence in self.sentences)

    def claim(self, sentence: Sentence, chunk: Chunk, *, sources: Sequence[Entry]) -> Sentence:
        """Keep a checked sentence and what it cites, and return it as it is shown."""
        shown = [
            self.cite(marker, sources[marker - 1], sentence.quote, chunk.line, chunk.end_line)
            for marker in sentence.citations
        ]
        self.claims.append(self.add(replace(sentence, citations=tuple(shown))))
        return self.claims[-1]

    def cite(self, marker: int, entry: Entry, quote: str, line: int, end_line: int) -> int:
        """Keep a citation, once, and return its number: a reader's markers are 1, 2, 3 in the order of their use."""
        number = self.numbers.setdefault(marker, len(self.numbers) + 1)
        lines = f"#L{line}" if line == end_line else f"#L{line}-L{end_line}"
        citation = Citation(number, entry, quote, f"{entry.path}{lines}")
        if citation not in self.citations:
            self.citations.append(citation)
        return number

    def time(self, pieces: Generator[TextPiece, None, None]) -> Generator[str, None, None]:
        """Yield the text of a generator's pieces and keep its times and token counts.

        A server that fails after its first piece only ends the text: what it wrote is checked, the rest can be quoted.
        """
        begun = waiting = time.perf_counter()
        with closing(pieces), self._breaking_off():
            for piece in pieces:
                spent = ms_since(waiting)
                if self.first_token_ms:
                    self.decode_ms += spent
                else:
                    self.prefill_ms += spent
                    self.first_token_ms = ms_since(self.started) if piece.text else 0.0
                self.prompt_tokens, self.answer_tokens = piece.prompt_tokens, piece.answer_tokens
                yield piece.text
                idle = piece.answer_tokens >= MAX_IDLE_TOKENS and not self.claims
                if idle or self.stopped or time.perf_counter() - begun > MAX_SECONDS:
                    return
                waiting = time.perf_counter()

    @contextmanager
    def _breaking_off(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            if not self.first_token_ms:
                raise
            self.broken_off = True
            _log.warning("%s The answer is finished in the glossary's own words.", error)

    def answer(self, *, refused: bool, suggestions: Sequence[str]) -> Answer:
        """Return the finished answer."""
        timings = Timings(
            retrieve_ms=self.retrieve_ms,
            prefill_ms=self.prefill_ms,
            decode_ms=self.decode_ms,
            check_ms=self.check_ms,
            first_token_ms=self.first_token_ms,
            first_shown_ms=self.first_shown_ms,
            total_ms=ms_since(self.started),
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
        )
        return Answer(
            question=self.retrieval.question,
            standalone_question=self.retrieval.standalone_question,
            sentences=tuple(self.sentences),
            citations=tuple(self.citations),
            retrieval=self.retrieval,
            refused=refused,
            suggestions=tuple(suggestions),
            code=tuple(self.code),
            timings=timings,
        )


def _said(text: str) -> list[str]:
    return [word for word in words(text) if word not in {"a", "an", "the"}]


def ms_since(started: float) -> float:
    """Return the milliseconds since a `time.perf_counter()` reading."""
    return round(1000 * (time.perf_counter() - started), 2)


def attribute(raw: RawSentence, evidence: Evidence, style: Style) -> tuple[Sentence, Chunk] | None:
    """Return a sentence of the model's with the marker whose passage supports it, or None if none does.

    A marker of the model's that is valid and supports the sentence is kept; any other is replaced.
    """
    speaker = "Rick" if style == "rick" else None
    by_marker = sorted(evidence.passages, key=lambda pair: pair[0] not in raw.markers)
    for marker, chunk in by_marker:
        entry = evidence.sources[marker - 1]
        verdict = check_support(raw.text, stated(entry, chunk.passage))
        if verdict.supported:
            shown = raw.text if style == "rick" else without_address(raw.text)
            quote = _quoted(verdict.quote, entry, chunk.passage)
            return Sentence(speaker, shown, (marker,), True, verdict.score, "model", quote), chunk
    return None


def _quoted(words_stated: str, entry: Entry, passage: str) -> str:
    """Return words of a passage as it was stated as they stand in it."""
    bare = words_stated.removeprefix(f"{entry.term}: ")
    return bare if bare in passage else bare[:1].lower() + bare[1:]


def own_words(evidence: Evidence, style: Style) -> Iterator[tuple[Sentence, Chunk]]:
    """Yield the glossary's own sentences, the best passage of each source first."""
    first: dict[int, tuple[int, Chunk]] = {}
    for marker, chunk in evidence.passages:
        first.setdefault(marker, (marker, chunk))
    speaker = "Rick" if style == "rick" else None
    for marker, chunk in dict.fromkeys([*first.values(), *evidence.passages]):
        entry = evidence.sources[marker - 1]
        for text in split_sentences(stated(entry, chunk.passage)):
            shown = text if style == "rick" else without_address(text)
            if not text.endswith("?"):
                quote = _quoted(text, entry, chunk.passage)
                yield Sentence(speaker, shown, (marker,), True, 1.0, "entry", quote), chunk


def morty(question: str, evidence: Evidence, *, alike: Callable[[str, str], float]) -> Sentence:
    """Return Morty's line: the question that the glossary itself puts before the first passage, or a fixed one.

    The glossary's is taken if it is alike enough to what was asked: a passage may answer more than one question.
    """
    marker, chunk = evidence.passages[0]
    entry = evidence.sources[marker - 1]
    if not evidence.compared:
        for asked, replied in entry.exchanges():
            parts = split_sentences(asked.text)
            questions = [part for part in parts if part.endswith("?") and "[" not in part and len(words(part)) > 2]
            fits = replied.line == chunk.line and questions and not _LEANS_BACK.search(questions[-1])
            if fits and alike(question, questions[-1]) >= SAME_QUESTION:
                return Sentence("Morty", questions[-1], (), None, 0.0, "entry", questions[-1])
    return Sentence("Morty", opening(question, evidence.compared or [entry.term]), (), None, 0.0, "fixed")


def rick_begins(question: str, *, compares: bool, shows_code: bool) -> Sentence:
    """Return Rick's first line, which claims nothing."""
    text = riposte(question, compares=compares, shows_code=shows_code)
    return Sentence("Rick", text, (), None, 0.0, "fixed")


def last_word(question: str) -> Iterator[Sentence]:
    """Yield the line after the claims, if there is one."""
    if said := farewell(question):
        yield Sentence(*said, (), None, 0.0, "fixed")


def restyled(answer: Answer, style: Style) -> Answer:
    """Return an answer with the same facts in a style: Rick says them between a few lines of the voice, or nobody does."""
    if answer.refused:
        lines = refusal(answer.question, answer.suggestions, style=style)
        speaker = "Rick" if style == "rick" else None
        return replace(answer, sentences=tuple(Sentence(speaker, text, (), None, 0.0, "fixed") for text in lines))
    claims = [sentence for sentence in answer.sentences if sentence.citations]
    if style == "plain":
        bare = (replace(claim, speaker=None, text=without_address(without_aside(claim.text))) for claim in claims)
        return replace(answer, sentences=tuple(bare))
    terms = list(dict.fromkeys(citation.entry.term for citation in answer.citations))
    asked = Sentence("Morty", opening(answer.question, terms[:1]), (), None, 0.0, "fixed")
    begun = rick_begins(answer.question, compares=False, shows_code=bool(answer.code))
    said = (replace(claim, speaker="Rick") for claim in claims)
    return replace(answer, sentences=(asked, begun, *said, *last_word(answer.question)))
