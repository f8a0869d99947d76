"""Ranking, names, the verdict, and the odd questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jargon_rag.calibration import Calibration, calibration, weighted
from jargon_rag.chunking import chunk_glossary
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.glossary import read_glossary
from jargon_rag.index import Index, build_index, load_index, save_index
from jargon_rag.retriever import Retriever
from jargon_rag.types import Chunk, ChunkKind, Entry

# easy to work out by hand: half sure at a cosine of 0.45, and a name is worth 0.15 of cosine
NUMBERS = Calibration(
    fitted=False,
    ranking={"cosine": 1.0, "bm25": 0.2, "name": 0.15},
    sharpness=10.0,
    passage={"cosine": 1.0},
    scope={"bias": -9.0, "cosine": 20.0, "name": 3.0},
    follow_up={"bias": -1.0},
)


class CosineEmbedder:
    """Gives texts vectors whose cosine with every question is the number it was told for the text."""

    def __init__(self, cosines: dict[str, float]) -> None:
        self.cosines = cosines

    @property
    def id(self) -> str:
        return "cosines@1"

    @property
    def dimension(self) -> int:
        return 2

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        cosines = np.array([self.cosines.get(text, 1.0) for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def entry(term: str, *, aliases: tuple[str, ...] = ()) -> Entry:
    return Entry(term, term.lower().replace(" ", "-"), "Tests", "tests.md", 1, 2, aliases=aliases)


def retriever_of(
    entries: Sequence[Entry], cosines: dict[str, float], kinds: dict[str, ChunkKind] | None = None
) -> Retriever:
    """Make a retriever whose chunks are the keys `slug|text` of `cosines`; a question's cosine is 1 with itself."""
    chunks = [
        Chunk(key.split("|")[0], (kinds or {}).get(key, "definition"), key.split("|")[1], key.split("|")[1], 1, 1)
        for key in cosines
    ]
    embedder = CosineEmbedder({key.split("|")[1]: cosine for key, cosine in cosines.items()})
    return Retriever(build_index(entries, chunks, embedder, corpus_hash=""), embedder, NUMBERS)


def read(tmp_path: Path, markdown: str, embedder: SentenceTransformerEmbedder) -> Retriever:
    file = tmp_path / "own.md"
    file.write_text(markdown)
    entries = read_glossary(file)
    return Retriever(build_index(entries, chunk_glossary(entries, []), embedder, corpus_hash=""), embedder)


@pytest.fixture(scope="module")
def shipped_index(corpus: Path) -> Index:
    """The shipped index."""
    return load_index(corpus.parent / "index")


@pytest.fixture(scope="module")
def shipped(shipped_index: Index, embedder: SentenceTransformerEmbedder) -> Retriever:
    """The retriever over the shipped glossary."""
    return Retriever(shipped_index, embedder)


# Rows and ranks


def test_there_is_one_row_an_entry_with_ranks_and_falling_scores(shipped: Retriever) -> None:
    results = shipped.retrieve("Why does my model do well in training and badly in production?", top_k=10).results
    assert len({result.entry.slug for result in results}) == 10
    assert [result.rank for result in results] == list(range(1, 11))
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(result.chunk.slug == result.entry.slug for result in results)


def test_a_smaller_top_k_is_the_beginning_of_a_larger(shipped: Retriever) -> None:
    question = "How large should a batch be?"
    assert shipped.retrieve(question, top_k=3).results == shipped.retrieve(question, top_k=8).results[:3]


def test_a_top_k_beyond_the_glossary_gives_every_entry_once(shipped: Retriever, shipped_index: Index) -> None:
    results = shipped.retrieve("What is an epoch?", top_k=10_000).results
    assert sorted(result.entry.slug for result in results) == sorted(entry.slug for entry in shipped_index.entries)


def test_the_same_question_gives_the_same_results(shipped: Retriever) -> None:
    assert shipped.retrieve("momentum") == shipped.retrieve("momentum")


