"""Find the entries that answer a question, and say whether the glossary can answer it at all.

Three signals for each chunk's entry are fused by a weighted sum: the cosine of the best chunk, BM25 (Robertson & Zaragoza
2009) over the words, and names, i.e. how much of the question spells a heading or an alias. One row per entry comes out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import bm25s
import numpy as np

from jargon_rag.index import Index
from jargon_rag.terms import name_key, singular, split_heading, words
from jargon_rag.types import Chunk, Embedder, Retrieval, SearchResult

# First values; `python -m evals.retrieval` measures them (docs/retrieval.md)
BM25_WEIGHT = 0.2
NAME_WEIGHT = 0.15
IN_SCOPE_COSINE = 0.45  # of the best chunk, for a question that names no entry
IN_SCOPE_NAMED_COSINE = 0.30  # the same for one that does: our words are used in other fields too

MAX_NAME_WORDS = 6
STOP_WORDS = frozenset(
    "a about am an and any are as at be been but by can could did do does for from get got had has have how i if in into is it its just "
    "like me mean means my of on or our should so some tell that the their them then there these they this those to us use used using "
    "was we were what whats when where which who why will with would you your explain".split()
)

logging.getLogger("bm25s").setLevel(logging.WARNING)


class Retriever:
    """Search an index by meaning, by words and by names."""

    def __init__(self, index: Index, embedder: Embedder) -> None:
        """Prepare the word index; takes milliseconds for a thousand chunks."""
        self._index = index
        self._embedder = embedder
        self._entries = {entry.slug: entry for entry in index.entries}
        self._bm25 = bm25s.BM25()
        self._bm25.index([_terms(chunk.text) or [""] for chunk in index.chunks], show_progress=False)
        self._names: dict[str, set[str]] = {}
        for entry in index.entries:
            for name in (*split_heading(entry.term), *entry.aliases):
                for spelling in split_heading(name):
                    if key := name_key(spelling):
                        self._names.setdefault(key, set()).add(entry.slug)

    @property
    def index(self) -> Index:
        """Return the index that is searched."""
        return self._index

    @property
    def embedder(self) -> Embedder:
        """Return the embedder that questions go through."""
        return self._embedder

    def named(self, question: str) -> dict[str, str]:
        """Return the entries whose name the question spells, slug → the words that do; longer names win over their parts."""
        spoken = words(question)
        found: dict[str, str] = {}
        taken = [False] * len(spoken)
        for length in range(min(MAX_NAME_WORDS, len(spoken)), 0, -1):
            for start in range(len(spoken) - length + 1):
                span = range(start, start + length)
                name = " ".join(spoken[start : start + length])
                slugs = self._names.get(name_key(name), set())
                if slugs and name not in STOP_WORDS and not any(taken[i] for i in span):
                    found.update({slug: name for slug in slugs if slug not in found})
                    for i in span:
                        taken[i] = True
        return found

    def retrieve(self, question: str, *, standalone_question: str | None = None, top_k: int = 5) -> Retrieval:
        """Return the `top_k` best entries for a question and the verdict whether it is in scope."""
        query = standalone_question or question
        cosines = self._cosines(query)
        keywords = self._keyword_scores(query)
        named = self.named(query)
        content_words = max(1, sum(word not in STOP_WORDS for word in words(query)))
        coverage = {slug: min(1.0, len(name.split()) / content_words) for slug, name in named.items()}
        best = _best_chunks(self._index.chunks, cosines)
        fused: list[tuple[float, str]] = []
        for slug, number in best.items():
            score = cosines[number] + BM25_WEIGHT * keywords.get(slug, 0.0) + NAME_WEIGHT * coverage.get(slug, 0.0)
            fused.append((float(score), slug))
        fused.sort(key=lambda pair: (-pair[0], pair[1]))
        results = tuple(
            SearchResult(
                rank=rank,
                entry=self._entries[slug],
                chunk=self._index.chunks[best[slug]],
                score=score,
                signals={
                    "cosine": float(cosines[best[slug]]),
                    "bm25": keywords.get(slug, 0.0),
                    "name": coverage.get(slug, 0.0),
                },
            )
            for rank, (score, slug) in enumerate(fused[:top_k], start=1)
        )
        in_scope, reason = _verdict(results, named, cosine=float(cosines.max(initial=-1.0)))
        return Retrieval(question, query, results, in_scope, reason)

    def passages(self, question: str, slug: str) -> list[Chunk]:
        """Return the chunks of one entry, those that fit the question best first; each passage once, code left out."""
        numbers = [n for n, chunk in enumerate(self._index.chunks) if chunk.slug == slug and chunk.kind != "code"]
        fit = self._cosines(question)[numbers]
        terms = _terms(question)
        if terms:
            matched = self._bm25.get_scores(terms)[numbers]
            fit = fit + BM25_WEIGHT * matched / max(float(matched.max(initial=0.0)), 1e-9)
        best: dict[str, Chunk] = {}
        for position in np.argsort(-fit, kind="stable"):
            chunk = self._index.chunks[numbers[position]]
            best.setdefault(chunk.passage, chunk)
        return list(best.values())

    def _cosines(self, question: str) -> np.ndarray:
        """Return the cosine of every chunk, shape (n_chunks,)."""
        cosines = np.zeros(len(self._index.chunks), dtype=np.float32)
        for number, cosine in self._index.search(self._embedder.embed([question])[0], top_k=len(cosines)):
            cosines[number] = cosine
        return cosines

    def _keyword_scores(self, question: str) -> dict[str, float]:
        """Return each entry's best BM25 score as a share of the best of all, 0..1."""
        terms = _terms(question)
        if not terms:
            return {}
        scores = self._bm25.get_scores(terms)
        highest = float(scores.max(initial=0.0))
        best = _best_chunks(self._index.chunks, scores)
        return {slug: float(scores[n]) / highest for slug, n in best.items()} if highest > 0 else {}


def _best_chunks(chunks: Sequence[Chunk], scores: np.ndarray) -> dict[str, int]:
    """Return each entry's best chunk, slug → chunk number."""
    best: dict[str, int] = {}
    for number, chunk in enumerate(chunks):
        if chunk.slug not in best or scores[number] > scores[best[chunk.slug]]:
            best[chunk.slug] = number
    return best


def _terms(text: str) -> list[str]:
    return [singular(word) for word in words(text) if word not in STOP_WORDS]


def _verdict(results: Sequence[SearchResult], named: dict[str, str], *, cosine: float) -> tuple[bool, str]:
    """Judge by the best cosine of all chunks, not of those shown, so that `top_k` does not change the verdict."""
    if not results:
        return False, "the glossary is empty"
    top = results[0]
    if top.entry.slug in named:
        spelled = f"it names {top.entry.term} ('{named[top.entry.slug]}')"
        if cosine >= IN_SCOPE_NAMED_COSINE:
            return True, spelled
        return (
            False,
            f"{spelled}, but in a sense that is far from the entry (cosine {cosine:.2f} < {IN_SCOPE_NAMED_COSINE})",
        )
    if cosine >= IN_SCOPE_COSINE:
        return True, f"close to {top.entry.term} (cosine {cosine:.2f})"
    return (
        False,
        f"nothing in the glossary is close enough (best: {top.entry.term}, cosine {cosine:.2f} < {IN_SCOPE_COSINE})",
    )
