"""Each target of `make fuzz`, shortly and always with the same inputs; and batches at their limits."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from jargon_rag.api import OPENAPI
from jargon_rag.errors import InputError
from jargon_rag.rag import JargonRAG
from jargon_rag.records import MAX_LINE_BYTES, read_lines, read_row
from jargon_rag.ui.page import launch
from tests.conftest import free_port
from tests.fuzz_targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_gives_a_result_or_a_named_error(name: str) -> None:
    strategy, function = TARGETS[name]
    settings(max_examples=60, deadline=None, database=None, derandomize=True)(given(strategy)(function))()


SCHEMA = schemathesis.openapi.from_path(OPENAPI)


@contextmanager
def serving(rag: JargonRAG) -> Iterator[str]:
    """Put the API's routes behind a real server, without a rate, on the real bot."""
    port = free_port()
    page = launch(lambda _: rag, host="127.0.0.1", port=port, wait=False)
    question = {"model": "jargon-rag", "messages": [{"role": "user", "content": "Which pizza is best?"}]}
    while httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=question, timeout=60).status_code == 503:
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture(scope="module")
def server(rag: JargonRAG) -> Iterator[str]:
    with serving(rag) as url:
        yield url


def check_call(case: schemathesis.Case[Any], url: str) -> None:
    """Fail on a crash, and on a status, header or body that `openapi.json` does not have."""
    # a schema cannot say that the last message is a question
    case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance])


@SCHEMA.parametrize()
@settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_the_api_does_what_its_schema_says_whatever_it_is_sent(case: schemathesis.Case[Any], server: str) -> None:
    check_call(case, server)


def test_a_line_that_is_too_long_costs_itself_only() -> None:
    long = b'{"question": "' + b"x" * 3 * MAX_LINE_BYTES + b'"}'
    stream = io.BytesIO(b'{"a": 1}\n' + long + b'\n\n \n{"b": 2}\n' + long)
    lines = list(read_lines(stream))
    assert [len(line) <= MAX_LINE_BYTES + 1 for line in lines] == [True] * 4
    assert [read_row(line) for line in lines[::2]] == [{"a": 1}, {"b": 2}]
    for line in lines[1::2]:
        with pytest.raises(InputError, match="1,000,000"):
            read_row(line)


def test_a_line_of_just_the_limit_is_read() -> None:
    line = b'{"a": "' + b"x" * (MAX_LINE_BYTES - 10) + b'"}\n'
    assert len(line) == MAX_LINE_BYTES
    assert [read_row(found) for found in read_lines(io.BytesIO(line + line))] == 2 * [
        {"a": "x" * (MAX_LINE_BYTES - 10)}
    ]
