"""A language model on another machine, by the protocol that vLLM, SGLang, TGI and llama-server share: OpenAI's chat completions, streamed.

A server may be down, busy, slow or broken; whatever it does, a stream of it ends within its time limit, with text or
with an EngineError. Only the address that was given is spoken to: no redirect is followed, no proxy is looked up.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx

from jargon_rag.errors import EngineError, InputError
from jargon_rag.prompt import with_form
from jargon_rag.types import AnswerForm, Message, TextPiece

ATTEMPTS = 3  # as long as no text has come
PAUSE, MAX_PAUSE = 0.5, 5.0  # seconds before the second attempt, doubled for the third; the server may ask for more
BUSY = frozenset({429, 500, 502, 503, 504})  # statuses that another attempt may change
MAX_LINE = 1_000_000  # bytes
MAX_TOLD = 200  # characters of a server's own message


class RemoteGenerator:
    """A model behind an OpenAI-compatible server. Streams of several threads run side by side."""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        total_timeout: float = 120.0,
    ) -> None:
        """Take the server's address, up to and with its `/v1`; it is first spoken to by `stream`.

        api_key: sent as a bearer token, named in no message. Timeouts in seconds: for a connection, for the next piece
        of text (the first waits for the whole prompt to be read), and for a whole answer.
        Raises InputError when the address or the key cannot be used.
        """
        self._url = _checked_url(base_url)
        self._id = model
        self._key = _checked_key(api_key)
        self._timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
        self._total_timeout = total_timeout
        self._tls = httpx.create_ssl_context(trust_env=False)  # made once: it takes longer than a connection
        self._tls.load_default_certs()  # beside the public authorities those of the system: a server of one's own has its own

    @property
    def id(self) -> str:
        """Return the model's name at its server."""
        return self._id

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Yield pieces of text as they arrive; the model is told of `form`, not held to it. Closing the iterator closes the connection.

        Token counts are the server's where it tells them, which is at the end; until then pieces are counted.
        Raises EngineError, which says what to do, at whatever goes wrong; what was yielded before stays valid.
        """
        body = {
            "model": self._id,
            "messages": with_form(messages, form) if form is not None else list(messages),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        deadline = time.monotonic() + self._total_timeout
        begun = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with closing(self._pieces(body, deadline)) as pieces:
                    for piece in pieces:
                        begun = True
                        yield piece
                return
            except (_StatusError, httpx.HTTPError) as error:
                pause = max(PAUSE * 2 ** (attempt - 1), error.wait if isinstance(error, _StatusError) else 0.0)
                final = begun or attempt == ATTEMPTS or not _may_pass(error)
                if final or pause > MAX_PAUSE or time.monotonic() + pause >= deadline:
                    raise EngineError(self._told(error, late=time.monotonic() >= deadline)) from error
            time.sleep(pause)

    def _pieces(self, body: dict[str, Any], deadline: float) -> Generator[TextPiece, None, None]:
        """Yield the pieces of one attempt; raises _StatusError, httpx.HTTPError or, for what is no stream of text, EngineError."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        prompt_tokens = made = 0
        complete = False
        with (
            _cut_off(deadline) as trace,
            httpx.Client(verify=self._tls, timeout=self._timeout, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", f"{self._url}/chat/completions", json=body, headers=headers, extensions={"trace": trace}
            ) as response,
        ):
            if response.status_code != 200:
                raise _StatusError(response, self._key)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                raise EngineError(
                    f"{self._url} answers with {_printable(kind) or 'no content type'}, not a stream of text: "
                    "it is no OpenAI-compatible server. Check --base-url."
                )
            for data in _events(response):
                if data == b"[DONE]":
                    return
                text, usage, ended = self._read(data)
                complete = complete or ended
                made += bool(text)
                if usage:
                    prompt_tokens, made = usage
                if text or usage:
                    yield TextPiece(text, prompt_tokens, made)
                if made > body["max_tokens"]:  # it does not keep to what was asked
                    return
        if not complete:
            raise httpx.RemoteProtocolError("it closed the connection before the end")

    def _read(self, data: bytes) -> tuple[str, tuple[int, int] | None, bool]:
        """Return the text of one event, (prompt tokens, answer tokens) if it tells them, and whether the text is complete."""
        try:
            event = json.loads(data)
            if event.get("error"):
                raise EngineError(
                    f"The server at {self._url} broke off: {_message(event, self._key)}. Look at its log."
                )
            choice = event["choices"][0] if event["choices"] else {}
            text = (choice.get("delta") or {}).get("content") or ""
            usage = event.get("usage")
            counts = (int(usage["prompt_tokens"]), int(usage["completion_tokens"])) if usage else None
            return text.encode("utf-8", "replace").decode(), counts, bool(choice.get("finish_reason"))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"The server at {self._url} sends what no OpenAI-compatible server does. Check --base-url and its log."
            ) from error

    def _told(self, error: _StatusError | httpx.HTTPError, *, late: bool) -> str:
        """Return what went wrong and what to do."""
        where = f"The language model's server at {self._url}"
        if late:
            return f"{where} did not finish within {self._total_timeout:g} s. Try again, or use a faster one."
        if isinstance(error, httpx.ReadTimeout):
            return f"{where} sent nothing for {self._timeout.read:g} s. Look at its log and its load, then try again."
        if not isinstance(error, _StatusError):
            why = _printable(str(error)) or type(error).__name__
            return f"{where} cannot be reached, or broke off: {why}. Start it, or give another --base-url."
        said = f"{where} answers {error.status}" + (f" ({error.said})." if error.said else ".")
        if error.status in (401, 403):
            return f"{said} Set JARGON_RAG_API_KEY to a key that it takes."
        if error.status == 404:
            return f"{said} Check --base-url, which ends in /v1 at most servers, and --model; {self._url}/models lists its models."
        if 300 <= error.status < 400:
            return f"{said} Redirects are not followed: give its final address as --base-url."
        if error.status in BUSY:
            return f"{said} It is busy or broken: try again, or look at its log."
        return f"{said} Check --model and what the server takes."


