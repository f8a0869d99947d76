"""OpenAI's chat completions, so that existing chat clients can ask: POST /v1/chat/completions and GET /v1/models.

`openapi.json`, served beside them, says what goes in and out.

An answer's text is the dialogue with its markers, code and the numbered sources; what clients of ours want to read as
data (`citations`, `refused`, `suggestions`) comes beside it. Sampling options are accepted and change nothing: an
answer is what the glossary says. A system message is not obeyed, for the same reason.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from jargon_rag.conversation import check_history
from jargon_rag.errors import InputError, JargonRAGError, TooManyQuestions
from jargon_rag.rag import Event, JargonRAG, check_question
from jargon_rag.records import answer_record
from jargon_rag.types import Answer, Message, Sentence, Style, format_dialogue
from jargon_rag.waiting import WaitingLine

OPENAPI = Path(__file__).with_name("openapi.json")
MODELS: dict[str, Style] = {"jargon-rag": "rick", "jargon-rag-plain": "plain"}
MAX_BODY_BYTES = 1_000_000
MAX_WAITING = 16  # in the line; a client that would stand behind them is told to come back
RETRY_SECONDS = 5  # about one answer on a busy machine
HANG_UP_SECONDS = 0.05  # how often a waiting client is looked after


class Loading(Protocol):
    """The bot, which may still be loading."""

    note: str

    @property
    def done(self) -> bool:
        """Tell whether loading ended, well or badly."""

    @property
    def failed(self) -> bool:
        """Tell whether it ended badly; `note` says why."""

    def get(self) -> JargonRAG:
        """Return the bot."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for."""

    question: str
    history: list[Message]
    model: str
    stream: bool
    usage: bool  # a last chunk with the token counts, when streaming


class _RequestError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, *, code: str, retry: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.retry = status, code, retry  # retry: after so many seconds, 0 for never


