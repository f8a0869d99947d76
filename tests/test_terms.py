"""Anchors, the names that a heading holds, and keys that ignore spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jargon_rag.terms import content_words, letter_grams, name_key, singular, slugify, split_heading, words

WORD = st.text("abcinsxyzéüñßæøжλ", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Overfitting", "overfitting"),
        ("A/B Test / Canary / Shadow", "ab-test--canary--shadow"),
        ("Accuracy, Precision, Recall, F1", "accuracy-precision-recall-f1"),
        ("Exploration vs. Exploitation", "exploration-vs-exploitation"),
        ("Train/Validation/Test Split", "trainvalidationtest-split"),
        ("PCA / t-SNE / UMAP", "pca--t-sne--umap"),
        ("Bias-Variance Trade-off", "bias-variance-trade-off"),
        ("What's a GPU?", "whats-a-gpu"),
        ("What’s a GPU?", "whats-a-gpu"),
        ("Z\u2011Score — the long way", "zscore--the-long-way"),
        ("snake_case (kept)", "snake_case-kept"),
        ("Größe & Übermaß", "größe--übermaß"),
        ("Cafe\u0301", "cafe\u0301"),
        ("C++", "c"),
        ("!?", ""),
    ],
)
def test_an_anchor_is_the_one_github_makes(heading: str, anchor: str) -> None:
    assert slugify(heading) == anchor


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Dropout", ["Dropout"]),
        ("Batch / Batch Size", ["Batch / Batch Size", "Batch", "Batch Size"]),
        (
            "Linear / Logistic Regression",
            ["Linear / Logistic Regression", "Linear", "Logistic Regression", "Linear Regression"],
        ),
        (
            "Accuracy, Precision, Recall, F1",
            ["Accuracy, Precision, Recall, F1", "Accuracy", "Precision", "Recall", "F1"],
        ),
        ("Exploration vs. Exploitation", ["Exploration vs. Exploitation", "Exploration", "Exploitation"]),
        ("Exploration VS Exploitation", ["Exploration VS Exploitation", "Exploration", "Exploitation"]),
        ("Train/Test Split", ["Train/Test Split"]),
        ("Principal Parts (PP)", ["Principal Parts (PP)", "Principal Parts", "PP"]),
        ("Model Drift / Decay", ["Model Drift / Decay", "Model Drift", "Decay", "Model Decay"]),
        ("Vsync", ["Vsync"]),
        ("", []),
    ],
)
def test_a_heading_gives_every_name_that_it_holds(heading: str, names: list[str]) -> None:
    assert split_heading(heading) == names


def test_a_word_written_once_is_not_lent_to_parts_of_several_words() -> None:
    names = split_heading("Random Forest / XGBoost")
    assert names == ["Random Forest / XGBoost", "Random Forest", "XGBoost", "Random XGBoost"]
    assert "Hidden Markov Chains" not in split_heading("Hidden Layers / Markov Chains")


def test_twenty_thousand_open_brackets_in_a_heading_do_not_hang() -> None:
    heading = "(" * 20_000
    assert split_heading(heading) == [heading]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Batch-Norms", "batchnorm"),
        ("Batch Norm", "BATCH NORM"),
        ("over-fitting", "overfitting"),
        ("k\u2011NN", "k-NN"),
        ("k–NN", "kNN"),
        ("t — SNE", "t-SNE"),
        ("decision trees", "Decision Tree"),
        ("policies", "policy"),
        ("Goodhart's law", "Goodhart’s Laws"),
        ("ﬁne‐tuning", "fine-tuning"),
        ("Straße", "STRASSE"),
        ("F1!", "f1"),
        ("ＧＰＵ", "gpu"),
    ],
)
def test_spellings_of_one_name_share_a_key(one: str, other: str) -> None:
    assert name_key(one) == name_key(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [("loss", "los"), ("recall", "precision"), ("F1", "F2"), ("batch norm", "norm batch")],
)
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


@pytest.mark.parametrize("name", ["", " ", "—", "?!", "-"])
def test_a_name_without_letters_has_an_empty_key(name: str) -> None:
    assert name_key(name) == ""


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("trees", "tree"),
        ("entropies", "entropy"),
        ("loss", "loss"),
        ("status", "status"),
        ("analysis", "analysis"),
        ("gas", "gas"),
        ("ties", "tie"),
        ("tree", "tree"),
    ],
)
def test_singular_takes_off_plural_endings_only(word: str, stem: str) -> None:
    assert singular(word) == stem


def test_words_split_at_hyphens_and_not_at_apostrophes() -> None:
    assert words("Don't re-use Rick’s k\u2011NN, twice!") == ["don't", "re", "use", "rick's", "k", "nn", "twice"]


def test_an_underscore_separates_words() -> None:
    assert words("top_k") == ["top", "k"]


@given(st.text(max_size=60))
@settings(deadline=None, database=None, derandomize=True)
def test_an_anchor_holds_no_spaces_and_is_its_own_anchor(heading: str) -> None:
    anchor = slugify(heading)
    assert " " not in anchor
    assert slugify(anchor) == anchor


@given(st.lists(WORD, min_size=1, max_size=4))
@settings(deadline=None, database=None, derandomize=True)
def test_a_key_ignores_case_hyphens_and_spaces(parts: list[str]) -> None:
    keys = {name_key(joint.join(parts)) for joint in (" ", "-", "\u2011", " – ")}
    keys.add(name_key(" ".join(parts).upper()))
    assert len(keys) == 1


@given(st.text(max_size=60))
@settings(deadline=None, database=None, derandomize=True)
def test_the_first_name_of_a_heading_is_the_heading(heading: str) -> None:
    names = split_heading(heading)
    assert names[:1] == ([heading] if heading else [])
    assert len(names) == len(set(names))
    assert all(names)


def test_content_words_are_singular_and_without_stop_words() -> None:
    assert content_words("What are the Gradients of it?") == ["gradient"]
    assert content_words("what is it") == []


def test_letter_grams_run_over_word_boundaries_and_skip_stop_words() -> None:
    assert letter_grams("The KV cache") == {" kv ", "kv c", "v ca", " cac", "cach", "ache", "che "}
    assert letter_grams("what is it") == set()
    assert letter_grams("a") == set()


@pytest.mark.parametrize(
    ("misspelt", "name"),
    [("overfiting", "overfitting"), ("normalisation", "normalization"), ("back-propagation", "back propagation")],
)
def test_a_misspelt_word_shares_most_of_its_letter_grams(misspelt: str, name: str) -> None:
    theirs = letter_grams(misspelt)
    assert len(theirs & letter_grams(name)) >= len(theirs) / 2


@given(st.text(max_size=80))
def test_letter_grams_have_four_letters(text: str) -> None:
    assert all(len(gram) == 4 for gram in letter_grams(text))
