"""Each target of `make fuzz`, shortly and always with the same inputs; and batches at their limits."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings

from jargon_rag.errors import InputError
from jargon_rag.records import MAX_LINE_BYTES, read_lines, read_row
from tests.fuzz_targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_gives_a_result_or_a_named_error(name: str) -> None:
    strategy, function = TARGETS[name]
    settings(max_examples=60, deadline=None, database=None, derandomize=True)(given(strategy)(function))()


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
