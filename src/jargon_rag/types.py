"""The data that flows from a glossary to an answer, and the two protocols that can be swapped.

Everything here is frozen, holds plain values and imports only the standard library, so that any module may
import it. Line numbers are 1-based and inclusive; scores are "higher is better".
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Style = Literal["rick", "plain"]
Origin = Literal["model", "entry", "fixed"]
ChunkKind = Literal["definition", "exchange", "gotcha", "code", "question"]
Message = dict[str, str]  # {"role": "system"|"user"|"assistant", "content": "..."}, as chat templates take it


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of an entry's text as a reader sees it (markup removed), and where it stands."""

    text: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of dialogue; two turns, Morty's and Rick's, are an exchange."""

    speaker: str
    text: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Snippet:
    """A code block that belongs to an entry."""

    language: str
    text: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One term of a glossary with all that its author says of it."""

    term: str  # the heading, verbatim
    slug: str  # GitHub's anchor of the heading, unique in the glossary
    area: str  # title of the file it stands in
    path: str  # file as cited, e.g. corpus/generalization.md
    line: int
    end_line: int
    definition: tuple[Passage, ...] = ()
    turns: tuple[Turn, ...] = ()
    gotchas: tuple[Passage, ...] = ()
    snippets: tuple[Snippet, ...] = ()
    aliases: tuple[str, ...] = ()
    see_also: tuple[str, ...] = ()  # headings or anchors, as linked

    def exchanges(self) -> Iterator[tuple[Turn, Turn]]:
        """Yield (question, answer) pairs: a Morty turn and the Rick turn that follows it."""
        for question, answer in zip(self.turns, self.turns[1:], strict=False):
            if question.speaker == "Morty" and answer.speaker == "Rick":
                yield question, answer


@dataclass(frozen=True, slots=True)
class Question:
    """A question that people ask of a term, indexed beside the entry (doc2query, Nogueira et al. 2019)."""

    slug: str
    text: str
    passage: str  # "definition", "exchange:2", "gotcha:1" or "code"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is embedded and searched: a part of an entry of one kind.

    `text` is searched; `passage` is what an answer may quote when this chunk is found.
    """

    slug: str
    kind: ChunkKind
    text: str
    passage: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One entry found, with the chunk of it that fits the question best."""

    rank: int  # 1-based
    entry: Entry
    chunk: Chunk
    score: float  # fused; higher is better
    signals: dict[str, float] = field(default_factory=dict)  # each signal's own score, for "why this answer"
    odds: float = 1.0  # that it is the right entry, against the best one, 0..1


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Everything that retrieval says of a question."""

    question: str
    standalone_question: str
    results: tuple[SearchResult, ...]
    in_scope: bool
    reason: str  # the verdict in words
    confidence: float = 1.0  # probability that the glossary answers the question; in scope from 0.5
    # by slug and passage: how much likelier it is the one that answers, now that the language model has read it
    read: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether evidence supports a claim, how far, and why (attribution, Rashkin et al. 2023)."""

    supported: bool
    score: float  # 0..1, share of the claim's content words found in order in the evidence
    reason: str
    quote: str = ""  # the span of the evidence that the claim rests on


@dataclass(frozen=True, slots=True)
class Citation:
    """The target of a marker: an entry, and the words of it that support the sentence."""

    marker: int
    entry: Entry
    quote: str
    source: str  # corpus/x.md#L10-L12


@dataclass(frozen=True, slots=True)
class Sentence:
    """One line of an answer that was checked before it was shown."""

    speaker: str | None  # "Rick", "Morty", or None in plain style
    text: str  # without markers
    citations: tuple[int, ...]
    supported: bool | None  # None: it claims nothing
    support: float
    origin: Origin
    quote: str = ""  # the words of the cited entry that it rests on


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A snippet shown with an answer."""

    language: str
    text: str
    marker: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one answer went, in milliseconds; 0 means that the step did not run."""

    retrieve_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    check_ms: float = 0.0
    first_token_ms: float = 0.0
    first_shown_ms: float = 0.0  # first text shown that the model wrote; 0 if none was
    total_ms: float = 0.0
    prompt_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A checked answer: what to show, what it rests on, and what it cost."""

    question: str
    standalone_question: str
    sentences: tuple[Sentence, ...]
    citations: tuple[Citation, ...]
    retrieval: Retrieval
    refused: bool
    suggestions: tuple[str, ...] = ()
    code: tuple[CodeBlock, ...] = ()
    timings: Timings = Timings()

    @property
    def text(self) -> str:
        """The dialogue with its [n] markers."""
        return format_dialogue(self.sentences)

    def __str__(self) -> str:
        """Return the dialogue, then code, then the numbered sources."""
        parts = [self.text]
        parts += [f"```{block.language}\n{block.text}\n```" for block in self.code]
        seen = {citation.marker: citation for citation in reversed(self.citations)}
        if seen:
            parts.append("\n".join(f"[{n}] {seen[n].entry.term} ({seen[n].source})" for n in sorted(seen)))
        return "\n\n".join(parts)


def format_dialogue(sentences: Sequence[Sentence]) -> str:
    """Return sentences with their markers; what one speaker says in a row stands on one line."""
    lines: list[str] = []
    speaker: str | None = ""
    for sentence in sentences:
        if sentence.speaker == speaker:
            lines[-1] += f" {format_sentence(sentence)}"
        else:
            lines.append(
                f"{sentence.speaker}: {format_sentence(sentence)}" if sentence.speaker else format_sentence(sentence)
            )
        speaker = sentence.speaker
    return "\n".join(lines)


def format_sentence(sentence: Sentence) -> str:
    """Return a sentence's words and markers."""
    markers = "".join(f"[{marker}]" for marker in sentence.citations)
    return f"{sentence.text} {markers}".rstrip()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer may look like; a language model that can be held to it writes nothing else."""

    style: Style
    facts: tuple[tuple[int, str, str], ...]  # (marker, term, passage) of what may be said
    asked: str = ""  # Morty's line, in the style that has one
    likely: int = 1  # so many of the facts, from the first on, are each said, in this order
    required: frozenset[int] = frozenset()  # markers that must occur: of entries asked about together
    max_claims: int = 4


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of generated text, empty while a prompt is being read, and the tokens read and written so far."""

    text: str
    prompt_tokens: int
    answer_tokens: int


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def id(self) -> str:
        """Name of the model with a hash of its weights: vectors of two ids must not be mixed."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Return float32 unit vectors of shape (len(texts), dimension)."""


class LanguageModel(Protocol):
    """Streams text for chat messages."""

    @property
    def id(self) -> str:
        """Name of the model, for people."""

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Yield pieces of text as they are made, in the given form if it can. Closing the iterator stops the work."""
