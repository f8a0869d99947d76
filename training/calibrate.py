"""Fit the numbers of retrieval and write `src/jargon_rag/calibration.json`; print how they do on fields not fitted.

    python -m training.calibrate

Five logistic regressions: which entry is the right one among the best twenty-five (conditional logit), which of its
passages answers (the same), whether any does, whether a question leans on the last, and what a nat of the language
model's is worth. All but the fourth, which takes all training fields, are fitted on fields and questions that the
embedder was not trained on, whose cosines can be trusted.
Every glossary weighs the same. Our own glossary is searched as shipped, the fields without indexed questions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from jargon_rag.calibration import FALLBACK, FILE, Calibration, calibration
from jargon_rag.chunking import chunk_glossary
from jargon_rag.conversation import follow_up_signals
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.generator import LocalGenerator
from jargon_rag.index import build_index
from jargon_rag.indexing import index_corpus
from jargon_rag.paths import default_cache_dir, shipped_folder, write_atomic
from jargon_rag.retriever import Retriever
from jargon_rag.types import Embedder
from training import checksums
from training.data import FITTED_ON, HELD_OUT, Asked, Dialogue, Field, exam, halves, read_fields, read_own

UNFITTED = Calibration(False, {"cosine": 1.0}, 20.0, {"cosine": 1.0}, {"bias": 0.0}, {"bias": 0.0})
CANDIDATES = 25
KEPT_ASKED, KEPT_BARE = (
    0.985,
    0.95,
)  # shares of the fitted in-scope questions that are answered, with and without indexed ones
LIKELIHOODS = 100  # questions of a glossary that the language model reads
PLAIN_DIALOGUES = 5  # of each sort, for each glossary
FRAGMENTS = (
    "why?|why is that|how|how so?|show me code|an example?|example please|any gotchas?|any pitfalls|when not?|since when|"
    "is that all|more|and in practice?|what else|pros and cons|code?|go on"
).split("|")
RANKING = ("cosine", "passage", "crowd", "bm25", "letters", "name", "named first")
PASSAGE = ("cosine", "letters")


def main() -> None:
    """Fit, write and report: for the embedder as published, which stands in for unknown ones, then with its LoRA."""
    fields = read_fields()
    model = LocalGenerator(cache_dir=default_cache_dir(), adapter=shipped_folder("adapter"))
    for lora in (False, True):
        embedder = Remembering(SentenceTransformerEmbedder(cache_dir=default_cache_dir(), lora=lora))
        print(embedder.id)
        embedder.embed(
            [
                asked.question
                for field in [*fields, read_own("train"), read_own("dev")]
                for asked in exam(field.questions)
            ],
            progress=True,
        )
        own = Retriever(index_corpus(shipped_folder("corpus"), embedder, progress=True), embedder, UNFITTED)
        glossaries = [(field, retriever_of(field, embedder)) for field in tqdm(fields, desc="embedding")]
        unseen = [*(pair for pair in glossaries if pair[0].name in FITTED_ON), (halves(read_own())[1], own)]
        ranking, sharpness = fit_ranking(unseen)
        fitted = Calibration(True, ranking, sharpness, fit_passage(unseen), fit_scope(unseen, ranking), {})
        train = [*(pair for pair in glossaries if pair[0].name not in HELD_OUT), (read_own("train"), own)]
        fitted = replace(fitted, follow_up=fit_follow_up(train, fitted))
        fitted = replace(fitted, likelihood=fit_likelihood(unseen, fitted, model))
        _store(embedder.id if lora else FALLBACK, fitted)
        for field, retriever in [*(pair for pair in glossaries if pair[0].name in HELD_OUT), (read_own("dev"), own)]:
            print(field.name, report(field, Retriever(retriever.index, embedder), model), flush=True)


class Remembering:
    """An embedder that embeds no text twice: questions go through it in batches first, then one by one."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, np.ndarray] = {}

    @property
    def id(self) -> str:
        """Return the embedder's."""
        return self._embedder.id

    @property
    def dimension(self) -> int:
        """Return the embedder's."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Return float32 unit vectors of shape (len(texts), dimension)."""
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        self._known.update(zip(missing, self._embedder.embed(missing, progress=progress), strict=True))
        return np.stack([self._known[text] for text in texts])


def retriever_of(field: Field, embedder: Embedder) -> Retriever:
    """Return a retriever over a field's entries, without questions."""
    chunks = chunk_glossary(field.entries, [])
    return Retriever(build_index(field.entries, chunks, embedder, corpus_hash=""), embedder, UNFITTED)