def test_a_score_is_the_weighted_sum_of_its_signals(shipped: Retriever, embedder: SentenceTransformerEmbedder) -> None:
    weights = calibration(embedder.id).ranking
    for result in shipped.retrieve("Does dropout slow training down?", top_k=20).results:
        assert result.score == pytest.approx(weighted(weights, result.signals), abs=1e-5)
        assert all(-1 <= value <= 1 + 1e-6 for value in result.signals.values())


def test_the_cosine_of_a_result_is_that_of_its_chunk(
    shipped: Retriever, shipped_index: Index, embedder: SentenceTransformerEmbedder
) -> None:
    question = "What does a learning rate schedule do?"
    vector = embedder.embed([question])[0]
    for result in shipped.retrieve(question, top_k=5).results:
        own = [n for n, chunk in enumerate(shipped_index.chunks) if chunk.slug == result.entry.slug]
        best = max(own, key=lambda n: float(shipped_index.vectors[n] @ vector))
        assert result.chunk == shipped_index.chunks[best]
        assert result.signals["cosine"] == pytest.approx(float(shipped_index.vectors[best] @ vector), abs=1e-5)


def test_the_best_chunk_of_an_entry_speaks_for_it() -> None:
    retriever = retriever_of([entry("Alpha")], {"alpha|low": 0.25, "alpha|high": 0.75, "alpha|mid": 0.5})
    (result,) = retriever.retrieve("question").results
    assert result.chunk.text == "high"
    assert result.signals == pytest.approx(
        {
            "cosine": 0.75,
            "passage": 0.75,
            "crowd": 0.5,
            "bm25": 0.0,
            "letters": 0.0,
            "name": 0.0,
            "named first": 0.0,
            "read": 0.0,
        }
    )
    assert result.score == pytest.approx(0.75)


def test_equal_scores_are_ordered_by_slug() -> None:
    retriever = retriever_of([entry("Beta"), entry("Alpha")], {"beta|one": 0.5, "alpha|two": 0.5})
    assert [result.entry.slug for result in retriever.retrieve("question").results] == ["alpha", "beta"]


def test_a_shared_rare_word_lifts_an_entry_over_an_equal_one() -> None:
    cosines = {"alpha|tea kettle": 0.5, "beta|tea spoon": 0.5, "gamma|fork": 0.5}
    retriever = retriever_of([entry("Alpha"), entry("Beta"), entry("Gamma")], cosines)
    results = retriever.retrieve("the spoons").results
    assert results[0].entry.slug == "beta"
    assert results[0].signals["bm25"] == 1.0
    assert results[0].score == pytest.approx(0.7)
    assert results[1].signals["bm25"] == 0.0


def test_a_name_that_covers_the_question_counts_in_full_and_one_word_of_two_by_half() -> None:
    retriever = retriever_of([entry("Alpha"), entry("Beta")], {"alpha|one": 0.5, "beta|two": 0.5})
    assert retriever.retrieve("What is alpha?").results[0].signals["name"] == 1.0
    assert retriever.retrieve("alpha beyond").results[0].signals["name"] == 0.5


def test_the_standalone_question_is_searched_and_both_are_reported(shipped: Retriever) -> None:
    retrieval = shipped.retrieve("And how many?", standalone_question="How many epochs do I need?")
    assert retrieval.question == "And how many?"
    assert retrieval.standalone_question == "How many epochs do I need?"
    assert retrieval.results[0].entry.term == "Epoch"


# Names