class _StatusError(Exception):
    """An answer with another status than 200."""

    def __init__(self, response: httpx.Response, key: str) -> None:
        super().__init__(f"status {response.status_code}")
        self.status = response.status_code
        self.wait = _seconds(response.headers.get("retry-after", ""))
        self.said = ""
        with suppress(httpx.HTTPError, ValueError, RecursionError):
            self.said = _message(json.loads(next(response.iter_raw(4096), b"")), key)


@contextmanager
def _cut_off(deadline: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shut a connection down at the deadline, whoever waits for it; yields the function that takes httpx's trace events.

    Read timeouts do not bound a whole answer: a server that sends a byte now and then keeps within them for ever.
    """
    streams: list[Any] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            streams.append(info["return_value"])

    def shut() -> None:
        for stream in streams[-1:]:
            with suppress(OSError):  # it is closed already
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), shut)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()


def _events(response: httpx.Response) -> Iterator[bytes]:
    """Yield the data of each server-sent event. Lines end at a line feed alone: texts may hold Unicode's other line ends."""
    unread = b""
    for received in response.iter_raw():
        *lines, unread = (unread + received).split(b"\n")
        if len(unread) > MAX_LINE:
            raise httpx.RemoteProtocolError("it sends a line without an end")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _may_pass(error: _StatusError | httpx.HTTPError) -> bool:
    """Tell whether another attempt may go better; one that waited for its answer in vain would only wait again."""
    return error.status in BUSY if isinstance(error, _StatusError) else not isinstance(error, httpx.ReadTimeout)


def _message(body: Any, key: str) -> str:
    """Return a server's own words about an error, short, printable and without the key."""
    error = body.get("error", body) if isinstance(body, dict) else body
    said = error.get("message", "") if isinstance(error, dict) else error
    return _printable(str(said).replace(key, "…") if key else str(said))


def _printable(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:MAX_TOLD].rstrip(".")


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _checked_url(base_url: str) -> str:
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise InputError(f"The server's address is no URL: {error}. Give one like http://localhost:8000/v1") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise InputError(
            "The server's address is http:// or https://, a host, a port and a path, like http://localhost:8000/v1; "
            "the key goes into the environment variable JARGON_RAG_API_KEY."
        )
    return str(url).rstrip("/")


def _checked_key(api_key: str | None) -> str:
    key = (api_key or "").strip()
    if not all("!" <= char <= "~" for char in key):  # an HTTP library would quote it in its error
        raise InputError(
            "The server's key holds spaces or characters that a key cannot have. Set JARGON_RAG_API_KEY again."
        )
    return key
