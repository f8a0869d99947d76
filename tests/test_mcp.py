"""A real MCP client lists and calls the tools of `serve --mcp`."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from jargon_rag.errors import InputError
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.page import launch
from tests.conftest import free_port

needs_mcp = pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason="the extra mcp is not installed")


@pytest.fixture(scope="module")
def url(rag: JargonRAG) -> Iterator[str]:
    port = free_port()
    page = launch(lambda _: rag, port=port, mcp=True, say=lambda _: None, wait=False)
    yield f"http://127.0.0.1:{port}/gradio_api/mcp/"
    page.close()


def in_session(url: str, use: Callable[[Any], Awaitable[Any]]) -> Any:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def go() -> Any:
        async with streamable_http_client(url) as (reading, writing, _), ClientSession(reading, writing) as session:
            await session.initialize()
            return await use(session)

    return asyncio.run(go())


@needs_mcp
def test_the_tools_are_ask_and_search_and_say_what_they_take(url: str) -> None:
    tools = {tool.name: tool for tool in in_session(url, lambda session: session.list_tools()).tools}
    assert set(tools) == {"ask", "search"}
    asked = tools["ask"].inputSchema["properties"]
    assert set(asked) == {"question", "history", "style"}
    assert all(parameter["description"] for parameter in asked.values())
    assert tools["ask"].inputSchema["required"] == ["question"]
    assert "cited" in tools["ask"].description
    assert set(tools["search"].inputSchema["properties"]) == {"question", "top_k"}


@needs_mcp
def test_an_assistant_can_ask_and_follow_up(url: str) -> None:
    told = [{"role": "user", "content": "What is an epoch?"}]
    arguments = {"question": "How many do I need?", "history": told, "style": "plain"}
    result = in_session(url, lambda session: session.call_tool("ask", arguments))
    assert not result.isError
    record = ast.literal_eval(result.content[0].text)
    assert {citation["term"] for citation in record["citations"]} == {"Epoch"}
    assert record["sentences"][0]["speaker"] is None


@needs_mcp
def test_an_assistant_can_search(url: str) -> None:
    arguments = {"question": "nucleus sampling", "top_k": 2}
    result = in_session(url, lambda session: session.call_tool("search", arguments))
    record = ast.literal_eval(result.content[0].text)
    assert [row["rank"] for row in record["results"]] == [1, 2]
    assert record["results"][0]["term"] == "Temperature / Top-p"


@needs_mcp
def test_a_question_that_cannot_be_used_is_an_error_that_says_why(url: str) -> None:
    result = in_session(url, lambda session: session.call_tool("ask", {"question": " "}))
    assert result.isError
    assert "question is empty" in result.content[0].text


def test_without_the_extra_the_command_to_install_it_is_told(rag: JargonRAG, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'jargon-rag\[mcp\]'"):
        launch(lambda _: rag, port=free_port(), mcp=True, say=lambda _: None, wait=False)