def routes(loader: Loading, line: WaitingLine) -> list[BaseRoute]:
    """Return the routes; their answers stand in `line` with everybody else's."""

    async def models(_request: Request) -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "jargon-rag"} for name in MODELS]
        return JSONResponse({"object": "list", "data": listed})

    async def chat_completions(request: Request) -> Response:
        try:
            asked, rag = _read(await _body(request)), _ready(loader)
            line.admit(request.client.host if request.client else "")
            events = _events(rag, line, asked)
            before = await anext(events)  # raises when the line is full
            assert isinstance(before, int), "their number comes first"
            head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
            if asked.stream:
                chunks = _chunks(events, asked, head, before=before)
                return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
            answer = await _unless_gone(request, _last(events))
            return Response(status_code=499) if answer is None else JSONResponse(_completion(answer, head))
        except TooManyQuestions as error:
            return _error_response(_RequestError(429, str(error), code="rate_limit_exceeded", retry=error.seconds))
        except InputError as error:
            return _error_response(_RequestError(400, str(error), code="invalid_request_error"))
        except JargonRAGError as error:
            return _error_response(_RequestError(500, str(error), code="server_error"))
        except _RequestError as error:
            return _error_response(error)

    async def openapi(_request: Request) -> Response:
        return JSONResponse(json.loads(OPENAPI.read_text("utf-8")))

    return [
        Route("/v1/openapi.json", openapi, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    ]


# Reading a request


async def _body(request: Request) -> object:
    """Return a request's JSON, which is read here and not by FastAPI: its size is bounded, and errors have OpenAI's form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # a page on another host can send plain text here without asking first, but no JSON
        raise _RequestError(400, "Send JSON, with the header Content-Type: application/json.", code="not_json")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise _RequestError(413, f"A request has at most {MAX_BODY_BYTES:,} bytes.", code="request_too_large")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _RequestError(400, f"The body is not JSON: {error}.", code="not_json") from error


def _read(body: object) -> _Asked:
    """Return what a request's JSON asks for; raises InputError that says what it should hold."""
    if not isinstance(body, dict):
        raise InputError("The body is a JSON object with model and messages.")
    model, messages, options = body.get("model"), body.get("messages"), body.get("stream_options") or {}
    if not isinstance(model, str) or model not in MODELS:
        raise _RequestError(404, f"No such model; there are: {', '.join(MODELS)}.", code="model_not_found")
    if not isinstance(messages, list) or not messages or not isinstance(options, dict):
        raise InputError('messages is a list such as [{"role": "user", "content": "What is dropout?"}].')
    if body.get("n") not in (None, 1):
        raise InputError("n is 1: a question has one answer here.")
    said = [_message(message) for message in messages]
    told = [message for message in said if message["role"] not in ("system", "developer")]
    if not told or told[-1]["role"] != "user":
        raise InputError("The last message is the question; its role is user.")
    return _Asked(
        question=check_question(told[-1]["content"]),
        history=check_history(told[:-1]),
        model=model,
        stream=body.get("stream") is True,
        usage=options.get("include_usage") is True,
    )


def _message(message: object) -> Message:
    """Return a message with its text parts joined."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InputError("A message is an object with role and content.")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) < len(content) or not all(isinstance(part, str) for part in parts):
            raise InputError("Only parts of the type text can be read.")
        content = "\n".join(map(str, parts))
    return {"role": message["role"], "content": content if isinstance(content, str) else ""}


def _ready(loader: Loading) -> JargonRAG:
    if loader.failed:
        raise _RequestError(503, loader.note, code="not_loaded")
    if not loader.done:
        raise _RequestError(503, f"The models are still loading: {loader.note}", code="loading", retry=RETRY_SECONDS)
    return loader.get()


# Answering


async def _events(rag: JargonRAG, line: WaitingLine, asked: _Asked) -> AsyncGenerator[int | Event, None]:
    """Yield how many are before one in the line, then, when its turn has come, the events of the answer.

    Closing or cancelling it leaves the line and stops the model at its next token.
    """
    if len(line) > MAX_WAITING:
        raise _RequestError(
            503,
            f"Busy: {len(line)} are asking, and you would be number {len(line) + 1}.",
            code="busy",
            retry=RETRY_SECONDS,
        )
    before, place, stop = line.before_the_next, line.join(), threading.Event()
    try:
        yield before
        await asyncio.wrap_future(place)
        style = MODELS[asked.model]
        with closing(rag.stream(asked.question, history=asked.history, style=style, stop=stop)) as events:
            while (event := await _next(events, stop)) is not None:
                yield event
    finally:
        line.leave(place)


async def _next(events: Generator[Event, None, None], stop: threading.Event) -> Event | None:
    """Return the next event, None after the last one; when cancelled, stop the model and wait for it to let go."""
    work = asyncio.ensure_future(asyncio.to_thread(next, events, None))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        with anyio.CancelScope(shield=True):  # a generator at work cannot be closed
            await asyncio.wait({work})
        raise


async def _last(events: AsyncGenerator[int | Event, None]) -> Answer:
    """Return the answer that the events end with."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Answer):
                return event
    raise AssertionError("a stream ends with its answer")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Return what the work gives; None, and stop it, when the client hangs up before."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=HANG_UP_SECONDS)
            if await request.is_disconnected():
                return None
        return task.result()
    finally:
        task.cancel()


def _completion(answer: Answer, head: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": str(answer), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer), **_extra(answer)}


async def _chunks(
    events: AsyncGenerator[int | Event, None], asked: _Asked, head: dict[str, Any], *, before: int
) -> AsyncGenerator[str, None]:
    """Yield an answer as server-sent events, a sentence at a time as it passes its check."""

    def chunk(*choices: dict[str, Any], **more: Any) -> str:
        return _sse({**head, "object": "chat.completion.chunk", "choices": choices, **more})

    sentences: list[Sentence] = []
    shown = ""
    async with aclosing(events):
        if before:
            yield f": {before} before you\n\n"  # a comment, which clients skip
        yield chunk(_delta({"role": "assistant", "content": ""}))
        try:
            async for event in events:
                if isinstance(event, Sentence):
                    sentences.append(event)
                    text = format_dialogue(sentences)
                elif isinstance(event, Answer):
                    text = str(event)
                else:
                    continue
                yield chunk(_delta({"content": text[len(shown) :]}))
                shown = text
                if isinstance(event, Answer):
                    yield chunk(_delta({}, finish_reason="stop"), **_extra(event))
                    if asked.usage:
                        yield chunk(usage=_usage(event))
        except JargonRAGError as error:
            yield _sse(_error(str(error), "server_error"))
    yield "data: [DONE]\n\n"


def _delta(delta: dict[str, str], *, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _usage(answer: Answer) -> dict[str, int]:
    """Return the tokens that the model read and wrote; none where it was not asked."""
    read, written = answer.timings.prompt_tokens, answer.timings.answer_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _extra(answer: Answer) -> dict[str, Any]:
    record = answer_record(answer)
    return {name: record[name] for name in ("citations", "refused", "suggestions")}


def _error(message: str, code: str) -> dict[str, Any]:
    kind = "server_error" if code in ("server_error", "busy", "loading", "not_loaded") else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error_response(error: _RequestError) -> Response:
    headers = {"Retry-After": str(error.retry)} if error.retry else {}
    return JSONResponse(_error(str(error), error.code), status_code=error.status, headers=headers)