def fit_ranking(glossaries: Sequence[tuple[Field, Retriever]]) -> tuple[dict[str, float], float]:
    """Return weights of the signals by a conditional logit, scaled so that those of the cosines sum to 1, and the scale."""
    choices: list[tuple[np.ndarray, float]] = []
    for field, retriever in tqdm(glossaries, desc="ranking"):
        slots = {entry.term: n for n, entry in enumerate(retriever.index.entries)}
        asked = [question for question in field.questions if question.terms]
        for question in exam(asked):
            signals, _ = retriever.signals(question.question)
            table = np.stack([signals[name] for name in RANKING], axis=1)
            right = slots[question.terms[0]]
            rough = table @ np.array([1, 1, 1, 0.3, 1, 0.3, 0.1])
            shown = [right, *(n for n in np.argsort(-rough)[:CANDIDATES] if n != right)]
            choices.append((table[shown] - table[right], 1 / len(asked) / len(glossaries)))

    weights = _conditional_logit(choices)
    scale = float(weights[:3].sum())
    return {name: round(float(w) / scale, 4) for name, w in zip(RANKING, weights, strict=True)}, round(scale, 2)


def fit_passage(glossaries: Sequence[tuple[Field, Retriever]]) -> dict[str, float]:
    """Return weights of the signals of a passage by a conditional logit: log-odds, up to a constant, that it answers."""
    choices: list[tuple[np.ndarray, float]] = []
    for field, retriever in tqdm(glossaries, desc="passages"):
        slugs = {entry.term: entry.slug for entry in retriever.index.entries}
        asked = [question for question in exam(field.questions) if question.terms and question.kind != "code"]
        for question in asked:
            chunks, signals = retriever.passage_signals(question.question, slugs[question.terms[0]])
            table = np.stack([signals[name] for name in PASSAGE], axis=1)
            right = answering(question, slugs[question.terms[0]], retriever)
            if right in (passages := [chunk.passage for chunk in chunks]):
                place = passages.index(right)
                order = [place, *(n for n in range(len(passages)) if n != place)]
                choices.append((table[order] - table[place], 1 / len(asked) / len(glossaries)))
    weights = _conditional_logit(choices)
    return {name: round(float(w), 3) for name, w in zip(PASSAGE, weights, strict=True)}


def answering(asked: Asked, slug: str, retriever: Retriever) -> str:
    """Return the passage that a question is labelled with, "" when its entry has none of that number."""
    kind, _, number = asked.passage.partition(":")
    passages = [chunk.passage for chunk in retriever.index.chunks if chunk.slug == slug and chunk.kind == kind]
    position = int(number or 1) - 1
    return passages[position] if position < len(passages) else ""


