"""The remote engine: llama.cpp's own server in a process of its own, and servers that misbehave in every way we know."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from jargon_rag import RemoteGenerator
from jargon_rag.cli import app
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import EngineError, InputError
from jargon_rag.models import LANGUAGE_MODEL, find_packaged
from jargon_rag.paths import default_cache_dir
from jargon_rag.prompt import build_messages, with_form
from jargon_rag.rag import JargonRAG
from jargon_rag.remote import ATTEMPTS
from jargon_rag.types import AnswerForm, Message, Sentence, TextPiece
from tests.test_rag import ASKED, assert_sound, claims, first_sentence, second_fact

KEY = "sk-secret-0123456789"
HELLO = [{"role": "user", "content": "Say hello."}]


# llama.cpp's server

LLAMA_SERVER = """
import os, sys, threading
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.verbosity = 4096, 2, 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()  # until the test closes it
os._exit(0)
"""


@pytest.fixture(scope="module")
def llama_server() -> Iterator[str]:
    """Base URL of llama.cpp's server with the default model's GGUF."""
    folder = find_packaged(LANGUAGE_MODEL, cache_dir=default_cache_dir())
    assert folder is not None, "jargon-rag pull"
    file = folder / LANGUAGE_MODEL.file
    command = [sys.executable, "-c", LLAMA_SERVER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            address = next(line for line in server.stdout if line.startswith(b"http"))
            yield f"{address.decode().strip()}/v1"
        finally:
            server.stdin.close()


def patient(base_url: str) -> RemoteGenerator:
    """A generator that waits as long as a busy machine takes."""
    return RemoteGenerator(base_url=base_url, model="smollm2", read_timeout=250, total_timeout=500)


def test_the_xllamacpp_package_is_installed() -> None:
    assert importlib.util.find_spec("xllamacpp"), "pip install 'jargon-rag[dev]'"


def test_a_real_server_s_text_and_token_counts_arrive(llama_server: str) -> None:
    pieces = list(patient(llama_server).stream(HELLO, max_new_tokens=8))
    wish = {"messages": HELLO, "max_tokens": 8, "temperature": 0}
    whole = httpx.post(f"{llama_server}/chat/completions", json=wish, timeout=250).json()
    assert "".join(piece.text for piece in pieces) == whole["choices"][0]["message"]["content"]
    usage = whole["usage"]
    assert (pieces[-1].prompt_tokens, pieces[-1].answer_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert len(pieces) > 2


def test_an_answer_by_a_real_server_is_sound(
    llama_server: str, shared_bot: JargonRAG, door: Door, corpus: Path
) -> None:
    door.behind = patient(llama_server)
    answer = shared_bot.ask(ASKED)
    assert_sound(answer, corpus)
    assert answer.timings.answer_tokens > 0
    assert answer.timings.first_token_ms > 0


def test_a_stream_closed_early_leaves_a_real_server_to_others(llama_server: str) -> None:
    generator = patient(llama_server)
    begun = [generator.stream(HELLO, max_new_tokens=2_000) for _ in range(3)]  # more than it serves at once
    for stream in begun:
        next(stream)
        stream.close()
    assert list(generator.stream(HELLO, max_new_tokens=2))


def test_the_command_line_asks_a_real_server(llama_server: str, corpus: Path) -> None:
    done = ask_cli("--engine", "openai", "--base-url", llama_server, "--model", "smollm2")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["citations"][0]["term"] == "Overfitting"


# Servers that misbehave: the first part of the path says how

Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands a request to the function that its path names."""

    server: Server

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        self.server.keys.append(self.headers.get("Authorization"))
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            globals()[self.path.split("/")[1]](self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    @property
    def prompt(self) -> str:
        return str(self.asked["messages"][-1]["content"])

    def begin(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def write(self, *texts: str, end: bool = False) -> None:
        for text in texts:
            self.send(f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode())
        if end:
            self.send(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')

    def fail(self, status: int, message: str = "", **headers: str) -> None:
        self.begin(status, "application/json", **headers)
        self.send(json.dumps({"error": {"message": message}}).encode())


class Server(ThreadingHTTPServer):
    """A server on a free port of this machine that remembers what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.keys: list[str | None] = []
        self.left = threading.Event()  # a reader hung up

    @property
    def port(self) -> int:
        return int(self.server_address[1])


def quoting(handler: Handler) -> None:
    handler.begin()
    handler.write("Morty: ", "Is it me?\n", f"Rick: {first_sentence(handler.prompt)}", " [1]", end=True)


def chatty(handler: Handler) -> None:
    """A larger model's habits: a preamble, bold names, quotation marks, a list, asides."""
    handler.begin()
    first, second = first_sentence(handler.prompt), second_fact(handler.prompt)
    handler.write(
        'Sure! Here is the dialogue:\n\n**Morty:** "Is it me?"\n\n',
        f'**Rick:** Listen, Morty. "{first}" [1, 1]\n',
        f"- {second} [1].\n\n**Morty:** It is the moon.\n",
        end=True,
    )


def paraphrasing(handler: Handler) -> None:
    handler.begin()
    handler.write(f"Rick: {first_sentence(handler.prompt)} [1] It is what happens when a model crams. [1]", end=True)


def dying_at_once(handler: Handler) -> None:
    handler.connection.close()


def dying(handler: Handler) -> None:
    handler.begin()
    handler.write(f"Rick: {first_sentence(handler.prompt)} [1] And ", "then")


def dying_in_an_event(handler: Handler) -> None:
    dying(handler)
    handler.send(b'data: {"choices": [{"del')


def garbled(handler: Handler) -> None:
    dying(handler)
    handler.send(b"data: <html>\xff\xfe</html>\n\n")


def of_another_shape(handler: Handler) -> None:
    dying(handler)
    handler.send(b'data: {"choices": [{"delta": {"content": 7}}]}\n\n')


def reporting(handler: Handler) -> None:
    dying(handler)
    handler.send(b'data: {"error": {"message": "CUDA out of memory"}}\n\n')


def stalling(handler: Handler) -> None:
    dying(handler)
    time.sleep(8)


def dripping(handler: Handler) -> None:
    dying(handler)
    while True:
        handler.send(b": still here\n\n")
        time.sleep(0.05)


def endless_line(handler: Handler) -> None:
    dying(handler)
    while True:
        handler.send(b"data: " + b"x" * 100_000)


def silent(handler: Handler) -> None:
    time.sleep(8)


def dripping_headers(handler: Handler) -> None:
    handler.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.send(b"X-Wait: 1\r\n")
        time.sleep(0.05)


def garbled_at_once(handler: Handler) -> None:
    handler.begin()
    handler.send(b"data: what?\n\n")


def empty(handler: Handler) -> None:
    handler.begin()


def no_http(handler: Handler) -> None:
    handler.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def web_page(handler: Handler) -> None:
    handler.begin(kind="text/html; charset=utf-8")
    handler.send(b"<h1>It works!</h1>")


def not_streaming(handler: Handler) -> None:
    handler.begin(kind="application/json")
    handler.send(b'{"choices": [{"message": {"content": "Hi."}}]}')


def broken(handler: Handler) -> None:
    handler.fail(500, "CUDA out of memory")


def busy_once(handler: Handler) -> None:
    halved(handler) if len(handler.server.requests) > 1 else handler.fail(503, Retry_After="1")


def busy_for_an_hour(handler: Handler) -> None:
    handler.fail(429, "slow down", Retry_After="3600")


def refusing(handler: Handler) -> None:
    handler.fail(401, f"Incorrect API key provided: {handler.headers.get('Authorization')}\x1b[31m")


def without_the_model(handler: Handler) -> None:
    handler.fail(404, "The model `m` does not exist.")


def redirecting(handler: Handler) -> None:
    handler.fail(307, Location=f"http://127.0.0.1:{handler.server.port}/quoting/chat/completions")


def halved(handler: Handler) -> None:
    """Half of a surrogate pair, a line separator and a byte of an escape sequence, as JSON may carry them."""
    handler.begin()
    text = json.dumps({"choices": [{"delta": {"content": "a\u2028b\ud83d\x1b[31m"}}]}, ensure_ascii=False)
    handler.send(b"data: " + text.encode("utf-8", "surrogatepass").replace(b"\xed\xa0\xbd", rb"\ud83d") + b"\r\n\r\n")
    handler.write(end=True)


def unending(handler: Handler) -> None:
    handler.begin()
    while True:
        handler.write("more ")
        time.sleep(0.01)


@contextmanager
def misbehaving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with misbehaving() as running:
        yield running


def remote(
    server: Server, how: Callable[[Handler], None], *, key: str | None = None, total: float = 60
) -> RemoteGenerator:
    return RemoteGenerator(
        base_url=f"http://127.0.0.1:{server.port}/{how.__name__}/",
        model="m",
        api_key=key,
        read_timeout=2,
        total_timeout=total,
    )


def read(generator: RemoteGenerator) -> list[TextPiece]:
    return list(generator.stream(HELLO, max_new_tokens=20))


class Door:
    """A language model that asks whichever server a test puts behind it, so that one bot serves all tests."""

    id = "door"
    behind: RemoteGenerator

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        return self.behind.stream(messages, max_new_tokens=max_new_tokens, form=form)


@pytest.fixture(scope="module")
def door() -> Door:
    return Door()


@pytest.fixture(scope="module")
def shared_bot(embedder: SentenceTransformerEmbedder, door: Door) -> JargonRAG:
    return JargonRAG(embedder=embedder, model=door)


BotMaker = Callable[..., JargonRAG]


@pytest.fixture
def bot(server: Server, shared_bot: JargonRAG, door: Door) -> BotMaker:
    def make(how: Reply, **options: Any) -> JargonRAG:
        door.behind = remote(server, how, **options)
        return shared_bot

    return make


def test_a_server_that_quotes_is_shown_as_the_author(bot: BotMaker, corpus: Path) -> None:
    answer = bot(quoting).ask(ASKED)
    assert_sound(answer, corpus)
    assert [s.speaker for s in answer.sentences][:3] == ["Morty", "Rick", "Rick"]
    assert answer.sentences[2].origin == "model"


@pytest.mark.parametrize("style", ["rick", "plain"])
def test_the_habits_of_larger_models_do_no_harm(bot: BotMaker, corpus: Path, style: Any) -> None:
    answer = bot(chatty).ask(ASKED, style=style)
    assert_sound(answer, corpus)
    assert [sentence.origin for sentence in claims(answer)] == ["model", "model"]
    assert not any(sign in answer.text for sign in ("Sure", "dialogue", "**", "- ", "moon", '"'))


def test_what_a_server_puts_in_its_own_words_is_replaced(bot: BotMaker, corpus: Path) -> None:
    answer = bot(paraphrasing).ask(ASKED)
    assert_sound(answer, corpus)
    assert [sentence.origin for sentence in claims(answer)] == ["model", "entry"]
    assert "crams" not in answer.text


@pytest.mark.parametrize(
    "how", [dying, dying_in_an_event, garbled, of_another_shape, reporting, stalling, dripping, endless_line]
)
def test_an_answer_that_breaks_off_is_finished_by_the_glossary(
    bot: BotMaker, how: Reply, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="jargon_rag"):
        answer = bot(how, total=5, key=KEY).ask(ASKED)
    assert_sound(answer, corpus)
    assert [sentence.origin for sentence in claims(answer)] == ["model", "entry"]
    (told,) = caplog.messages
    assert "127.0.0.1" in told
    assert KEY not in told


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (dying_at_once, "cannot be reached, or broke off"),
        (silent, "sent nothing for 2 s"),
        (dripping_headers, "did not finish within 4 s"),
        (garbled_at_once, "no OpenAI-compatible server"),
        (empty, "broke off"),
        (no_http, "broke off"),
        (web_page, "text/html"),
        (not_streaming, "application/json"),
        (broken, "500 (CUDA out of memory). It is busy or broken"),
        (busy_for_an_hour, "429 (slow down)"),
        (refusing, "JARGON_RAG_API_KEY"),
        (without_the_model, "--model"),
        (redirecting, "Redirects are not followed"),
    ],
)
def test_a_server_that_gives_no_text_is_an_error_that_says_what_to_do(
    bot: BotMaker, server: Server, how: Reply, told: str
) -> None:
    shown: list[object] = []
    with pytest.raises(EngineError) as raised:
        shown.extend(bot(how, total=4, key=KEY).stream(ASKED))
    assert told in str(raised.value)
    assert str(raised.value).isprintable()
    assert KEY not in str(raised.value)
    assert not any(
        isinstance(event, Sentence) and event.origin != "fixed" and event.speaker != "Morty" for event in shown
    )
    assert {path.split("/")[1] for path in server.requests} == {how.__name__}


def test_no_server_is_an_error_that_says_what_to_do() -> None:
    with misbehaving() as server:
        gone = remote(server, quoting)
    with pytest.raises(EngineError, match=r"cannot be reached.*Start it, or give another --base-url"):
        read(gone)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    assert read(remote(server, busy_once))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("how", "attempts"),
    [(broken, ATTEMPTS), (dying_at_once, ATTEMPTS), (refusing, 1), (silent, 1), (busy_for_an_hour, 1), (dying, 1)],
)
def test_attempts_are_bounded_and_end_with_the_first_text(server: Server, how: Reply, attempts: int) -> None:
    asked = {"messages": build_messages("Why?", [(1, "A", "A is b. It is c.")], style="plain")}
    with pytest.raises(EngineError):
        list(remote(server, how).stream(asked["messages"], max_new_tokens=20))
    assert len(server.requests) == attempts


