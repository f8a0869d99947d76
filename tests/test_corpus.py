"""The shipped glossary: complete, consistent, its code runs, and its index is fresh."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from jargon_rag.chunking import chunk_glossary, split_sentences
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.glossary import corpus_hash, read_glossary, read_questions
from jargon_rag.index import load_index
from jargon_rag.lint import lint_glossary
from jargon_rag.terms import words
from jargon_rag.types import Entry, Snippet

ROOT = Path(__file__).parents[1]
ENTRIES = read_glossary(ROOT / "corpus")
SNIPPETS = [
    pytest.param(snippet, id=f"{entry.slug}-{number}")
    for entry in ENTRIES
    for number, snippet in enumerate(entry.snippets, start=1)
]

HEADINGS = """
Supervised Learning
Unsupervised Learning
Reinforcement Learning
Model
Parameters
Hyperparameters
Feature
Label
Dataset
Train/Validation/Test Split
Overfitting
Underfitting
Bias-Variance Trade-off
Regularization
Loss Function
Objective Function
Gradient
Gradient Descent
Learning Rate
Epoch
Batch / Batch Size
Optimizer
Backpropagation
Activation Function
Softmax
Logits
Embeddings
Tokenization
Attention
Transformer
LLM
Prompt
Context Window
Temperature / Top-p
Beam Search
Accuracy, Precision, Recall, F1
Confusion Matrix
ROC / AUC
Perplexity
Cross-Validation
Data Augmentation
Normalization / Standardization
Dropout
Weight Decay
Batch Norm / Layer Norm
Transfer Learning
Fine-Tuning
Model Distillation
Pruning / Quantization
Feature Engineering
One-Hot Encoding
Dimensionality Reduction
PCA / t-SNE / UMAP
Linear / Logistic Regression
SVM / k-NN / Decision Trees
Random Forest / XGBoost
Naive Bayes
Entropy / KL Divergence
Bayesian Inference
MAP / MLE
Markov Chains / HMM
MCMC / Variational Inference
Autoencoder
VAE
GAN
Diffusion Model
Policy / Value Function
Exploration vs. Exploitation
Q-Learning / TD Learning
Replay Buffer / Actor-Critic
Inference
Latency / Throughput
MLOps
Feature Store
Model Registry
A/B Test / Canary / Shadow
Monitoring / Drift
Fairness / Bias / Explainability
Adversarial Examples / Robustness
""".strip().split("\n")


def asked() -> dict[str, list[dict[str, str]]]:
    """Return the rows of every questions file by term."""
    return rows_of(sorted((ROOT / "corpus" / "questions").glob("*.jsonl")))


def all_asked() -> dict[str, list[dict[str, str]]]:
    """Return the same, and what was written to measure by others."""
    return rows_of([*sorted((ROOT / "corpus" / "questions").glob("*.jsonl")), ROOT / "evals" / "others.jsonl"])


def rows_of(files: Iterable[Path]) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for file in files:
        for line in file.read_text("utf-8").split("\n"):
            if line:
                row = json.loads(line)
                rows[row["term"]].append(row)
    return rows


def split_of(entry: Entry) -> str:
    """Return the split that a term's questions belong to, but for those that are indexed."""
    number = int(hashlib.sha256(entry.slug.encode()).hexdigest()[:8], 16) % 100
    if number < 70:
        return "train"
    return "dev" if number < 85 else "test"


def parts(entry: Entry) -> dict[str, int]:
    """Return how many passages of each kind a question may name."""
    return {
        "definition": len(entry.definition),
        "exchange": len(list(entry.exchanges())),
        "gotcha": len(entry.gotchas),
        "code": len(entry.snippets),
    }


def test_lint_finds_nothing(corpus: Path) -> None:
    count, findings = lint_glossary(corpus)
    assert findings == []
    assert count == len(ENTRIES) >= 120


def test_every_term_of_the_original_glossary_has_an_entry() -> None:
    assert len(HEADINGS) == 79
    assert set(HEADINGS) - {entry.term for entry in ENTRIES} == set()


def test_anchors_are_unique() -> None:
    assert len({entry.slug for entry in ENTRIES}) == len(ENTRIES)


def test_every_entry_has_five_to_seven_exchanges_and_nothing_else_is_spoken() -> None:
    counts = {entry.term: (len(list(entry.exchanges())), len(entry.turns)) for entry in ENTRIES}
    assert {term: n for term, n in counts.items() if not 5 <= n[0] <= 7 or n[1] != 2 * n[0]} == {}


def test_every_entry_has_two_to_four_gotchas() -> None:
    counts = {entry.term: len(entry.gotchas) for entry in ENTRIES}
    assert {term: n for term, n in counts.items() if not 2 <= n <= 4} == {}


