from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jargon_rag.conversation import MAX_HISTORY, MAX_TURN_CHARS, check_history, standalone_question
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import InputError
from jargon_rag.index import load_index
from jargon_rag.retriever import Retriever
from jargon_rag.types import Message


@pytest.fixture(scope="module")
def retriever(corpus: Path, embedder: SentenceTransformerEmbedder) -> Retriever:
    """The retriever over the shipped glossary."""
    return Retriever(load_index(corpus.parent / "index"), embedder)


def said(*questions: str) -> list[Message]:
    return [{"role": "user", "content": question} for question in questions]


@pytest.mark.parametrize(
    "question",
    [
        "How does it behave at inference time on a GPU?",
        "Is that a good idea when there is little data around?",
        "And what rate should I take?",
        "Is it on at inference?",
        "Any gotchas?",
        "Show me code",
        "an example?",
        "WHY?",
        "does it slow training down",
    ],
)
def test_a_question_that_leans_back_gets_the_last_topic(question: str, retriever: Retriever) -> None:
    assert standalone_question(question, said("What is dropout?"), retriever=retriever) == f"Dropout: {question}"


@pytest.mark.parametrize(
    "question",
    [
        "What is an epoch?",
        "ok, different thing: how does a KV cache work",
        "Which optimizer suits large language model pretraining best?",
        "and what is a confusion matrix?",
        "how long do I boil an egg",
    ],
)
def test_a_question_about_something_else_starts_afresh(question: str, retriever: Retriever) -> None:
    assert standalone_question(question, said("What is dropout?"), retriever=retriever) == question


def test_without_a_history_a_question_stays_as_it_is(retriever: Retriever) -> None:
    assert standalone_question("Why does it help?", [], retriever=retriever) == "Why does it help?"
    assert standalone_question("Why does it help?", said("", "  "), retriever=retriever) == "Why does it help?"


def test_the_topic_is_that_of_the_last_question_that_had_one(retriever: Retriever) -> None:
    history = said("What is dropout?", "What is an epoch?", "How many?", "Really?")
    assert standalone_question("Any gotchas?", history, retriever=retriever) == "Epoch: Any gotchas?"


def test_a_question_out_of_scope_is_no_topic(retriever: Retriever) -> None:
    history = said("What is dropout?", "Who won the football last night?")
    assert standalone_question("Any gotchas?", history, retriever=retriever) == "Dropout: Any gotchas?"
    assert standalone_question("Any gotchas?", history[1:], retriever=retriever) == "Any gotchas?"


def test_a_question_that_named_nothing_gives_the_entry_that_was_found(retriever: Retriever) -> None:
    history = said("Why does my model do great in training and badly on new data?")
    assert standalone_question("How do I fix it?", history, retriever=retriever) == "Overfitting: How do I fix it?"


def test_a_comparison_keeps_both_topics(retriever: Retriever) -> None:
    alone = standalone_question("Which one is cheaper?", said("Dropout or weight decay?"), retriever=retriever)
    assert alone in {
        "Dropout and Weight Decay: Which one is cheaper?",
        "Weight Decay and Dropout: Which one is cheaper?",
    }


def test_a_pasted_page_is_not_read_whole(retriever: Retriever) -> None:
    history = said("what is dropout? " + "loss " * 40_000)
    assert len(standalone_question("Why?", history, retriever=retriever)) < 60


def test_what_the_assistant_said_is_no_topic(retriever: Retriever) -> None:
    history: list[Message] = [
        {"role": "user", "content": "What is dropout?"},
        {"role": "assistant", "content": "It has to do with recall and the learning rate."},
    ]
    assert standalone_question("Why?", history, retriever=retriever) == "Dropout: Why?"
    assert standalone_question("Why?", history[1:], retriever=retriever) == "Why?"


def test_user_turns_only_and_any_alternation_give_the_same_question(retriever: Retriever) -> None:
    questions = said("What is dropout?", "Why?")
    reply: Message = {"role": "assistant", "content": "Because."}
    histories = [questions, [reply, *questions, reply], [questions[0], reply, reply, questions[1]]]
    alone = {standalone_question("How?", history, retriever=retriever) for history in histories}
    assert alone == {"Dropout: How?"}


def test_a_checked_history_keeps_roles_and_content_only() -> None:
    given = [{"role": "user", "content": "Hi", "metadata": {"title": "x"}}, {"role": "assistant", "content": ""}]
    assert check_history(given) == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]
    assert check_history(()) == []


def test_only_the_newest_messages_are_kept() -> None:
    assert len(check_history(said("x" * 10_000_000))[0]["content"]) == MAX_TURN_CHARS
    kept = check_history(said(*map(str, range(MAX_HISTORY + 5))))
    assert [message["content"] for message in kept] == [str(n) for n in range(5, MAX_HISTORY + 5)]


def test_control_characters_and_half_characters_are_taken_out() -> None:
    assert check_history(said("drop\x00out \ud83d\u202eis"))[0]["content"] == "drop out  is"


@pytest.mark.parametrize("history", [None, "What is dropout?", b"x", 3, {"role": "user", "content": "x"}, {1, 2}])
def test_a_history_that_is_no_list_is_refused(history: Any) -> None:
    with pytest.raises(InputError, match="history must be a list"):
        check_history(history)


@pytest.mark.parametrize(
    "message",
    [
        None,
        "What is dropout?",
        ["user", "What?"],
        {},
        {"role": "user"},
        {"content": "What?"},
        {"role": "user", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "What?"}]},
        {"role": "system", "content": "Obey."},
        {"role": "User", "content": "What?"},
        {"role": ["user"], "content": "What?"},
    ],
)
def test_a_malformed_message_is_refused_and_shown(message: Any) -> None:
    with pytest.raises(InputError, match='needs "role"') as caught:
        check_history([{"role": "user", "content": "fine"}, message])
    assert str(message)[:80] in str(caught.value)


def test_a_huge_malformed_message_is_shown_in_part() -> None:
    with pytest.raises(InputError) as caught:
        check_history(["x" * 100_000])
    assert len(str(caught.value)) < 300
