"""The arithmetic of the benchmark's report, and a small run of it with the real models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.answers import (
    Models,
    ask_together,
    compare,
    compare_with_greedy,
    describe_model,
    draw_questions,
    open_models,
    save,
)
from benchmarks.machine import describe
from benchmarks.peers import Peers
from benchmarks.plain import first_texts, whole_entries
from benchmarks.report import BEGIN, END, TIE, filled, newest, quantile, ratio, roofline_shares, tables
from benchmarks.traffic import load, report
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.generator import LocalGenerator
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.page import launch
from tests.conftest import free_port


def test_quantiles_lie_between_neighbours() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([*range(101)], 0.95) == pytest.approx(95)
    assert quantile([7.0], 0.95) == 7.0


def test_a_ratio_is_of_quantiles_and_its_interval_holds_it() -> None:
    ours = list(np.random.default_rng(1).uniform(1, 2, size=40))
    theirs = [3 * time for time in ours]
    assert ratio(theirs, ours, share=0.5) == pytest.approx((3, 3, 3))  # the same questions are drawn of both
    found, low, high = ratio(theirs[::-1], ours, share=0.5)
    assert low < found < high
    assert found == pytest.approx(3)


def test_the_roofline_counts_weights_and_the_tokens_before() -> None:
    model = {"weight_bytes": 900, "token_bytes": 10, "bandwidth_gb_s": 1e-6}  # 1,000 bytes a second
    row = {"steps": [(10, 5000.0), (1, 2000.0), (5, 1010.0), (1, 4240.0)]}
    assert roofline_shares(row, model) == pytest.approx([1000 / 2000, 1010 / 1010, 1060 / 4240])
    assert roofline_shares({"steps": []}, model) == []


def test_first_sentences_are_timed_by_the_token_that_completes_them() -> None:
    words = ["Morty: ", "What ", "is it?", "\nRick: ", "A thing.", " [1]", " And", " more."]

    def decode(ids: Any) -> str:
        return "".join(words[i] for i in ids)

    times = [10.0 * n for n in range(1, 9)]
    assert first_texts(range(8), times, decode) == (40.0, 70.0)
    assert first_texts(range(4), times[:4], decode) == (40.0, None)
    assert first_texts([], [], decode) == (None, None)


def test_the_report_replaces_what_it_made_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = filled(page, ["| new |"])
    assert once == f"before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"
    assert filled(once, ["| new |"]) == once
    with pytest.raises(ValueError, match="needs one"):
        filled("no place", [])


def test_the_newest_full_result_is_shown_before_a_quick_one(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for name, kind, made in (("a", "full", "2026-01-01"), ("b", "full", "2026-01-02"), ("c", "quick", "2026-01-03")):
        save({"commit": name, "kind": kind, "machine": {"made": made}}, tmp_path)
    assert newest(tmp_path) == tmp_path / "b-full.json"


@pytest.fixture(scope="module")
def models(embedder: SentenceTransformerEmbedder, rag: JargonRAG) -> Models:
    engine = rag.load()
    assert isinstance(engine, LocalGenerator)
    return open_models(embedder, engine)


def test_a_whole_entry_is_its_text_without_the_heading(rag: JargonRAG) -> None:
    entry = next(entry for entry in rag.entries if entry.term == "Dropout")
    ((marker, term, text),) = whole_entries([entry])
    assert (marker, term) == (1, "Dropout")
    assert entry.definition[0].text.split()[0] in text
    assert all(turn.speaker in text for turn in entry.turns)
    assert not any(line.startswith("## ") for line in text.split("\n"))


def test_two_questions_make_a_result_with_every_measure(models: Models, tmp_path: Path) -> None:
    questions = draw_questions(models, 2)
    assert len(set(questions)) == 2
    assert questions == draw_questions(models, 2)
    step = models.engine._step
    result = {
        "commit": "0123456789ab",
        "kind": "quick",
        "seed": 0,
        "machine": describe(threads=2),
        "model": describe_model(models),
        "peers": {"LangChain": "not installed (langchain-huggingface)"},
        "answers": compare(models, questions, peers=Peers()),
        "greedy": [compare_with_greedy(models, questions[0])],
        "together": ask_together(models, questions, rounds=1),
    }
    assert models.engine._step is step  # it is no longer watched
    result = json.loads(save(result, tmp_path).read_text("utf-8"))

    assert [row["question"] for row in result["answers"]] == questions
    for row in result["answers"]:
        ours, plain, forced = (row["whole"][name] for name in ("ours", "transformers", "transformers, as many tokens"))
        assert 0 < ours["first_token_ms"] <= ours["first_sentence_ms"] <= ours["total_ms"]
        assert ours["first_cited_ms"] <= ours["total_ms"]
        assert ours["retrieve_ms"] + ours["prefill_ms"] + ours["decode_ms"] + ours["check_ms"] <= ours["total_ms"]
        read, asked = sum(tokens for tokens, _ in ours["steps"]), len(ours["steps"])
        assert ours["prompt_tokens"] < read < ours["prompt_tokens"] + ours["answer_tokens"] + 1
        assert 1 < asked < ours["answer_tokens"]
        assert 0 < plain["first_token_ms"] < plain["total_ms"]
        assert 1 < plain["answer_tokens"] <= 120
        assert plain["prompt_tokens"] > ours["prompt_tokens"]  # whole entries
        assert forced["answer_tokens"] == ours["answer_tokens"]
        assert forced["total_ms"] > 0
        assert all(share > 0 for share in roofline_shares(ours, result["model"]))
    (same,) = result["greedy"]
    assert same["tokens"] > 10
    assert same["difference"] is None or same["gap"] < TIE
    assert len(result["together"]["serial"]) == len(result["together"]["together"]) == 2
    assert result["model"]["weight_bytes"] > 1e8

    shown = "\n".join(tables(result))
    assert "| transformers | " in shown
    assert "- LangChain: not installed" in shown
    assert "### Decoding" in shown
    assert "### 2 people at once" in shown
    assert "Cold start" not in shown  # not measured here


def test_traffic_at_a_real_server_meets_no_fault_and_is_written_down(rag: JargonRAG) -> None:
    port = free_port()
    page = launch(lambda _: rag, port=port, say=lambda _: None, wait=False)
    try:
        seen = load(port, os.getpid(), ["What is overfitting?", "What is an epoch?"], clients=3, seconds=10)
    finally:
        page.close()
    assert seen.faults == []
    assert {way for way, _ in seen.outcomes} > {"whole", "streamed", "search"}
    assert seen.outcomes["whole", "answered"] > 0
    text = "\n".join(report(seen, [10.0, 20.0], clients=3, minutes=0.2))
    assert "named error: 0." in text
    assert "| streamed | answered |" in text
