"""`JargonRAG`: question → retrieval → prompt → generation → checked answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from jargon_rag.answering import Draft, attribute, last_word, morty, ms_since, own_words, rick_begins
from jargon_rag.conversation import check_history, standalone_question
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import InputError, WeightsError
from jargon_rag.evidence import MAX_SOURCES, Evidence, gather
from jargon_rag.generator import LocalGenerator
from jargon_rag.index import Index
from jargon_rag.indexing import open_index
from jargon_rag.models import LANGUAGE_MODEL, find_model
from jargon_rag.paths import default_cache_dir, shipped_folder
from jargon_rag.prompt import NONE, build_messages
from jargon_rag.reading import read_sentences
from jargon_rag.retriever import Likelihoods, Retriever
from jargon_rag.types import (
    Answer,
    AnswerForm,
    CodeBlock,
    Embedder,
    Entry,
    LanguageModel,
    Message,
    Retrieval,
    SearchResult,
    Sentence,
    Style,
    TextPiece,
)  # fmt: skip
from jargon_rag.voice import refusal, silence

MAX_QUESTION_CHARS = 2_000
MAX_CLAIMS = 6  # Rick's sentences
OWN_CLAIMS = 2  # the glossary's own, where none of the model's passed
MAX_FAILURES = 1  # sentences that did not pass, after which the model is stopped
MAX_ASIDES = (
    3  # sentences without a marker that did not pass and are left out: a preamble, a greeting, a question of Rick's
)
MAX_NEW_TOKENS = 400

_ASKS_FOR_CODE = re.compile(
    r"\b(code|snippet|implement\w*|python|pytorch|numpy|sklearn|scikit-learn|demo|write (?:a|an|the|me)|example in)\b",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Event = Retrieval | Sentence | Answer


class JargonRAG:
    """Ask a glossary: every claim of an answer is cited and checked before it is shown.

    Without arguments it uses the shipped glossary and index and the default models, which must be on this machine
    (`jargon-rag pull`). Nothing is fetched unless `model` or `embedder` names a Hugging Face id.
    """

    def __init__(
        self,
        *,
        corpus: str | Path | None = None,
        index: str | Path | Index | None = None,
        model: str | LanguageModel | None = None,
        embedder: str | Embedder | None = None,
        adapter: str | Path | None = None,
        style: Style = "rick",
        cache_dir: str | Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        progress: bool = False,
        check_model: bool = True,
    ) -> None:
        """Open the glossary; the language model is loaded with the first answer, or by `load`.

        corpus: a Markdown file or folder; its index is made once and kept in `cache_dir`.
        index: a folder that `jargon-rag index` wrote; with `corpus` too, the two must match. Or an index in memory, such
            as `qdrant.load_shared` returns.
        model, embedder: a folder or Hugging Face id, or an object with the protocol's methods.
        adapter: folder of a LoRA adapter to merge into the model; None for the shipped one, which goes with the default
            model only; "none" for the model as it is.
        say: receives progress notes; progress: show bars on stderr.
        check_model: False lets a language model's weights be missing: `search` ranks without it then, `ask` raises.

        Raises GlossaryError, IndexFileError or WeightsError, each saying what to do.
        """
        self.style: Style = _check_style(style)
        self._cache_dir = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        self._say = say
        self._model = model
        self._adapter = None if adapter in (None, "none") else Path(str(adapter))
        if model is None and adapter is None:
            self._adapter = shipped_folder("adapter")
        self._reads = True  # whether a language model is at hand that can rank passages
        if model is None or isinstance(model, str):
            try:  # missing weights are better known now than later
                find_model(model, LANGUAGE_MODEL, cache_dir=self._cache_dir)
            except WeightsError:
                if check_model:
                    raise
                say("Entries are ranked without the language model: its weights are missing (jargon-rag pull)")
                self._reads = False
        if embedder is None or isinstance(embedder, str):
            embedder = SentenceTransformerEmbedder(embedder, cache_dir=self._cache_dir, say=say)
        opened = open_index(
            corpus=None if corpus is None else Path(corpus),
            index=index if index is None or isinstance(index, Index) else Path(index),
            embedder=embedder,
            cache_dir=self._cache_dir,
            say=say,
            progress=progress,
        )
        self._retriever = Retriever(opened, embedder)
        self._generator: LanguageModel | None = None if model is None or isinstance(model, str) else model
        self._loading = threading.Lock()

    @property
    def retriever(self) -> Retriever:
        """Return what finds entries, with its index and embedder."""
        return self._retriever

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the entries of the glossary, in reading order."""
        return self._retriever.index.entries

    def load(self) -> LanguageModel:
        """Load the language model now, rather than with the first answer, and return it."""
        with self._loading:
            if self._generator is None:
                name = self._model if isinstance(self._model, str) else None
                self._generator = LocalGenerator(name, cache_dir=self._cache_dir, adapter=self._adapter, say=self._say)
            return self._generator

    def search(self, question: str, *, top_k: int = 5) -> list[SearchResult]:
        """Return the `top_k` entries nearest to a question, one row per entry, best first."""
        return list(self.retrieve(question, top_k=top_k).results)

    def retrieve(self, question: str, *, history: Sequence[Message] = (), top_k: int = 5) -> Retrieval:
        """Return ranked entries, the standalone question and the verdict whether the glossary can answer."""
        question = check_question(question)
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, not {top_k}.")
        standalone = standalone_question(question, check_history(history), retriever=self._retriever)
        return self._retriever.retrieve(
            question, standalone_question=standalone, top_k=top_k, likelihoods=self._likelihoods()
        )

    def ask(self, question: str, *, history: Sequence[Message] = (), style: Style | None = None) -> Answer:
        """Return a checked answer.

        Raises InputError for a question that is empty or too long, or a malformed history; EngineError when a language
            model's server gives no text at all.
        """
        return _last(self.stream(question, history=history, style=style))

    def stream(
        self,
        question: str,
        *,
        history: Sequence[Message] = (),
        style: Style | None = None,
        stop: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """Yield the retrieval, then each sentence as it passes its check, then the whole Answer.

        Closing it stops the model. So does setting `stop`, from another thread and within a token: nothing more is
        yielded then, no Answer either.
        """
        style = _check_style(style or self.style)
        if stop is not None and stop.is_set():
            return
        started = time.perf_counter()
        retrieval = self.retrieve(question, history=history, top_k=2 * MAX_SOURCES)
        draft = Draft(retrieval, style, started=started, retrieve_ms=ms_since(started), stop=stop)
        yield retrieval
        nearest = [result.entry.term for result in retrieval.results[:MAX_SOURCES]]
        if not retrieval.in_scope:
            yield from draft.refuse(refusal(retrieval.question, nearest, style=style))
            yield draft.answer(refused=True, suggestions=nearest)
            return
        evidence = self.evidence(retrieval)
        asks_code = bool(_ASKS_FOR_CODE.search(retrieval.question))
        code = (
            [(n, entry) for n, entry in enumerate(evidence.sources, start=1) if entry.snippets][:1] if asks_code else []
        )
        answered = yield from self._write(draft, evidence, shows_code=bool(code))
        if draft.stopped:
            return
        if not (answered or code):
            yield from draft.refuse(silence(retrieval.question, nearest, style=style))
            yield draft.answer(refused=True, suggestions=nearest)
            return
        if not answered:
            yield from self._own_words(draft, evidence)
        for marker, entry in code:
            snippet = entry.snippets[0]
            number = draft.cite(marker, entry, snippet.text, snippet.line, snippet.end_line)
            draft.code.append(CodeBlock(snippet.language, snippet.text, number))
        if style == "rick":
            yield from map(draft.add, last_word(retrieval.question))
        yield draft.answer(refused=False, suggestions=self._suggestions(retrieval, evidence.sources))

    def evidence(self, retrieval: Retrieval) -> Evidence:
        """Return the entries that an answer may cite, and the passages that the model is shown."""
        return gather(retrieval, self._retriever)

    def prompt(self, retrieval: Retrieval, *, style: Style) -> list[Message]:
        """Return what the language model is shown for a question; nothing for one that is refused."""
        if not retrieval.in_scope:
            return []
        return build_messages(retrieval.standalone_question, self.evidence(retrieval).facts, style=style)

    def _likelihoods(self) -> Likelihoods | None:
        """Return what says how likely a question is after passages, where there is a language model that can."""
        if self._generator is not None:
            return getattr(self._generator, "likelihoods", None)
        return self._local_likelihoods if self._reads else None

    def _local_likelihoods(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        model: Any = self.load()  # only where it is asked
        nats: Sequence[float] = model.likelihoods(question, passages)
        return nats

    def chat(self, *, style: Style | None = None) -> Chat:
        """Return a conversation that remembers what was asked."""
        return Chat(self, style=_check_style(style or self.style))

    def _suggestions(self, retrieval: Retrieval, sources: Sequence[Entry]) -> list[str]:
        by_slug = {entry.slug: entry.term for entry in self.entries}
        linked = [by_slug[slug] for entry in sources for slug in entry.see_also if slug in by_slug]
        found = [result.entry.term for result in retrieval.results]
        cited = {entry.term for entry in sources}
        return [term for term in dict.fromkeys([*linked, *found]) if term not in cited][:4]

    def _write(self, draft: Draft, evidence: Evidence, *, shows_code: bool) -> Generator[Sentence, None, bool]:
        """Yield the dialogue: the model's sentences that pass, and the glossary's own words in place of those that do not.

        What is said before the claims is not the model's, and need not wait for it. Returns False when the model says that
        the evidence does not answer the question.
        """
        own = own_words(evidence, draft.style)
        fallback = (pair for pair in own if not draft.has(pair[0].text))  # asked when a sentence is needed
        opening: list[Sentence] = []
        if draft.style == "rick":
            question = draft.retrieval.question
            begun = rick_begins(question, compares=bool(evidence.compared), shows_code=shows_code)
            opening = [morty(question, evidence, alike=self._retriever.similarity), begun]
        for line in opening:
            if draft.stopped:
                return True
            yield draft.add(line)
        if draft.stopped:
            return True
        failures = asides = 0
        with closing(draft.time(self._stream(draft, evidence, asked=opening[0].text if opening else ""))) as written:
            for raw in read_sentences(written):
                if draft.stopped:
                    break
                if raw.text.rstrip(".") == NONE and not draft.claims:
                    return False
                if raw.speaker == "Morty":
                    continue
                if len(draft.claims) >= MAX_CLAIMS:
                    break
                started = time.perf_counter()
                attributed = attribute(raw, evidence, draft.style)
                draft.check_ms += ms_since(started)
                if attributed is None and not raw.markers and asides < MAX_ASIDES:
                    asides += 1
                    continue
                claim = attributed
                if attributed is None or draft.has(attributed[0].text):
                    failures += 1
                    claim = next(fallback, None) if attributed is None else None
                else:
                    draft.first_shown_ms = draft.first_shown_ms or ms_since(draft.started)
                if claim is not None:
                    yield draft.claim(*claim, sources=evidence.sources)
                if failures >= MAX_FAILURES:
                    break
        if not draft.stopped:
            yield from self._own_words(draft, evidence)
        return True

    def _own_words(self, draft: Draft, evidence: Evidence) -> Iterator[Sentence]:
        """Yield the glossary's own sentences where the model's do not suffice.

        None passed, its engine broke off, or a compared entry is left out.
        """
        written = any(claim.origin == "model" for claim in draft.claims) and not draft.broken_off
        wanted = 1 if written else OWN_CLAIMS
        uncited = evidence.required - draft.numbers.keys()
        for sentence, chunk in own_words(evidence, draft.style):
            if draft.has(sentence.text):
                continue
            if len(draft.claims) < wanted or (set(sentence.citations) & uncited and len(draft.claims) < MAX_CLAIMS):
                uncited -= set(sentence.citations)
                yield draft.claim(sentence, chunk, sources=evidence.sources)

    def _stream(self, draft: Draft, evidence: Evidence, *, asked: str) -> Generator[TextPiece, None, None]:
        """Return the language model's stream for a question and its evidence."""
        form = AnswerForm(
            draft.style,
            evidence.facts,
            asked=asked,
            likely=evidence.likely,
            required=evidence.required,
            max_claims=MAX_CLAIMS,
        )
        question = draft.retrieval.standalone_question
        messages = build_messages(question, form.facts, style=draft.style)
        return self.load().stream(messages, max_new_tokens=MAX_NEW_TOKENS, form=form)


class Chat:
    """A conversation: each question may lean on the ones before. `style` may be changed between questions."""

    def __init__(self, rag: JargonRAG, *, style: Style) -> None:
        """Start with an empty history."""
        self._rag = rag
        self.style: Style = style
        self.history: list[Message] = []

    def ask(self, question: str) -> Answer:
        """Return a checked answer and remember both it and the question."""
        return _last(self.stream(question))

    def stream(self, question: str) -> Generator[Event, None, None]:
        """Yield what JargonRAG.stream yields, and remember question and answer; one that is closed before is forgotten."""
        with closing(self._rag.stream(question, history=self.history, style=self.style)) as events:
            for event in events:
                if isinstance(event, Answer):
                    self.history += [
                        {"role": "user", "content": event.question},
                        {"role": "assistant", "content": event.text},
                    ]
                yield event


def _last(events: Iterator[Event]) -> Answer:
    for event in events:
        if isinstance(event, Answer):
            return event
    raise AssertionError("a stream ends with its answer")


def check_question(question: object) -> str:
    """Return a question without control characters; raises InputError if there is none, or it is too long."""
    if not isinstance(question, str):
        raise InputError(f"A question is text, not {type(question).__name__}.")
    if len(question) > MAX_QUESTION_CHARS:
        raise InputError(
            f"A question has at most {MAX_QUESTION_CHARS:,} characters; this one has {len(question):,}. Ask one thing at a time."
        )
    question = " ".join(_CONTROL.sub(" ", question).split())
    if not question:
        raise InputError("The question is empty. Ask about a term, for example: What is overfitting?")
    return question


def _check_style(style: str) -> Style:
    if style == "rick" or style == "plain":
        return style  # type: ignore[return-value]
    raise InputError(f"Unknown style {style!r}: choose 'rick' or 'plain'.")
