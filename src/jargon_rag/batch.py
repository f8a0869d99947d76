"""The command line's --batch: JSON Lines in, JSON Lines out, in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import typer

from jargon_rag.errors import InputError, JargonRAGError


def check_one_of(argument: str | None, batch: str | None, name: str) -> None:
    """Raise BadParameter unless exactly one of an argument and --batch is given, before any model is loaded."""
    if (argument is None) == (batch is None):
        raise typer.BadParameter(f"give {name} or --batch FILE" + (", not both" if batch is not None else ""))
    if batch not in (None, "-") and not Path(str(batch)).exists():
        raise typer.BadParameter(f"no such file: {batch}")


def text_of(row: dict[str, Any], *names: str) -> list[str]:
    """Return the texts that a line must have; raises InputError that names what is missing."""
    texts = [row.get(name) for name in names]
    if not all(isinstance(text, str) for text in texts):
        wanted = " and ".join(f'"{name}"' for name in names)
        raise InputError(f"A line needs {wanted}, {'a text' if len(names) == 1 else 'each a text'}.")
    return [str(text) for text in texts]


def run_batch(batch: str, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Print one JSON object for each line of a file; a line that cannot be used yields {"error": ...} in its place."""
    from tqdm import tqdm

    from jargon_rag.records import read_lines, read_row

    with _open(batch) as stream:
        for line in tqdm(read_lines(stream), desc="questions", unit="", file=sys.stderr, disable=None):
            try:
                record = run(read_row(line))
            except JargonRAGError as error:
                record = {"error": str(error)}
            print_json(record)


def print_json(record: dict[str, Any]) -> None:
    """Print an object on one line of UTF-8; what has no UTF-8 is escaped."""
    text = json.dumps(record, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", errors="backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def _open(batch: str) -> Iterator[BinaryIO]:
    if batch == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(batch).open("rb")  # noqa: SIM115 (closed below; only opening may fail as bad usage)
        stream.peek(1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {batch}: {error.strerror}") from error
    with stream:
        yield stream
