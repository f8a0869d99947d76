"""What an answer may rest on: which entries, which passages, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from jargon_rag.answering import own_words
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.evidence import MAX_LIKELY, MAX_SOURCES, PASSAGES_PER_SOURCE, SURE, Evidence, gather
from jargon_rag.rag import JargonRAG
from jargon_rag.retriever import Retriever
from jargon_rag.types import Retrieval

QUESTIONS = [
    "What is overfitting?",
    "my loss became nan after a few steps",
    "why does dropout hurt at inference",
    "how do I pick a chunk size",
    "is attention an explanation",
    "when is a small model enough",
]


@pytest.fixture(scope="module")
def retriever(rag: JargonRAG) -> Retriever:
    return rag.retriever


def found(question: str, retriever: Retriever) -> tuple[Retrieval, Evidence]:
    retrieval = retriever.retrieve(question, top_k=2 * MAX_SOURCES)
    return retrieval, gather(retrieval, retriever)


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_passage_is_of_the_source_that_its_marker_names_and_each_source_is_used(
    question: str, retriever: Retriever
) -> None:
    retrieval, evidence = found(question, retriever)
    assert {entry.slug for entry in evidence.sources} <= {result.entry.slug for result in retrieval.results}
    assert retrieval.results[0].entry in evidence.sources
    assert all(evidence.sources[n - 1].slug == chunk.slug for n, chunk in evidence.passages)
    assert list(dict.fromkeys(n for n, _ in evidence.passages)) == list(range(1, len(evidence.sources) + 1))
    assert len({chunk.passage for _, chunk in evidence.passages}) == len(evidence.passages)
    assert len(evidence.sources) <= MAX_SOURCES


@pytest.mark.parametrize("question", QUESTIONS)
def test_so_many_passages_are_likely_that_one_of_them_answers(question: str, retriever: Retriever) -> None:
    retrieval, evidence = found(question, retriever)
    total = sum(result.odds for result in retrieval.results)
    share = {
        (result.entry.slug, chunk.passage): result.odds / total * within
        for result in retrieval.results
        for chunk, within in retriever.passages(question, result.entry.slug)
    }
    shares = [share[chunk.slug, chunk.passage] for _, chunk in evidence.passages[: evidence.likely]]
    assert shares == sorted(shares, reverse=True)
    assert 1 <= evidence.likely <= MAX_LIKELY
    assert sum(shares[:-1]) < SURE
    assert sum(shares) >= SURE or evidence.likely == MAX_LIKELY


def test_the_shares_of_an_entry_s_passages_sum_to_one(retriever: Retriever) -> None:
    shares = [share for _, share in retriever.passages("why does it fit noise", "overfitting")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_definition_of_every_source_is_there(question: str, retriever: Retriever) -> None:
    _, evidence = found(question, retriever)
    for n, entry in enumerate(evidence.sources, start=1):
        own = [chunk for marker, chunk in evidence.passages if marker == n]
        assert entry.definition[0].line in {chunk.line for chunk in own}
        assert len(own) <= PASSAGES_PER_SOURCE + MAX_LIKELY


def test_what_a_question_sets_against_each_other_is_compared(retriever: Retriever) -> None:
    _, evidence = found("difference between overfitting and underfitting, or dropout?", retriever)
    assert set(evidence.compared) == {"Overfitting", "Underfitting", "Dropout"}
    assert evidence.required == {1, 2, 3}
    assert evidence.likely == 1


def test_entries_that_a_question_names_together_are_all_cited(retriever: Retriever) -> None:
    _, evidence = found("does dropout prevent overfitting", retriever)
    named = {n for n, entry in enumerate(evidence.sources, start=1) if entry.term in {"Dropout", "Overfitting"}}
    assert evidence.required == named
    assert len(named) == 2
    assert not evidence.compared


@pytest.mark.parametrize(
    "question",
    [
        "How large should weight_decay be for AdamW to begin with? And for SGD on images?",
        "Does an embedding model quietly chop long texts?",
    ],
)
def test_an_entry_named_by_the_way_is_not_asked_about(question: str, retriever: Retriever) -> None:
    found = gather(retriever.retrieve(question), retriever)
    assert len(retriever.named(question)) > 1
    assert found.required == frozenset()


def test_two_things_that_may_be_one_are_compared(retriever: Retriever) -> None:
    question = "Isn't federated learning simply distributed training over slow links?"
    assert len(gather(retriever.retrieve(question), retriever).required) == 2


def test_a_question_about_one_entry_requires_no_other(retriever: Retriever) -> None:
    _, evidence = found("What is overfitting?", retriever)
    assert evidence.required == frozenset()


def test_the_facts_are_the_passages_with_their_terms(rag: JargonRAG) -> None:
    evidence = rag.evidence(rag.retrieve("What is overfitting?"))
    for (marker, term, text), (n, chunk) in zip(evidence.facts, evidence.passages, strict=True):
        assert marker == n
        assert term == evidence.sources[n - 1].term
        assert text.endswith(chunk.passage)


def test_a_yes_or_no_to_the_glossary_s_own_question_is_not_said_to_the_reader(
    tmp_path: Path, embedder: SentenceTransformerEmbedder
) -> None:
    file = tmp_path / "own.md"
    file.write_text(
        "## Reefing\n\n**Definition:** Reefing makes a sail smaller.\n\n**Morty:** Won't we slow down?\n\n"
        "**Rick:** No: a boat that is overpressed goes no faster with more sail.\n\n## Roux\n\nFlour cooked in fat.\n"
    )
    bot = JargonRAG(corpus=file, embedder=embedder, cache_dir=tmp_path, check_model=False)
    evidence = bot.evidence(bot.retrieve("does reefing make an overpressed boat go slower"))
    texts = [text for _, _, text in evidence.facts]
    assert "A boat that is overpressed goes no faster with more sail." in texts
    (said,) = [sentence for sentence, _ in own_words(evidence, "plain") if "overpressed" in sentence.text]
    assert said.text.startswith("A boat")
    assert said.quote.startswith("a boat")
    assert said.quote in file.read_text()