def test_the_key_goes_to_the_server_and_nowhere_else(server: Server) -> None:
    generator = remote(server, halved, key=f" {KEY}\n")
    read(generator)
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in repr(generator)
    read(remote(server, halved))
    assert server.keys[1:] == [None]


@pytest.mark.parametrize("key", ["two words", "schlüssel", "line\nbreak", "\x00"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(InputError) as raised:
        RemoteGenerator(base_url="http://localhost/v1", model="m", api_key=key)
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "http://user:pass@host/v1",
        "http://[::1",
        "http://host/v1?key=x",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="address is"):
        RemoteGenerator(base_url=url, model="m")


def test_proxies_of_the_environment_are_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert read(remote(server, halved))


def test_text_that_cannot_be_written_out_is_made_so(server: Server) -> None:
    assert "".join(piece.text for piece in read(remote(server, halved))) == "a\u2028b?\x1b[31m"


def test_closing_a_stream_closes_the_connection(server: Server) -> None:
    with closing(remote(server, unending).stream(HELLO, max_new_tokens=1_000)) as stream:
        assert next(stream).text == "more "
    assert server.left.wait(60)


def test_a_server_that_does_not_stop_is_stopped(server: Server) -> None:
    assert len(read(remote(server, unending))) == 21


def test_streams_run_side_by_side(server: Server) -> None:
    generator = remote(server, unending)
    streams = [generator.stream(HELLO, max_new_tokens=1_000) for _ in range(3)]
    assert [next(stream).text for stream in streams] == ["more "] * 3
    for stream in streams:
        stream.close()


# What it is asked


def test_the_form_is_told_in_words(server: Server) -> None:
    form = AnswerForm("rick", ((1, "A", "A is b."), (2, "B", "B is c.")), asked="What now?", required=frozenset({1, 2}))
    messages = build_messages("A or B?", form.facts, style="rick")
    system, user = with_form(messages, form)
    assert user == messages[1]
    assert system["content"].startswith(messages[0]["content"])
    assert "Morty: What now?\nRick: " in system["content"]
    assert "[1], [2]" in system["content"]
    plain = with_form(messages, AnswerForm("plain", form.facts))
    assert "Rick" not in plain[0]["content"].removeprefix(messages[0]["content"])


# The command line


def ask_cli(*options: str) -> Any:
    return CliRunner().invoke(app, ["ask", ASKED, "--json", *options])


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("JARGON_RAG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_command_line_takes_the_key_from_the_environment(server: Server, no_keys: pytest.MonkeyPatch) -> None:
    options = ["--engine", "openai", "--base-url", f"http://127.0.0.1:{server.port}/quoting", "--model", "m"]
    no_keys.setenv("OPENAI_API_KEY", "general")
    assert json.loads(ask_cli(*options).stdout)["sentences"][2]["origin"] == "model"
    no_keys.setenv("JARGON_RAG_API_KEY", KEY)
    done = ask_cli(*options)
    assert KEY not in done.output
    assert server.keys == ["Bearer general", f"Bearer {KEY}"]


def test_the_command_line_tells_of_a_server_that_refuses(server: Server, no_keys: pytest.MonkeyPatch) -> None:
    no_keys.setenv("JARGON_RAG_API_KEY", KEY)
    done = ask_cli("--engine", "openai", "--base-url", f"http://127.0.0.1:{server.port}/refusing", "--model", "m")
    assert done.exit_code == 1
    assert "JARGON_RAG_API_KEY" in done.stderr
    assert KEY not in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "options",
    [
        ["--engine", "openai"],
        ["--engine", "openai", "--base-url", "http://localhost/v1"],
        ["--engine", "openai", "--model", "m"],
        ["--base-url", "http://localhost/v1"],
        ["--engine", "openai", "--base-url", "http://localhost/v1", "--model", "m", "--adapter", "none"],
        ["--engine", "elsewhere"],
    ],
)
def test_options_that_do_not_go_together_are_bad_usage(options: list[str]) -> None:
    assert ask_cli(*options).exit_code == 2


def test_the_page_answers_by_a_server(server: Server, no_keys: pytest.MonkeyPatch) -> None:
    from gradio_client import Client

    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
        port = taken.server_address[1]
    options = ["--port", str(port), "--engine", "openai", "--base-url", f"http://127.0.0.1:{server.port}/quoting"]
    command = [sys.executable, "-m", "jargon_rag", "serve", *options, "--model", "m"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "JARGON_RAG_API_KEY": KEY}) as serving:
        assert serving.stderr is not None
        try:
            assert any(b"jargon-rag is at" in line for line in serving.stderr)
            record = Client(f"http://127.0.0.1:{port}", verbose=False).predict(ASKED, api_name="/ask")
        finally:
            serving.terminate()
    assert record["sentences"][2]["origin"] == "model"
    assert server.keys[-1] == f"Bearer {KEY}"