def _conditional_logit(choices: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """Return weights, none negative, that make row 0 of each table the likeliest under a softmax (McFadden 1974).

    A choice is a table (n_options, n_signals), less the right option's row, and its share of the loss.
    """

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 1e-4 * float(weights @ weights), 2e-4 * weights
        for table, share in choices:
            logits = table @ weights
            odds = np.exp(logits - logits.max())
            odds /= odds.sum()
            value -= share * float(np.log(odds[0] + 1e-12))
            gradient = gradient + share * (odds @ table)
        return value, gradient

    size = choices[0][0].shape[1]
    found = minimize(loss, np.ones(size), jac=True, method="L-BFGS-B", bounds=[(0, None)] * size)
    return np.asarray(found.x)


def fit_scope(glossaries: Sequence[tuple[Field, Retriever]], ranking: dict[str, float]) -> dict[str, float]:
    """Return weights for the log-odds that a question is answered; 0.5 keeps the wanted shares."""
    rows: list[dict[str, float]] = []
    labels: list[bool] = []
    shares: list[float] = []
    for field, retriever in tqdm(glossaries, desc="scope"):
        questions = exam(field.questions)
        inside = sum(bool(question.terms) for question in questions)
        for question in questions:
            signals, _ = retriever.signals(question.question)
            scores = np.sum([weight * signals[name] for name, weight in ranking.items()], axis=0)
            order = [int(n) for n in np.argsort(-scores, kind="stable")]
            rows.append(retriever.scope_signals(question.question, scores, order, signals))
            labels.append(bool(question.terms))
            shares.append(1 / (inside if question.terms else len(questions) - inside))
    return _logistic(rows, labels, shares, kept=True)


def fit_follow_up(glossaries: Sequence[tuple[Field, Retriever]], fitted: Calibration) -> dict[str, float]:
    """Return weights for the log-odds that a question leans on the one before."""
    rows: list[dict[str, float]] = []
    labels: list[bool] = []
    for field, plain in tqdm(glossaries, desc="follow-ups"):
        retriever = Retriever(plain.index, plain.embedder, fitted)
        for dialogue in [*field.dialogues, *_plain_dialogues(field)]:
            previous, question = dialogue.turns[-2:]
            found = retriever.retrieve(dialogue.turns[0], top_k=1)
            signals = follow_up_signals(question, found.results[0].entry.term, previous, retriever)
            rows.append(signals)
            labels.append(dialogue.kind not in ("topic-change", "out-of-scope"))
    return _logistic(rows, labels, [1.0] * len(rows), kept=False)


def fit_likelihood(glossaries: Sequence[tuple[Field, Retriever]], fitted: Calibration, model: LocalGenerator) -> float:
    """Return what a nat of the question's likelihood adds to the log-odds of a passage, where several are close."""
    choices: list[tuple[np.ndarray, np.ndarray, int]] = []
    for field, plain in tqdm(glossaries, desc="likelihoods"):
        retriever = Retriever(plain.index, plain.embedder, fitted)
        slugs = {entry.term: entry.slug for entry in plain.index.entries}
        asked = [question for question in exam(field.questions) if question.terms and question.kind != "code"]
        for question in random.Random(field.name).sample(asked, min(LIKELIHOODS, len(asked))):
            slug = slugs[question.terms[0]]
            close = retriever.close_passages(question.question)
            found = [(chunk.slug, chunk.passage) for chunk, _ in close]
            if (right := (slug, answering(question, slug, retriever))) in found:
                texts = [retriever.headed(chunk) for chunk, _ in close]
                before = np.log([share for _, share in close])
                nats = np.array(model.likelihoods(question.question, texts))
                choices.append((before, nats, found.index(right)))

    def loss(weight: float) -> float:
        logits = [(before + weight * nats, right) for before, nats, right in choices]
        return sum(float(logsumexp(row) - row[right]) for row, right in logits)

    return round(float(minimize_scalar(loss, bounds=(0, 2), method="bounded").x), 3)


def _plain_dialogues(field: Field) -> list[Dialogue]:
    """Return what people do most and nobody writes down: ask what something else is, or add a bare 'why?'."""
    rng = random.Random(field.name)
    asked = [question for question in field.questions if question.kind == "term" and question.terms]
    made = []
    for first, second in (rng.sample(asked, 2) for _ in range(PLAIN_DIALOGUES)):
        made.append(Dialogue((first.question, second.question), second.terms[0], second.question, "topic-change"))
        made.append(Dialogue((first.question, rng.choice(FRAGMENTS)), first.terms[0], "", "follow-up"))
    return made


def report(field: Field, retriever: Retriever, model: LocalGenerator) -> dict[str, float]:
    """Return the shares of right answers on one glossary, with the numbers just written."""
    hits: dict[str, list[bool]] = {"first": [], "three": [], "kept": [], "refused": []}
    for question in exam(field.questions):
        found = retriever.retrieve(question.question, likelihoods=model.likelihoods)
        terms = [result.entry.term for result in found.results]
        if question.terms:
            hits["first"].append(terms[0] == question.terms[0])
            hits["three"].append(question.terms[0] in terms[:3])
            hits["kept"].append(found.in_scope)
        else:
            hits["refused"].append(not found.in_scope)
    return {name: round(float(np.mean(values)), 3) for name, values in hits.items()}


def _logistic(rows: list[dict[str, float]], labels: list[bool], shares: list[float], *, kept: bool) -> dict[str, float]:
    names = list(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])
    truth = np.array(labels)
    center, spread = table.mean(axis=0), table.std(axis=0) + 1e-9
    weights = np.array(shares) / np.mean(shares)
    model = LogisticRegression(C=1.0, max_iter=5000).fit((table - center) / spread, truth, sample_weight=weights)
    slopes = model.coef_[0] / spread
    bias = float(model.intercept_[0] - slopes @ center)
    if kept:  # 0.5 is put where the wanted share of answered questions lies above it, for both sorts of index
        asked = table[:, names.index("asked")] > 0
        odds = table @ slopes + bias
        bare = -float(np.quantile(odds[truth & ~asked], 1 - KEPT_BARE))
        bias += bare
        slopes[names.index("asked")] -= bare + float(np.quantile(odds[truth & asked], 1 - KEPT_ASKED))
    return {"bias": round(bias, 4)} | {name: round(float(slope), 4) for name, slope in zip(names, slopes, strict=True)}


def _store(name: str, numbers: Calibration) -> None:
    stored = json.loads(FILE.read_text("utf-8")) if FILE.is_file() and name != FALLBACK else {}
    row = {key: value for key, value in asdict(numbers).items() if key != "fitted"}
    write_atomic(FILE, (json.dumps(stored | {name: row}, indent=1) + "\n").encode())
    checksums.main()
    calibration.cache_clear()


if __name__ == "__main__":
    main()
