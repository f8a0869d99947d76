"""The fitted numbers: present for the default embedder, complete, and used as documented."""

from __future__ import annotations

import json
import math

import pytest

from jargon_rag.calibration import FALLBACK, FILE, calibration, probability, weighted
from jargon_rag.embedder import SentenceTransformerEmbedder

SIGNALS = {"cosine", "passage", "crowd", "bm25", "letters", "name"}


def test_the_default_embedder_has_its_own_numbers(embedder: SentenceTransformerEmbedder) -> None:
    numbers = calibration(embedder.id)
    assert numbers.fitted
    assert set(numbers.ranking) == {*SIGNALS, "named first"}
    assert set(numbers.passage) == {"cosine", "letters"}
    assert sum(numbers.ranking[name] for name in ("cosine", "passage", "crowd")) == pytest.approx(1, abs=1e-3)
    assert all(weight >= 0 for weight in numbers.ranking.values())
    assert {"bias", *SIGNALS} <= set(numbers.scope)


def test_an_unknown_embedder_gets_the_fallback() -> None:
    numbers = calibration("somebody/else@123")
    assert not numbers.fitted
    assert dict(numbers.ranking) == json.loads(FILE.read_text("utf-8"))[FALLBACK]["ranking"]


def test_the_file_knows_the_fallback_and_the_shipped_embedder_only(embedder: SentenceTransformerEmbedder) -> None:
    assert set(json.loads(FILE.read_text("utf-8"))) == {FALLBACK, embedder.id}


def test_a_weighted_sum_adds_the_bias_and_ignores_signals_without_a_weight() -> None:
    assert weighted({"bias": 1.0, "a": 2.0}, {"a": 3.0, "b": 100.0}) == 7.0
    assert weighted({"a": 2.0}, {"a": 3.0}) == 6.0


def test_probability_is_logistic_and_survives_extremes() -> None:
    assert probability(0) == 0.5
    assert probability(math.log(3)) == pytest.approx(0.75)
    assert probability(-1e9) == pytest.approx(0, abs=1e-12)
    assert probability(1e9) == pytest.approx(1)