@pytest.mark.parametrize(
    ("question", "term"),
    [
        ("overfitting", "Overfitting"),
        ("OVERFITTING!", "Overfitting"),
        ("over-fitting", "Overfitting"),
        ("over fitting", "Overfitting"),
        ("fine tuning", "Fine-Tuning"),
        ("finetuning", "Fine-Tuning"),
        ("learning rates", "Learning Rate"),
        ("learning-rate", "Learning Rate"),
        ("Weight‑decay", "Weight Decay"),
        ("crossvalidation", "Cross-Validation"),
        ("confusion matrices", "Confusion Matrix"),
        ("What's RAG?", "Retrieval-Augmented Generation"),
        ("rag", "Retrieval-Augmented Generation"),
        ("MDP", "Markov Decision Process"),
        ("LSTMs", "RNN / LSTM"),
        ("logistic regression", "Linear / Logistic Regression"),
        ("linear regression", "Linear / Logistic Regression"),
        ("DPO", "RLHF / DPO"),
        ("nucleus sampling", "Temperature / Top-p"),
        ("What is a KV cache for?", "KV Cache"),
        ("explain backprop to me", "Backpropagation"),
        ("exploration versus exploitation", "Exploration vs. Exploitation"),
    ],
)
def test_a_heading_alias_acronym_or_variant_finds_its_entry_first(shipped: Retriever, question: str, term: str) -> None:
    retrieval = shipped.retrieve(question)
    assert retrieval.results[0].entry.term == term
    assert retrieval.in_scope


def test_every_bare_heading_finds_its_own_entry_first(shipped: Retriever, shipped_index: Index) -> None:
    lost = {
        entry.term: found.entry.term
        for entry in shipped_index.entries
        if (found := shipped.retrieve(entry.term, top_k=1).results[0]).entry.slug != entry.slug
    }
    assert lost == {}


def test_a_longer_name_wins_over_the_names_in_it() -> None:
    entries = [entry("Rate"), entry("Learning"), entry("Learning Rate"), entry("Rate Limit")]
    retriever = retriever_of(entries, {f"{e.slug}|{e.term}": 0.5 for e in entries})
    assert retriever.named("Is the learning rate too high?") == {"learning-rate": "learning rate"}
    assert retriever.named("learning at this rate") == {"learning": "learning", "rate": "rate"}


def test_a_name_beside_a_longer_one_is_found_too() -> None:
    entries = [entry("Rate"), entry("Learning Rate")]
    retriever = retriever_of(entries, {f"{e.slug}|{e.term}": 0.5 for e in entries})
    assert retriever.named("rate of the Learning-Rates") == {"rate": "rate", "learning-rate": "learning rates"}


def test_a_name_of_two_entries_names_both() -> None:
    entries = [entry("Alpha", aliases=("shared",)), entry("Beta", aliases=("shared",))]
    retriever = retriever_of(entries, {"alpha|one": 0.5, "beta|two": 0.4})
    assert retriever.named("shared") == {"alpha": "shared", "beta": "shared"}


def test_a_stop_word_names_nothing_even_when_it_is_an_alias() -> None:
    retriever = retriever_of([entry("Alpha", aliases=("it",))], {"alpha|one": 0.5})
    assert retriever.named("what is it") == {}


def test_a_word_that_only_contains_a_name_does_not_name_it() -> None:
    retriever = retriever_of([entry("Rag")], {"rag|one": 0.5})
    assert retriever.named("ragtime and dragons") == {}


# Verdict


@pytest.mark.parametrize(
    "question",
    [
        "best pizza in town",
        "how do I center a div",
        "Who won the football last night?",
        "What is the capital of Mongolia?",
        "How long do I boil an egg?",
        "my car's transmission is slipping, can I still drive it",
    ],
)
def test_questions_about_something_else_are_out_of_scope(shipped: Retriever, question: str) -> None:
    retrieval = shipped.retrieve(question)
    assert not retrieval.in_scope
    assert retrieval.confidence < 0.5
    assert retrieval.results[0].entry.term in retrieval.reason
    assert len(retrieval.results) == 5


def test_a_question_that_names_an_entry_says_so(shipped: Retriever) -> None:
    retrieval = shipped.retrieve("Why does drop-out help?")
    assert retrieval.in_scope
    assert retrieval.reason.startswith("it names Dropout ('drop out'), ")


def test_a_question_that_is_near_without_a_name_says_how_sure_it_is() -> None:
    retrieval = retriever_of([entry("Alpha")], {"alpha|one": 0.5}).retrieve("something near")
    assert (retrieval.in_scope, retrieval.reason) == (True, "close to Alpha, 73% sure")
    assert retrieval.confidence == pytest.approx(1 / (1 + np.exp(-1)))


