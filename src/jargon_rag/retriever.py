"""Find the entries that answer a question, and say whether the glossary can answer it at all.

Each entry gets signals: the cosines of its chunks, BM25 over their words (Robertson & Zaragoza 2009), the share of the
question's letters that the entry has, and how much of the question spells one of its names. Their weighted sum ranks
the entries; those of the best one say whether the question is in scope. Where that leaves open which passage answers, a
language model says how likely each makes the question (Sachan et al. 2022, UPR). `calibration.json` holds the weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import bm25s
import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import extractOne

from jargon_rag.calibration import Calibration, calibration, probability, weighted
from jargon_rag.index import Index
from jargon_rag.letters import Letters
from jargon_rag.terms import STOP_WORDS, content_words, name_key, split_heading, words
from jargon_rag.types import Chunk, Embedder, Entry, Retrieval, SearchResult

MAX_NAME_WORDS = 6
SHORTEST_CORRECTED, LONG_NAME = 5, 9  # letters
CANDIDATES = 1_000  # chunks of a large index that are looked at closely
NEAREST = 3  # chunks of an entry whose mean cosine is its `crowd`
IN_SCOPE = 0.5  # probability from which a question is answered; the calibration puts its trade-off there
NAME_ALONE = 0.9  # at least so sure is the verdict on a question that only spells a name
SURE = 0.5  # probability of the best passage from which the language model is not asked
READ = 4  # passages that it reads
REMEMBERED = 64  # questions: one is searched, then its passages are, and a follow-up reads those before it again

Likelihoods = Callable[[str, Sequence[str]], Sequence[float]]  # of a question after each passage, in nats

logging.getLogger("bm25s").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """What a search found out about one question; a conversation asks for it several times."""

    signals: dict[str, np.ndarray]
    best_chunk: np.ndarray
    scores: np.ndarray
    order: list[int]  # numbers of the entries, best first
    named: dict[str, str]
    confidence: float
    reason: str


class Retriever:
    """Search an index by meaning, by words and letters, and by names."""

    def __init__(self, index: Index, embedder: Embedder, numbers: Calibration | None = None) -> None:
        """Prepare the word index; `numbers` stand in for those fitted for the embedder."""
        self._index = index
        self._embedder = embedder
        self._calibration = numbers or calibration(embedder.id)
        self._vector = lru_cache(REMEMBERED)(lambda text: embedder.embed([text])[0])
        self._corrected = lru_cache(REMEMBERED)(self._correct)
        self._ranked = lru_cache(REMEMBERED)(self._rank)
        self._slots = {entry.slug: number for number, entry in enumerate(index.entries)}
        self._owner = np.array([self._slots[chunk.slug] for chunk in index.chunks])
        self._alphabetical = np.argsort(np.argsort([entry.slug for entry in index.entries]))
        self._first_chunk = np.unique(self._owner, return_index=True)[1]
        self._asked = np.array([chunk.kind == "question" for chunk in index.chunks])
        self._bm25 = bm25s.BM25()
        self._bm25.index([content_words(chunk.text) or [""] for chunk in index.chunks], show_progress=False)
        self._letters = Letters([chunk.text for chunk in index.chunks], self._owner, len(index.entries))
        self._vocabulary = {word for chunk in index.chunks if chunk.kind != "question" for word in words(chunk.text)}
        self._names: dict[str, set[str]] = {}
        self._spelled: dict[str, str] = {}
        for entry in index.entries:
            for name in (*split_heading(entry.term), *entry.aliases):
                for spelling in split_heading(name):
                    if key := name_key(spelling):
                        self._names.setdefault(key, set()).add(entry.slug)
                        self._spelled.setdefault(key, spelling)

    @property
    def index(self) -> Index:
        """Return the index that is searched."""
        return self._index

    @property
    def embedder(self) -> Embedder:
        """Return the embedder that questions go through."""
        return self._embedder

    @property
    def calibration(self) -> Calibration:
        """Return the fitted numbers in use."""
        return self._calibration

    def named(self, question: str) -> dict[str, str]:
        """Return the entries whose name the question spells, slug → the words that do, in the order of the question.

        Longer names win over their parts.
        """
        spoken = words(self._corrected(question))
        found: dict[str, tuple[int, str]] = {}
        taken = [False] * len(spoken)
        for length in range(min(MAX_NAME_WORDS, len(spoken)), 0, -1):
            for start in range(len(spoken) - length + 1):
                span = range(start, start + length)
                name = " ".join(spoken[start : start + length])
                slugs = self._names.get(name_key(name), set())
                if slugs and name not in STOP_WORDS and not any(taken[i] for i in span):
                    found.update({slug: (start, name) for slug in slugs if slug not in found})
                    for i in span:
                        taken[i] = True
        return {slug: name for slug, (_, name) in sorted(found.items(), key=lambda pair: pair[1][0])}

    def _correct(self, question: str) -> str:
        """Return the question with misspelt names put right: one edit for a name of five letters, two from nine on.

        Only words that the glossary does not know are looked at (OSA distance: edits, and swaps of neighbours).
        """
        spoken = question.split()
        start = 0
        while start < len(spoken):
            for length in range(min(MAX_NAME_WORDS, len(spoken) - start), 0, -1):
                heard = words(" ".join(spoken[start : start + length]))
                key = name_key(" ".join(heard))
                if len(key) >= SHORTEST_CORRECTED and not all(word in self._vocabulary for word in heard):
                    allowed = 1 if len(key) < LONG_NAME else 2
                    found = extractOne(key, self._spelled.keys(), scorer=OSA.distance, score_cutoff=allowed)
                    if found and found[1] and len(found[0]) >= SHORTEST_CORRECTED:
                        spoken[start : start + length] = [self._spelled[found[0]]]
                        break
            start += 1
        return " ".join(spoken)

    def retrieve(
        self,
        question: str,
        *,
        standalone_question: str | None = None,
        top_k: int = 5,
        likelihoods: Likelihoods | None = None,
    ) -> Retrieval:
        """Return the `top_k` best entries for a question and the verdict whether it is in scope.

        Entries that the question names are among them, as long as there is room: a comparison needs each.
        likelihoods: a language model's, asked where the best passages are close.
        """
        alone = standalone_question or question
        ranked = self._ranked(self._corrected(alone))
        in_scope = ranked.confidence >= IN_SCOPE
        scores, order, read = ranked.scores, ranked.order, dict[tuple[str, str], float]()
        if likelihoods is not None and in_scope:
            scores, read = self._read(alone, scores, likelihoods)
            order = np.lexsort((self._alphabetical, -scores)).tolist()
        shown = order[:top_k]
        if len(ranked.named) > 1:
            wanted = [n for n in order if self._index.entries[n].slug in ranked.named][:top_k]
            others = [n for n in shown if n not in wanted][: top_k - len(wanted)]
            shown = [n for n in order if n in {*wanted, *others}]
        odds = self._odds(scores)
        signals = {**ranked.signals, "read": scores - ranked.scores}
        results = tuple(
            SearchResult(
                rank=rank,
                entry=self._index.entries[n],
                chunk=self._index.chunks[ranked.best_chunk[n]],
                score=float(scores[n]),
                signals={name: float(values[n]) for name, values in signals.items()},
                odds=float(odds[n]),
            )
            for rank, n in enumerate(shown, start=1)
        )
        return Retrieval(question, alone, results, in_scope, ranked.reason, ranked.confidence, read)

    def close_passages(self, question: str) -> list[tuple[Chunk, float]]:
        """Return the likeliest passages with the probability that it is this one that answers; none where one is sure.

        It is that of its entry times the passage's own in it.
        """
        ranked = self._ranked(self._corrected(question))
        odds = self._odds(ranked.scores)
        near = ranked.order[:READ]
        shares = [
            (chunk, float(odds[n] / odds[near].sum()) * within)
            for n in near
            for chunk, within in self.passages(question, self._index.entries[n].slug)
        ]
        shares = sorted(shares, key=lambda row: -row[1])[:READ]
        return shares if len(shares) > 1 and shares[0][1] < SURE else []

    def headed(self, chunk: Chunk) -> str:
        """Return a chunk's passage with its term in front."""
        term = self._index.entries[self._slots[chunk.slug]].term
        return chunk.passage if chunk.passage.startswith(term) else f"{term}: {chunk.passage}"

    def _odds(self, scores: np.ndarray) -> np.ndarray:
        """Return the odds of each entry against the best, 0..1."""
        return np.asarray(np.exp(self._calibration.sharpness * (scores - scores.max())))

    def _read(
        self, question: str, scores: np.ndarray, likelihoods: Likelihoods
    ) -> tuple[np.ndarray, dict[tuple[str, str], float]]:
        """Return the scores, and by what factor the probability of each passage read has changed: they share theirs anew."""
        close = self.close_passages(question) if self._calibration.likelihood else []
        if not close:
            return scores, {}
        before = np.array([share for _, share in close])
        nats = np.array(likelihoods(question, [self.headed(chunk) for chunk, _ in close]))
        after = before * np.exp(self._calibration.likelihood * (nats - nats.max()))
        after *= before.sum() / after.sum()
        odds = self._odds(scores)
        shares = odds / np.sort(odds)[-READ:].sum()
        gained = shares.copy()
        owners = [self._slots[chunk.slug] for chunk, _ in close]
        np.add.at(gained, owners, after - before)
        read = {
            (chunk.slug, chunk.passage): float(factor) for (chunk, _), factor in zip(close, after / before, strict=True)
        }
        lifted = scores + np.log(np.maximum(gained, 1e-9) / shares) / self._calibration.sharpness
        return lifted, read

    def _rank(self, question: str) -> _Ranked:
        signals, best_chunk = self.signals(question)
        scores = np.sum([weight * signals[name] for name, weight in self._calibration.ranking.items()], axis=0)
        order = np.lexsort((self._alphabetical, -scores)).tolist()
        named = self.named(question)
        if content_words(question):
            log_odds = weighted(self._calibration.scope, self.scope_signals(question, scores, order, signals))
            confidence = probability(log_odds)
            if signals["name"][order[0]] >= 1:  # the question is nothing but the name of an entry
                confidence = max(confidence, NAME_ALONE)
            reason = self._reason(question, self._index.entries[order[0]], named, confidence)
        else:
            confidence, reason = 0.0, "there is no word in it that could be looked up"
        return _Ranked(signals, best_chunk, scores, order, named, confidence, reason)

    def passages(
        self, question: str, slug: str, read: Mapping[tuple[str, str], float] | None = None
    ) -> list[tuple[Chunk, float]]:
        """Return the chunks of one entry with the probability that it is this one that answers, if any, likeliest first.

        Each passage once, code left out. read: a retrieval's, by what factor the language model changed its mind on which.
        """
        chunks, signals = self.passage_signals(self._corrected(question), slug)
        fit = np.sum([weight * signals[name] for name, weight in self._calibration.passage.items()], axis=0)
        odds = np.exp(fit - fit.max())
        odds *= [(read or {}).get((slug, chunk.passage), 1.0) for chunk in chunks]
        return [(chunks[n], float(odds[n] / odds.sum())) for n in np.argsort(-odds, kind="stable")]

    def passage_signals(self, question: str, slug: str) -> tuple[list[Chunk], dict[str, np.ndarray]]:
        """Return one entry's passages, each as its best chunk, and the signals by which they are ranked, shape (n_passages,).

        cosine: of the best chunk, an indexed question of the passage being one; letters: share of the question's runs of
        four letters that the passage has, weighed by their rarity in the glossary.
        """
        own = np.flatnonzero(self._owner == self._slots[slug])
        code = {self._index.chunks[n].passage for n in own if self._index.chunks[n].kind == "code"}
        prose = [n for n in own if self._index.chunks[n].passage not in code]
        numbers = prose or list(own)  # an entry of code alone has nothing else to quote
        cosines = np.einsum("ij,j->i", self._index.vectors[numbers], self._vector(question))
        best: dict[str, int] = {}
        written: dict[str, str] = {}
        for position in np.argsort(-cosines, kind="stable"):
            chunk = self._index.chunks[numbers[position]]
            best.setdefault(chunk.passage, position)
            if chunk.kind != "question":
                written.setdefault(chunk.passage, chunk.text)
        letters = [self._letters.share_in(question, written.get(passage, passage)) for passage in best]
        chunks = [self._index.chunks[numbers[position]] for position in best.values()]
        return chunks, {"cosine": cosines[list(best.values())], "letters": np.array(letters)}

    def signals(self, question: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return each signal over the entries, shape (n_entries,), and the number of each entry's best chunk.

        cosine: of the best chunk; passage: of the best one that is no indexed question; crowd: mean of the three best;
        bm25: of the best chunk, as a share of the highest; letters: share of the question's runs of four letters,
        weighed by rarity; name: share of the question's content words that spell a name of the entry; named first: 1 for the
        first of several entries that the question names. All are at most 1.
        """
        n_entries = len(self._index.entries)
        vector, terms = self._vector(question), content_words(question)
        words_fit = self._bm25.get_scores(terms) if terms else np.zeros(len(self._owner))
        bm25 = np.zeros(n_entries)
        np.maximum.at(bm25, self._owner, words_fit)
        name, named_first = np.zeros(n_entries), np.zeros(n_entries)
        named = self.named(question)
        for slug, spelled in named.items():
            name[self._slots[slug]] = min(1.0, len(spelled.split()) / max(1, len(terms)))
        if len(named) > 1:
            named_first[self._slots[next(iter(named))]] = 1.0
        chunks = self._candidates(vector, words_fit, np.flatnonzero(name))
        owner = self._owner[chunks]
        near = self._index.vectors if self._index.is_exact else self._index.vectors[chunks]  # no copy of the whole
        cosines = np.einsum(
            "ij,j->i", near, vector
        )  # one thread: BLAS's would spin beside the embedder's next question
        ranked = np.lexsort((-cosines, owner))
        found, first, counts = np.unique(owner[ranked], return_index=True, return_counts=True)
        best_chunk = self._first_chunk.copy()
        best_chunk[found] = chunks[ranked[first]]
        cosine, crowd, passage = (np.full(n_entries, -1.0) for _ in range(3))
        cosine[found] = cosines[ranked[first]]
        crowd[found] = np.mean([cosines[ranked[first + np.minimum(i, counts - 1)]] for i in range(NEAREST)], axis=0)
        written = ~self._asked[chunks]
        np.maximum.at(passage, owner[written], cosines[written])
        signals = {
            "cosine": cosine,
            "passage": passage,
            "crowd": crowd,
            "bm25": bm25 / max(float(bm25.max(initial=0.0)), 1e-9),
            "letters": self._letters.share(question),
            "name": name,
            "named first": named_first,
        }
        return signals, best_chunk

    def _candidates(self, vector: np.ndarray, words_fit: np.ndarray, named: np.ndarray) -> np.ndarray:
        """Return the numbers of the chunks that are compared: all, or in a large index those near by meaning, word or name."""
        if self._index.is_exact:
            return np.arange(len(self._owner))
        by_word = np.argpartition(-words_fit, CANDIDATES)[:CANDIDATES]
        by_name = np.flatnonzero(np.isin(self._owner, named))
        by_meaning = [number for number, _ in self._index.search(vector, top_k=CANDIDATES)]
        return np.unique(np.concatenate([by_meaning, by_word, by_name]))

    def scope_signals(
        self, question: str, scores: np.ndarray, order: Sequence[int], signals: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return what the verdict rests on.

        The best entry's signals and its lead, how much of the question is known here, how long it is, and whether
        questions are indexed, which lifts all cosines.
        """
        best = {name: float(values[order[0]]) for name, values in signals.items() if name != "named first"}
        length = math.log1p(len(content_words(question)))
        lead = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 0.0
        known = self._letters.known(question)
        return {
            **best,
            "lead": lead,
            "known": known,
            "length": length,
            "asked": float(self._asked.any()),
            "cosine*length": best["cosine"] * length,
            "cosine*known": best["cosine"] * known,
            "cosine*name": best["cosine"] * best["name"],
        }

    def similarity(self, question: str, other: str) -> float:
        """Return the cosine of two questions."""
        return float(self._vector(self._corrected(question)) @ self._vector(self._corrected(other)))

    def _reason(self, question: str, best: Entry, named: Mapping[str, str], confidence: float) -> str:
        sure = f"{confidence:.0%} sure"
        if best.slug in named:
            spelled = f"it names {best.term} ('{named[best.slug]}')"
            if confidence >= IN_SCOPE:
                return f"{spelled}, {sure}"
            foreign = [word for word in words(question) if word not in STOP_WORDS and not self._letters.has(word)]
            strange = f"; unknown here: {', '.join(foreign[:4])}" if foreign else ""
            return f"{spelled}, but seems to mean something else ({sure}){strange}"
        if confidence >= IN_SCOPE:
            return f"close to {best.term}, {sure}"
        return f"nothing in the glossary is close enough (best: {best.term}, {sure})"
