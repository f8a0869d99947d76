"""What must hold for any input: a strategy and a function that fails where it does not. `test_fuzz.py` runs each shortly, `make fuzz` long."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from jargon_rag.chunking import chunk_glossary
from jargon_rag.conversation import MAX_HISTORY, MAX_TURN_CHARS, check_history
from jargon_rag.errors import GlossaryError, IndexFileError, InputError
from jargon_rag.glossary import corpus_hash, read_glossary, read_questions
from jargon_rag.index import load_index, save_index
from jargon_rag.lint import lint_glossary
from jargon_rag.models import is_intact
from jargon_rag.rag import MAX_QUESTION_CHARS, check_question
from jargon_rag.records import MAX_LINE_BYTES, read_lines, read_row
from tests.test_glossary import ANYTHING
from tests.test_index import axes_index, file_of, same

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
JSON_PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b'"question"',
    b'"history"',
    b"null",
    b"1e999",
    b"-",
    b"\\ud800",
    b"\xff",
]
SOME_BYTES = st.lists(st.sampled_from([*JSON_PIECES, b"[" * 5000]) | st.binary(max_size=8), max_size=30).map(b"".join)
MANIFEST_KEYS = (
    "", "format", "corpus_hash", "embedder", "dimension", "metric", "entries", "chunks", "files", "files.entries",
    "files.chunks", "files.vectors",
)  # fmt: skip
ROLES = st.sampled_from(["entries", "chunks", "vectors"])


def markdown(text: str) -> None:
    """Any text is read as a glossary, or refused by name; each chunk of it has a text."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.md"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            lint_glossary(file)
            entries = read_glossary(file)
        except GlossaryError as error:
            assert str(file) in str(error)
            return
        assert all(chunk.text.strip() and chunk.passage for chunk in chunk_glossary(entries, []))


def questions(lines: list[bytes]) -> None:
    """Any questions beside a glossary are read, or refused by file and line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "questions").mkdir()
        (folder / "a.md").write_text("## A\n\nA is a letter.\n")
        file = folder / "questions" / "q.jsonl"
        file.write_bytes(b"\n".join(lines))
        try:
            read_questions(folder, read_glossary(folder))
            assert corpus_hash(folder)
        except GlossaryError as error:
            assert str(file) in str(error)


def batch(data: bytes) -> None:
    """Every line of a batch that is not blank yields an object or a named error, in order."""
    lines = list(read_lines(io.BytesIO(data)))
    assert len(lines) == sum(bool(line[: MAX_LINE_BYTES + 1].strip()) for line in io.BytesIO(data))
    for line in lines:
        try:
            assert isinstance(read_row(line), dict)
        except InputError as error:
            assert str(error)


def history(value: Any) -> None:
    """Any history is made into a few short messages, or refused."""
    try:
        messages = check_history(value)
    except InputError as error:
        assert str(error)
        return
    assert len(messages) <= MAX_HISTORY
    assert all(len(message["content"]) <= MAX_TURN_CHARS for message in messages)


def question(value: Any) -> None:
    """Any question is one printable line within the limit, or refused."""
    try:
        asked = check_question(value)
    except InputError as error:
        assert str(error)
        return
    assert 0 < len(asked) <= MAX_QUESTION_CHARS
    assert asked == " ".join(asked.split())
    asked.encode()


def index_bytes(change: tuple[str, bytes, bool]) -> None:
    """Other bytes in place of a file of an index are refused, also where the manifest has their hash."""
    role, data, refitted = change
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_index(axes_index(), folder)
        file_of(folder, role).write_bytes(data)
        _load(folder, role if refitted else "", data)


def index_change(change: tuple[str, list[tuple[int, int]]]) -> None:
    """Changed bytes of a file of an index, with their hash in the manifest, are refused or are a whole index."""
    role, edits = change
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_index(axes_index(), folder)
        data = bytearray(file_of(folder, role).read_bytes())
        for place, value in edits:
            data[place % len(data)] = value
        file_of(folder, role).write_bytes(data)
        _load(folder, role, bytes(data))


def manifest(change: tuple[str, Any]) -> None:
    """A manifest with another value, or another value in place of it, is refused or gives the same index."""
    key, value = change
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_index(axes_index(), folder)
        file = folder / "manifest.json"
        whole = json.loads(file.read_text())
        inner = whole["files"].get(key.removeprefix("files."))
        if inner is not None:
            whole["files"][key.removeprefix("files.")] = value
        elif key:
            whole[key] = value
        file.write_text(json.dumps(whole if key else value))
        try:
            loaded = load_index(folder)
        except IndexFileError as error:
            assert str(folder) in str(error)
        else:
            assert loaded.entries == axes_index().entries
            assert loaded.chunks == axes_index().chunks


def stamp(data: bytes) -> None:
    """Any checksums of converted weights are judged, and none but true ones are trusted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checksums.json").write_bytes(data)
        (folder / "model.safetensors").write_bytes(b"weights")
        assert not is_intact(folder)


def _load(folder: Path, role: str, data: bytes) -> None:
    if role:
        file = folder / "manifest.json"
        whole = json.loads(file.read_text())
        whole["files"][role]["sha256"] = hashlib.sha256(data).hexdigest()
        file.write_text(json.dumps(whole))
    try:
        loaded = load_index(folder)
    except IndexFileError as error:
        assert str(folder) in str(error)
        return
    if not role:
        assert same(loaded, axes_index())
    assert len(loaded.chunks) == len(loaded.vectors)


TARGETS: dict[str, tuple[SearchStrategy[Any], Callable[[Any], None]]] = {
    "markdown": (ANYTHING | st.text(max_size=200), markdown),
    "questions": (st.lists(SOME_BYTES | ANY_JSON.map(lambda value: json.dumps(value).encode()), max_size=4), questions),
    "batch": (SOME_BYTES | st.lists(ANY_JSON.map(json.dumps)).map(lambda rows: "\n".join(rows).encode()), batch),
    "history": (
        ANY_JSON
        | st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "x"]), "content": st.text() | ANY_JSON}
            ),
            max_size=60,
        ),
        history,
    ),
    "question": (st.text() | ANY_JSON | st.text().map(lambda text: text * 100), question),
    "index bytes": (st.tuples(ROLES, SOME_BYTES | st.binary(max_size=300), st.booleans()), index_bytes),
    "index change": (
        st.tuples(ROLES, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6)),
        index_change,
    ),
    "manifest": (
        st.tuples(
            st.sampled_from(MANIFEST_KEYS),
            ANY_JSON,
        ),
        manifest,
    ),
    "stamp": (SOME_BYTES | ANY_JSON.map(lambda value: json.dumps(value).encode()), stamp),
}