def test_a_name_in_a_far_sense_is_refused_and_the_strange_words_are_named() -> None:
    retrieval = retriever_of([entry("Alpha")], {"alpha|alpha one": 0.2}).retrieve("alpha centauri")
    assert not retrieval.in_scope
    assert (
        retrieval.reason
        == "it names Alpha ('alpha'), but seems to mean something else (3% sure); unknown here: centauri"
    )


def test_a_name_lowers_the_bar() -> None:
    retriever = retriever_of([entry("Alpha")], {"alpha|one": 0.4})
    assert retriever.retrieve("alpha rhythm").in_scope
    assert not retriever.retrieve("another rhythm").in_scope


def test_the_verdict_does_not_hang_on_how_many_results_are_wanted(shipped: Retriever) -> None:
    verdicts = {shipped.retrieve("is it a tensor core thing", top_k=top_k).confidence for top_k in (1, 2, 5)}
    assert len(verdicts) == 1


def test_odds_compare_each_entry_with_the_best() -> None:
    retriever = retriever_of([entry("Alpha"), entry("Beta")], {"alpha|one": 0.5, "beta|two": 0.4})
    assert [result.odds for result in retriever.retrieve("question").results] == pytest.approx(
        [1.0, np.exp(-1)],
        rel=2e-3,  # vectors are rounded to half precision
    )


# Comparisons


def test_every_named_entry_is_among_the_results_where_there_is_room() -> None:
    cosines = {"alpha|a": 0.1, "beta|b": 0.2, "gamma|c": 0.9, "delta|d": 0.8, "epsilon|e": 0.7}
    retriever = retriever_of([entry(name) for name in ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")], cosines)
    found = [result.entry.term for result in retriever.retrieve("alpha or beta?", top_k=3).results]
    assert found == ["Gamma", "Beta", "Alpha"]
    assert len(retriever.retrieve("alpha or beta?", top_k=1).results) == 1


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("Precision or recall?", {"Accuracy, Precision, Recall, F1"}),
        ("BERT or dropout?", {"Dropout"}),
        ("dropout vs weight decay", {"Dropout", "Weight Decay"}),
        ("RNN, CNN and transformer compared", {"RNN / LSTM", "CNN", "Transformer"}),
        (
            "LoRA, distillation or quantization for a small GPU?",
            {"LoRA / PEFT", "Model Distillation", "Pruning / Quantization"},
        ),
    ],
)
def test_a_comparison_finds_every_entry_it_names(shipped: Retriever, question: str, terms: set[str]) -> None:
    retrieval = shipped.retrieve(question)
    assert terms <= {result.entry.term for result in retrieval.results}
    assert len({result.chunk.passage for result in retrieval.results}) == len(retrieval.results)


# Spelling


@pytest.mark.parametrize(
    ("question", "term"),
    [
        ("what is overfiting", "Overfitting"),
        ("gradeint descent", "Gradient Descent"),
        ("tokeniser", "Tokenization"),
        ("normalisation", "Normalization / Standardization"),
        ("hallucinatons", "Hallucination"),
        ("back-propagation", "Backpropagation"),
        ("reenforcement learning", "Reinforcement Learning"),
        ("cros validation", "Cross-Validation"),
        ("confusion matirx", "Confusion Matrix"),
        ("quantisation", "Pruning / Quantization"),
    ],
)
def test_a_misspelt_name_finds_its_entry(shipped: Retriever, question: str, term: str) -> None:
    retrieval = shipped.retrieve(question)
    assert retrieval.results[0].entry.term == term
    assert retrieval.in_scope


# A large index