def test_every_definition_is_one_paragraph_of_two_to_five_sentences() -> None:
    counts = {entry.term: [len(split_sentences(passage.text)) for passage in entry.definition] for entry in ENTRIES}
    assert {term: n for term, n in counts.items() if len(n) != 1 or not 2 <= n[0] <= 5} == {}


def test_no_phrase_of_ricks_stands_in_more_than_one_entry_in_ten() -> None:
    entries_of: dict[str, set[str]] = defaultdict(set)
    for entry in ENTRIES:
        for turn in entry.turns:
            spoken = words(turn.text) if turn.speaker == "Rick" else []
            for start in range(len(spoken) - 3):
                entries_of[" ".join(spoken[start : start + 4])].add(entry.term)
    assert {phrase for phrase, terms in entries_of.items() if len(terms) > len(ENTRIES) / 10} == set()


def test_no_two_dialogues_ask_their_questions_in_the_same_manner_and_order() -> None:
    manners = [tuple(words(asked.text)[0] for asked, _ in entry.exchanges()) for entry in ENTRIES]
    assert len(set(manners)) == len(ENTRIES)


def test_every_term_has_at_least_five_index_questions_and_fourteen_in_all_of_seven_kinds() -> None:
    rows = asked()
    assert set(rows) == {entry.term for entry in ENTRIES}
    poor = {
        term: (sum(row["split"] == "index" for row in of), len(of), len({row["kind"] for row in of}))
        for term, of in rows.items()
    }
    assert {term: n for term, n in poor.items() if n[0] < 5 or n[1] < 14 or n[2] < 7} == {}


def test_all_questions_of_a_term_that_are_not_indexed_share_the_split_of_its_slug() -> None:
    rows = all_asked()
    wrong = {
        (entry.term, row["split"])
        for entry in ENTRIES
        for row in rows[entry.term]
        if row["split"] not in ("index", split_of(entry))
    }
    assert wrong == set()


def test_every_question_names_a_passage_that_its_entry_has() -> None:
    rows = all_asked()
    wrong = []
    for entry in ENTRIES:
        for row in rows[entry.term]:
            kind, _, number = row["passage"].partition(":")
            if not 1 <= int(number or 1) <= parts(entry).get(kind, 0):
                wrong.append((entry.term, row["question"], row["passage"]))
    assert wrong == []


def test_no_question_is_asked_twice() -> None:
    texts = [row["question"].casefold() for of in all_asked().values() for row in of]
    assert sorted(text for text in set(texts) if texts.count(text) > 1) == []


def test_only_index_questions_are_read_for_the_index(corpus: Path) -> None:
    indexed = {row["question"] for of in all_asked().values() for row in of if row["split"] == "index"}
    others = {row["question"] for of in all_asked().values() for row in of if row["split"] != "index"}
    found = {question.text for question in read_questions(corpus, ENTRIES)}
    assert found == indexed
    assert found.isdisjoint(others)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs_and_shows_something(snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    assert snippet.language == "python"
    assert snippet.text.startswith("# ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(snippet.text, "snippet", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() or "assert " in snippet.text


def test_the_shipped_index_is_fresh(corpus: Path) -> None:
    index = load_index(ROOT / "index")
    assert index.corpus_hash == corpus_hash(corpus)
    chunks = chunk_glossary(ENTRIES, read_questions(corpus, ENTRIES))
    assert [chunk.text for chunk in index.chunks] == [chunk.text for chunk in chunks]
    assert list(index.chunks) == chunks
    assert list(index.entries) == ENTRIES


def test_the_shipped_index_was_made_with_the_default_embedder(embedder: SentenceTransformerEmbedder) -> None:
    assert load_index(ROOT / "index").embedder_id == embedder.id


def test_the_file_of_splits_says_what_the_hash_of_each_slug_says() -> None:
    splits = json.loads((ROOT / "corpus" / "questions" / "splits.json").read_text("utf-8"))
    assert splits == {entry.slug: split_of(entry) for entry in ENTRIES}


def test_the_sets_kept_for_measuring_are_as_large_as_they_should_be() -> None:
    evals = ROOT / "evals"
    rows = {name: (evals / name).read_text("utf-8").splitlines() for name in ("out_of_scope.jsonl", "follow_ups.jsonl")}
    assert len(rows["out_of_scope.jsonl"]) >= 300
    assert len(rows["follow_ups.jsonl"]) >= 150
    sailing = evals / "sailing"
    entries = read_glossary(sailing / "glossary.md")
    questions = [json.loads(line) for line in (sailing / "questions.jsonl").read_text("utf-8").splitlines()]
    assert len(entries) == 25
    assert len(questions) >= 100
    assert {row["term"] for row in questions} == {entry.term for entry in entries}
    assert len((sailing / "out_of_scope.jsonl").read_text("utf-8").splitlines()) >= 50
