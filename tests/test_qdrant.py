"""The shared index, in Qdrant's local mode: the same client and calls as for a server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from typer.testing import CliRunner

from jargon_rag.cli import app
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import IndexFileError, InputError, JargonRAGError
from jargon_rag.index import Index
from jargon_rag.indexing import index_corpus, open_index
from jargon_rag.qdrant import NAME, load_shared, save_shared
from jargon_rag.retriever import Retriever

FIRST = '## Roux\n\nFlour cooked in fat.\n\nMorty: "Why flour?"\nRick: "It thickens."\n\n```python\nprint(1)\n```\n\n## Stock\n\nBones simmered in water.\n'
SECOND = "## Roux\n\nFlour cooked in butter.\n"


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, embedder: SentenceTransformerEmbedder) -> tuple[Index, Index]:
    file = tmp_path_factory.mktemp("glossary") / "own.md"
    made = []
    for text in (FIRST, SECOND):
        file.write_text(text, "utf-8")
        made.append(index_corpus(file, embedder))
    return made[0], made[1]


def same(found: Index, meant: Index) -> bool:
    plain = [field.name for field in dataclasses.fields(Index) if field.name not in ("vectors", "_faiss")]
    return all(getattr(found, n) == getattr(meant, n) for n in plain) and np.array_equal(found.vectors, meant.vectors)


def collections(folder: Path) -> list[str]:
    client = QdrantClient(path=str(folder))
    names = [collection.name for collection in client.get_collections().collections]
    client.close()
    return names


def test_a_shared_index_is_read_as_it_was_written(
    indexes: tuple[Index, Index], tmp_path: Path, embedder: SentenceTransformerEmbedder
) -> None:
    save_shared(indexes[0], str(tmp_path))
    found = load_shared(str(tmp_path))
    assert same(found, indexes[0])
    asked = "What is made of bones?"
    results = [Retriever(index, embedder).retrieve(asked).results for index in (found, indexes[0])]
    assert results[0] == results[1]
    assert results[0][0].entry.term == "Stock"


def test_many_chunks_are_read_in_their_order(indexes: tuple[Index, Index], tmp_path: Path) -> None:
    first = indexes[0]
    chunks = tuple(dataclasses.replace(first.chunks[n % len(first.chunks)], line=n) for n in range(700))
    many = dataclasses.replace(first, chunks=chunks, vectors=np.repeat(first.vectors[:1], 700, axis=0))
    save_shared(many, str(tmp_path))
    assert [chunk.line for chunk in load_shared(str(tmp_path)).chunks] == list(range(700))


def test_a_new_version_takes_the_place_of_the_old_one(indexes: tuple[Index, Index], tmp_path: Path) -> None:
    for index in indexes:
        save_shared(index, str(tmp_path))
        assert same(load_shared(str(tmp_path)), index)
        assert len(collections(tmp_path)) == 1


@pytest.mark.parametrize("step", ["upsert", "scroll", "update_collection_aliases"])
def test_a_version_that_is_not_finished_is_never_read(
    indexes: tuple[Index, Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    save_shared(indexes[0], str(tmp_path))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(QdrantClient, step, fail)
        with pytest.raises(IndexFileError, match="the disk is full"):
            save_shared(indexes[1], str(tmp_path))
    assert same(load_shared(str(tmp_path)), indexes[0])


def test_a_process_that_died_while_writing_leaves_the_old_version(indexes: tuple[Index, Index], tmp_path: Path) -> None:
    save_shared(indexes[0], str(tmp_path))
    client = QdrantClient(path=str(tmp_path))
    client.create_collection(f"{NAME}-half", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.close()
    assert same(load_shared(str(tmp_path)), indexes[0])
    save_shared(indexes[1], str(tmp_path))
    assert same(load_shared(str(tmp_path)), indexes[1])


def test_a_damaged_shared_index_is_named(indexes: tuple[Index, Index], tmp_path: Path) -> None:
    save_shared(indexes[0], str(tmp_path))
    client = QdrantClient(path=str(tmp_path))
    client.delete(NAME, points_selector=[1])
    client.close()
    with pytest.raises(IndexFileError, match=r"damaged.*jargon-rag index"):
        load_shared(str(tmp_path))


def test_no_shared_index_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="--index-url"):
        load_shared(str(tmp_path))


def test_no_qdrant_is_an_error(indexes: tuple[Index, Index]) -> None:
    for call in (lambda: load_shared("http://127.0.0.1:9/x"), lambda: save_shared(indexes[0], "http://127.0.0.1:9")):
        with pytest.raises(IndexFileError, match="Check that Qdrant runs there"):
            call()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://user:secret@host:6333"])
def test_an_address_that_is_none_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(InputError, match="address is like") as raised:
        load_shared(url)
    assert "secret" not in str(raised.value)


def test_another_embedder_s_shared_index_is_refused(
    indexes: tuple[Index, Index], tmp_path: Path, embedder: SentenceTransformerEmbedder
) -> None:
    foreign = dataclasses.replace(indexes[0], embedder_id="other")
    with pytest.raises(JargonRAGError, match=r"embedder other.*--index-url"):
        open_index(corpus=None, index=foreign, embedder=embedder, cache_dir=tmp_path)


def test_the_command_line_fills_and_searches_a_shared_index(tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text(FIRST, "utf-8")
    where = ["--index-url", str(tmp_path / "shared"), "--cache-dir", str(tmp_path / "cache")]
    made = CliRunner().invoke(app, ["index", "--corpus", str(tmp_path / "own.md"), *where])
    assert made.exit_code == 0, made.output
    assert "2 entries" in made.stdout
    found = CliRunner().invoke(app, ["search", "roux", "--json", *where])
    assert found.exit_code == 0, found.output
    assert [row["term"] for row in json.loads(found.stdout)["results"]] == ["Roux", "Stock"]
    both = CliRunner().invoke(app, ["search", "roux", *where, "--corpus", str(tmp_path / "own.md")])
    assert both.exit_code == 1
    assert "leave out --corpus" in both.stderr
