"""OpenAI's own client asks a real server process; raw requests where that client would not send such a thing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from typing import Any

import openai
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from openai.types.chat import ChatCompletionMessageParam

from jargon_rag.api import MAX_BODY_BYTES, MAX_WAITING, MODELS, RETRY_SECONDS
from jargon_rag.errors import TooManyQuestions
from jargon_rag.generator import AT_ONCE
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.page import launch
from jargon_rag.waiting import WaitingLine
from tests.conftest import Gated, free_port

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why does dropout help?"}]
LOAD_SECONDS = 300


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "jargon_rag", "serve", "--port", str(port)])
    try:
        wait_until(lambda: status_of(port, {"model": "jargon-rag", "messages": QUESTION}) == 200, seconds=LOAD_SECONDS)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


def wait_until(holds: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def post(port: int, body: bytes, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, JSON and headers of what the server says."""
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=LOAD_SECONDS) as response:
            return response.status, json.loads(response.read()), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), dict(error.headers)


def status_of(port: int, record: dict[str, Any]) -> int:
    try:
        return post(port, json.dumps(record).encode())[0]
    except OSError:
        return 0  # it does not listen yet


def open_request(port: int, record: dict[str, Any]) -> HTTPConnection:
    """Send a question, and leave the answer unread."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LOAD_SECONDS)
    connection.request("POST", "/v1/chat/completions", json.dumps(record), {"Content-Type": "application/json"})
    return connection


def test_the_models_are_the_two_styles(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)


def test_an_answer_has_the_dialogue_its_sources_its_citations_and_its_cost(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="jargon-rag", messages=QUESTION)
    (choice,) = completion.choices
    assert choice.message.content is not None
    assert "\nRick: " in choice.message.content
    assert "[1] Dropout (corpus/" in choice.message.content
    assert choice.finish_reason == "stop"
    extra = completion.model_extra
    assert extra is not None
    assert {citation["term"] for citation in extra["citations"]} == {"Dropout"}
    shown = choice.message.content.lower()  # after an opening a sentence begins with a small letter
    assert all(citation["quote"].lower() in shown for citation in extra["citations"])
    assert extra["refused"] is False
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > completion.usage.completion_tokens > 0
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_a_streamed_answer_is_the_whole_one_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="jargon-rag", messages=QUESTION)
    with client.chat.completions.create(
        model="jargon-rag", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert [chunk.model_extra["citations"] for chunk in chunks if chunk.model_extra] == [
        (whole.model_extra or {})["citations"]
    ]
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_sentences_arrive_while_the_rest_is_written(client: openai.OpenAI) -> None:
    started = time.monotonic()
    with client.chat.completions.create(model="jargon-rag", messages=QUESTION, stream=True) as stream:
        arrived = [time.monotonic() - started for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert arrived[0] < arrived[-1] * 0.9


def test_the_plain_model_has_no_speakers(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="jargon-rag-plain", messages=QUESTION)
    text = completion.choices[0].message.content
    assert text is not None
    assert "Rick:" not in text
    assert "[1] Dropout (corpus/" in text


def test_a_follow_up_is_understood_from_the_messages(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="jargon-rag",
        messages=[
            {"role": "system", "content": "Answer as a pirate."},
            {"role": "user", "content": [{"type": "text", "text": "What is an epoch?"}]},
            {"role": "assistant", "content": "One pass."},
            {"role": "user", "content": "How many do I need?"},
        ],
    )
    assert "Epoch" in {citation["term"] for citation in (completion.model_extra or {})["citations"]}


def test_a_question_beside_the_glossary_is_refused_with_suggestions(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="jargon-rag-plain", messages=[{"role": "user", "content": "How do I cook rice for six?"}]
    )
    extra = completion.model_extra or {}
    assert (extra["refused"], extra["citations"]) == (True, [])
    assert extra["suggestions"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0


def test_the_client_s_errors_are_the_ones_it_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="jargon-rag-plain") as unknown:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="question is empty"):
        client.chat.completions.create(model="jargon-rag", messages=[{"role": "user", "content": " "}])


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ([], "JSON object"),
        ({"model": "jargon-rag"}, "messages"),
        ({"model": "jargon-rag", "messages": []}, "messages"),
        ({"model": "jargon-rag", "messages": ["hi"]}, "role and content"),
        ({"model": "jargon-rag", "messages": [{"role": "assistant", "content": "hi"}]}, "last message"),
        ({"model": "jargon-rag", "messages": [{"role": "system", "content": "hi"}]}, "last message"),
        ({"model": "jargon-rag", "messages": [{"role": "tool", "content": "x"}, *QUESTION]}, "role"),
        ({"model": "jargon-rag", "messages": [{"role": "user", "content": None}]}, "empty"),
        ({"model": "jargon-rag", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text"),
        ({"model": "jargon-rag", "messages": [{"role": "user", "content": "x" * 2001}]}, "2,000"),
        ({"model": "jargon-rag", "messages": QUESTION, "n": 2}, "one answer"),
        ({"model": "jargon-rag", "messages": QUESTION, "stream_options": 3}, "messages"),
    ],
)
def test_a_request_that_cannot_be_used_is_400_and_says_why(port: int, record: object, told: str) -> None:
    status, answer, _ = post(port, json.dumps(record).encode())
    assert status == 400
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert told in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 200_000])
def test_what_is_not_json_is_400(port: int, body: bytes) -> None:
    status, answer, _ = post(port, body)
    assert (status, answer["error"]["code"]) == (400, "not_json")


def test_what_another_host_s_page_could_send_is_not_read(port: int) -> None:
    status, answer, _ = post(port, json.dumps({"model": "jargon-rag"}).encode(), Content_Type="text/plain")
    assert (status, answer["error"]["code"]) == (400, "not_json")


def test_a_body_that_is_too_large_is_413(port: int) -> None:
    status, answer, _ = post(port, b" " * (MAX_BODY_BYTES + 1))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


def test_a_full_line_is_told_with_the_place_and_empties_when_clients_hang_up(port: int) -> None:
    record = {"model": "jargon-rag", "messages": QUESTION}
    waiting = [open_request(port, {**record, "stream": number % 2 == 0}) for number in range(MAX_WAITING + 4)]
    try:
        status, answer, headers = post(port, json.dumps(record).encode())
        assert status == 503
        assert headers["retry-after"] == str(RETRY_SECONDS)
        assert answer["error"]["code"] == "busy"
        assert f"you would be number {MAX_WAITING + 2}" in answer["error"]["message"]
    finally:
        for connection in waiting:
            connection.close()
    # nobody reads those answers, so the line is free after the sentence that is being written
    started = time.monotonic()
    wait_until(lambda: status_of(port, record) == 200, seconds=LOAD_SECONDS)
    until_free = time.monotonic() - started
    started = time.monotonic()
    for _ in range(4):
        assert status_of(port, record) == 200
    assert until_free < (time.monotonic() - started) * (MAX_WAITING / 4)


def test_a_client_that_waits_is_told_its_place_and_answered(port: int) -> None:
    record = {"model": "jargon-rag", "messages": QUESTION, "stream": True}
    connections = [open_request(port, record) for _ in range(AT_ONCE + 2)]
    try:
        told = [connection.getresponse().read().decode() for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert sum(": 1 before you\n" in events for events in told) == 1
    assert sum(" before you\n" in events for events in told) == 2
    for events in told:
        assert events.endswith("data: [DONE]\n\n")
        assert "[1] Dropout" in events


def test_the_page_s_answers_stand_in_the_same_line(rag: JargonRAG) -> None:
    port = free_port()
    page = launch(lambda _: rag, port=port, at_once=1, say=lambda _: None, wait=False)
    try:
        record = {"model": "jargon-rag", "messages": QUESTION, "stream": True}
        wait_until(lambda: status_of(port, {**record, "stream": False}) == 200, seconds=LOAD_SECONDS)
        client = Client(f"http://127.0.0.1:{port}/", verbose=False)
        connections = [open_request(port, record) for _ in range(4)]
        asked = client.submit("What is overfitting?", api_name="/ask")
        for connection in connections[:3]:
            assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
        assert not asked.done()  # the fourth is still before it
        assert asked.result(timeout=LOAD_SECONDS)["citations"]
        for connection in connections:
            connection.close()
    finally:
        page.close()


def test_while_the_models_load_a_client_is_told_to_come_back(rag: JargonRAG) -> None:
    release = threading.Event()

    def load_slowly(say: Callable[[str], None]) -> JargonRAG:
        say("Reading weights")
        release.wait(60)
        return rag

    port = free_port()
    page = launch(load_slowly, port=port, say=lambda _: None, wait=False)
    try:
        status, answer, headers = post(port, json.dumps({"model": "jargon-rag", "messages": QUESTION}).encode())
        assert status == 503
        assert headers["retry-after"] == str(RETRY_SECONDS)
        assert "Reading weights" in answer["error"]["message"]
        release.set()
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=20) as patient:
            assert patient.chat.completions.create(model="jargon-rag", messages=QUESTION).choices
    finally:
        release.set()
        page.close()


def test_one_address_asks_so_often_in_a_minute_and_is_told_when_it_may_again(rag: JargonRAG) -> None:
    port = free_port()
    page = launch(lambda _: rag, host="127.0.0.1", port=port, per_minute=2, wait=False)
    record = {"model": "jargon-rag-plain", "messages": [{"role": "user", "content": "Which pizza is best?"}]}
    try:
        wait_until(lambda: status_of(port, record) == 200, seconds=LOAD_SECONDS)
        assert status_of(port, record) == 200
        status, body, headers = post(port, json.dumps(record).encode())
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert headers["retry-after"] in body["error"]["message"]
        with pytest.raises(AppError, match="more questions than one may ask"):
            Client(f"http://127.0.0.1:{port}", verbose=False).predict("Which pizza is best?", api_name="/ask")
    finally:
        page.close()


def test_each_client_has_its_own_rate_and_none_is_the_default() -> None:
    line = WaitingLine(per_minute=1)
    line.admit("a")
    line.admit("b")
    with pytest.raises(TooManyQuestions, match="Ask again in"):
        line.admit("a")
    for _ in range(100):
        WaitingLine().admit("a")


def has_length(line: WaitingLine, length: int) -> bool:
    return len(line) == length


def test_a_line_is_first_come_first_served_and_survives_those_who_leave() -> None:
    line = WaitingLine()
    order: list[int] = []
    places = [line.join() for _ in range(3)]
    assert [place.done() for place in places] == [True, False, False]
    line.leave(places[1])  # in the middle
    assert not places[2].done()
    line.leave(places[0])
    assert places[2].done()

    def stand(number: int) -> None:
        with line.turn():
            order.append(number)

    with ThreadPoolExecutor() as pool:
        done = []
        for number in range(5):
            done.append(pool.submit(stand, number))
            wait_until(partial(has_length, line, number + 2), seconds=10)
        assert order == []
        line.leave(places[2])
        for future in done:
            future.result(timeout=10)
    assert order == [0, 1, 2, 3, 4]
    assert len(line) == 0


def test_several_are_answered_side_by_side() -> None:
    line = WaitingLine(at_once=2)
    assert line.before_the_next == 0
    places = [line.join() for _ in range(4)]
    assert [place.done() for place in places] == [True, True, False, False]
    assert line.before_the_next == 3
    line.leave(places[0])
    assert [place.done() for place in places[1:]] == [True, True, False]
    line.leave(places[3])
    line.leave(places[1])
    assert line.before_the_next == 0


def test_a_place_given_up_before_its_turn_is_passed_on() -> None:
    line = WaitingLine()
    first, gone, last = line.join(), line.join(), line.join()
    gone.cancel()
    line.leave(first)
    assert not last.done()
    line.leave(gone)
    assert last.done()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_stops_the_model_in_the_middle_of_a_sentence(
    gated: tuple[str, Gated], stream: bool
) -> None:
    url, model = gated
    port = int(url.rstrip("/").rpartition(":")[2])
    record = {"model": "jargon-rag", "messages": QUESTION, "stream": stream}
    wait_until(lambda: status_of(port, {**record, "stream": False}) == 200, seconds=LOAD_SECONDS)
    model.gate.clear()
    model.started.clear()
    connection = open_request(port, record)
    assert model.started.wait(LOAD_SECONDS)
    connection.close()
    assert model.closed.wait(LOAD_SECONDS)  # the gate is shut: nothing else ends it
