from __future__ import annotations

import re
from typing import Any

import pytest

from jargon_rag.conversation import MAX_HISTORY, MAX_TOPIC_CHARS, check_history, standalone_question
from jargon_rag.errors import InputError
from jargon_rag.types import Message

TERMS = ("Dropout", "Epoch", "Precision", "Recall", "Learning Rate")


def named(text: str) -> list[str]:
    return [term for term in TERMS if re.search(rf"\b{term}\b", text, re.IGNORECASE)]


def said(*questions: str) -> list[Message]:
    return [{"role": "user", "content": question} for question in questions]


def alone(question: str, *earlier: str) -> str:
    return standalone_question(question, said(*earlier), named=named)


@pytest.mark.parametrize(
    "question",
    [
        "How does it behave at inference time on a GPU?",
        "Is that a good idea when there is little data around?",
        "And what happens at inference time on a GPU?",
        "What about very small datasets with noisy labels?",
        "Why not switch the thing off for the first layers?",
        "How many do people need for a big network in practice?",
        "Are there common pitfalls with these in production systems?",
        "Any gotchas?",
        "Show me code",
        "an example?",
        "WHY?",
    ],
)
def test_a_question_that_leans_back_gets_the_last_topic(question: str) -> None:
    assert alone(question, "What is dropout?") == f"Dropout: {question}"


@pytest.mark.parametrize(
    "question", ["What is an epoch?", "And the learning rate?", "Is it like recall?", "so, epoch or learning rate?"]
)
def test_a_question_that_names_an_entry_starts_afresh(question: str) -> None:
    assert alone(question, "What is dropout?") == question


def test_a_full_question_that_leans_on_nothing_stays_as_it_is() -> None:
    question = "Which optimizer suits large language model pretraining best?"
    assert alone(question, "What is dropout?") == question


def test_without_a_history_a_question_stays_as_it_is() -> None:
    assert alone("Why does it help?") == "Why does it help?"
    assert alone("Why does it help?", "", "  ") == "Why does it help?"


def test_the_topic_is_that_of_the_last_question_that_had_one() -> None:
    assert (
        alone("Any gotchas?", "What is dropout?", "What is an epoch?", "How many?", "Really?") == "Epoch: Any gotchas?"
    )


def test_a_comparison_keeps_both_topics() -> None:
    assert alone("Which one matters more?", "Precision or recall?") == "Precision and Recall: Which one matters more?"


def test_the_last_words_are_the_topic_when_nothing_was_named() -> None:
    assert alone("Why?", "My loss explodes", "and it becomes\n NaN") == "and it becomes NaN: Why?"


def test_a_pasted_page_does_not_become_the_topic() -> None:
    assert len(alone("Why?", "loss " * 40_000)) <= MAX_TOPIC_CHARS + len(": Why?")


def test_what_the_assistant_said_is_no_topic() -> None:
    history = [
        {"role": "user", "content": "What is dropout?"},
        {"role": "assistant", "content": "It has to do with recall and the learning rate."},
    ]
    assert standalone_question("Why?", history, named=named) == "Dropout: Why?"
    assert standalone_question("Why?", history[1:], named=named) == "Why?"


def test_user_turns_only_and_any_alternation_give_the_same_question() -> None:
    questions = said("What is dropout?", "Why?")
    reply: Message = {"role": "assistant", "content": "Because."}
    histories = [questions, [reply, *questions, reply], [questions[0], reply, reply, questions[1]]]
    assert {standalone_question("How?", history, named=named) for history in histories} == {"Dropout: How?"}


def test_a_checked_history_keeps_roles_and_content_only() -> None:
    given = [{"role": "user", "content": "Hi", "metadata": {"title": "x"}}, {"role": "assistant", "content": ""}]
    assert check_history(given) == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]
    assert check_history(()) == []


def test_only_the_newest_messages_are_kept() -> None:
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