def test_an_inverted_file_finds_what_the_flat_index_finds(
    shipped: Retriever,
    shipped_index: Index,
    embedder: SentenceTransformerEmbedder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("jargon_rag.index.APPROXIMATE_FROM", 1_000)
    large = build_index(shipped_index.entries, shipped_index.chunks, embedder, corpus_hash="", previous=shipped_index)
    assert shipped_index.is_exact
    assert not large.is_exact
    save_index(large, tmp_path / "large")
    retriever = Retriever(load_index(tmp_path / "large"), embedder)
    assert not retriever.index.is_exact
    questions = [
        "What is dropout?",
        "my loss explodes after an hour",
        "lora or full fine-tuning",
        "how long to boil an egg",
    ]
    for question in questions:
        exact, found = shipped.retrieve(question), retriever.retrieve(question)
        assert found.in_scope == exact.in_scope
        if exact.in_scope:  # of what is far from everything, any entry may be the nearest
            assert found.results[0].entry == exact.results[0].entry


# Odd questions and glossaries


@pytest.mark.parametrize("question", ["what is it", "Why do they?", "how", "???", "\N{GRINNING FACE}", "zzzqqq xqzk"])
def test_a_question_without_a_known_word_is_ranked_by_meaning_and_refused(shipped: Retriever, question: str) -> None:
    retrieval = shipped.retrieve(question)
    assert not retrieval.in_scope
    assert len(retrieval.results) == 5
    assert all(result.signals["bm25"] == 0 for result in retrieval.results)
    assert shipped.named(question) == {}


def test_a_glossary_of_one_bare_heading_is_found_by_its_name(
    tmp_path: Path, embedder: SentenceTransformerEmbedder
) -> None:
    retriever = read(tmp_path, "## Sourdough\n", embedder)
    retrieval = retriever.retrieve("What is sourdough?", top_k=5)
    assert [result.entry.term for result in retrieval.results] == ["Sourdough"]
    assert retrieval.in_scope
    assert not retriever.retrieve("Who painted the ceiling?").in_scope
    assert not retriever.retrieve("what is it").in_scope


def test_a_glossary_whose_only_words_are_stop_words_can_be_searched(
    tmp_path: Path, embedder: SentenceTransformerEmbedder
) -> None:
    retrieval = read(tmp_path, "## It\n\nIt is what it is.\n", embedder).retrieve("what is it")
    assert [result.entry.term for result in retrieval.results] == ["It"]


def test_another_language_is_searched_too(tmp_path: Path, embedder: SentenceTransformerEmbedder) -> None:
    markdown = "## Überanpassung\n\nEin Modell lernt die Daten auswendig.\n\n## Lernrate\n\nDie Schrittweite.\n"
    retriever = read(tmp_path, markdown, embedder)
    assert retriever.retrieve("überanpassung").results[0].entry.term == "Überanpassung"
    assert retriever.named("Was ist eine U\u0308BERANPASSUNG?") == {"überanpassung": "überanpassung"}


# Passages of one entry


def prose(index: Index, slug: str) -> set[str]:
    own = [chunk for chunk in index.chunks if chunk.slug == slug]
    return {chunk.passage for chunk in own} - {chunk.passage for chunk in own if chunk.kind == "code"}


def test_passages_are_each_given_once_and_the_best_first() -> None:
    retriever = retriever_of([entry("Alpha"), entry("Beta")], {"alpha|far": 0.2, "alpha|near": 0.8, "beta|other": 0.9})
    assert [chunk.passage for chunk, _ in retriever.passages("question", "alpha")] == ["near", "far"]


def test_code_is_no_passage() -> None:
    retriever = retriever_of([entry("Alpha")], {"alpha|words": 0.2, "alpha|code": 0.8}, {"alpha|code": "code"})
    assert [chunk.passage for chunk, _ in retriever.passages("question", "alpha")] == ["words"]


def test_an_asked_question_lifts_its_passage_without_repeating_it(shipped: Retriever, shipped_index: Index) -> None:
    asked = next(chunk for chunk in shipped_index.chunks if chunk.kind == "question")
    passages = [chunk.passage for chunk, _ in shipped.passages(asked.text, asked.slug)]
    assert passages[0] == asked.passage
    assert len(passages) == len(set(passages))
    assert set(passages) == prose(shipped_index, asked.slug)


def test_passages_for_a_question_of_stop_words_are_all_there(shipped: Retriever, shipped_index: Index) -> None:
    slug = shipped_index.entries[0].slug
    assert {chunk.passage for chunk, _ in shipped.passages("what is it", slug)} == prose(shipped_index, slug)


def test_code_is_no_passage_even_when_an_indexed_question_asks_for_it(shipped: Retriever) -> None:
    entry = shipped.retrieve("dropout").results[0].entry
    code = {snippet.text for snippet in entry.snippets}
    assert any(chunk.kind == "question" and chunk.passage in code for chunk in shipped.index.chunks)
    assert not code & {chunk.passage for chunk, _ in shipped.passages("dropout mask code in PyTorch", entry.slug)}


# Passages that a language model reads again


def close(likelihood: float = 0.5) -> Retriever:
    """Make a retriever of three entries, two of them close, the first with two close passages."""
    cosines = {"alpha|one": 0.81, "alpha|two": 0.8, "beta|three": 0.8, "gamma|four": 0.1}
    plain = retriever_of([entry("Alpha"), entry("Beta"), entry("Gamma")], cosines)
    return Retriever(plain.index, plain.embedder, replace(NUMBERS, likelihood=likelihood))


def test_what_the_language_model_reads_moves_entries_and_passages() -> None:
    asked: list[str] = []

    def likelihoods(question: str, passages: Sequence[str]) -> list[float]:
        asked.extend(passages)
        return [{"Beta: three": -10.0, "Alpha: two": -14.0}.get(passage, -40.0) for passage in passages]

    retriever = close()
    before = retriever.retrieve("question")
    after = retriever.retrieve("question", likelihoods=likelihoods)
    assert set(asked) == {"Alpha: one", "Alpha: two", "Beta: three", "Gamma: four"}
    assert [result.entry.term for result in before.results] == ["Alpha", "Beta", "Gamma"]
    assert [result.entry.term for result in after.results] == ["Beta", "Alpha", "Gamma"]
    assert after.results[0].odds == 1.0
    assert [result.score for result in after.results] == sorted((r.score for r in after.results), reverse=True)
    assert not before.read
    assert after.read["beta", "three"] > after.read["alpha", "two"] > after.read["alpha", "one"]
    assert [chunk.passage for chunk, _ in retriever.passages("question", "alpha")] == ["one", "two"]
    assert [chunk.passage for chunk, _ in retriever.passages("question", "alpha", after.read)] == ["two", "one"]


def test_the_passages_read_share_what_they_had() -> None:
    """Bayes: the odds of two entries change by the ratio of what their passages make of the question."""
    nats = {"Alpha: one": -12.0, "Alpha: two": -12.0, "Beta: three": -10.0, "Gamma: four": -12.0}
    retriever = close(likelihood=0.25)
    before = retriever.retrieve("question")
    after = retriever.retrieve("question", likelihoods=lambda _, passages: [nats[passage] for passage in passages])
    odds = {result.entry.term: result.odds for result in before.results}
    more = np.exp(0.25 * 2) * odds["Beta"] / odds["Alpha"]
    found = {result.entry.term: result.odds for result in after.results}
    assert found["Beta"] / found["Alpha"] == pytest.approx(more)
    assert found["Gamma"] / found["Alpha"] == pytest.approx(odds["Gamma"] / odds["Alpha"])


@pytest.mark.parametrize("cosines", [{"alpha|one": 0.9, "beta|two": 0.5}, {"alpha|one": 0.3, "beta|two": 0.3}])
def test_the_language_model_is_not_asked_when_one_passage_is_sure_or_the_question_is_refused(
    cosines: dict[str, float],
) -> None:
    plain = retriever_of([entry("Alpha"), entry("Beta")], cosines)
    retriever = Retriever(plain.index, plain.embedder, replace(NUMBERS, likelihood=0.5))

    def likelihoods(question: str, passages: Sequence[str]) -> list[float]:
        raise AssertionError("asked")

    assert retriever.retrieve("question", likelihoods=likelihoods) == retriever.retrieve("question")
    assert close(likelihood=0.0).retrieve("question", likelihoods=likelihoods) == close().retrieve("question")
