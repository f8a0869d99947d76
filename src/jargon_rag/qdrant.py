"""An index that several machines share, kept in Qdrant: one writes it, each replica loads it whole at its start.

Each version is a collection of its own; an alias says which one counts, and is moved in one step when a version is
complete: a reader sees the old index or the new one, never a half. Words, letters and names need every chunk in memory,
so the search itself stays in the replica, and Qdrant is the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from jargon_rag.errors import IndexFileError, InputError
from jargon_rag.index import FORMAT, Index, entry_of, search_structure
from jargon_rag.types import Chunk

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

NAME = "jargon-rag"  # of the alias, where the address names none
BATCH = 256  # chunks in one request
TIMEOUT = 60  # seconds, of one request


def save_shared(index: Index, url: str, *, api_key: str | None = None) -> None:
    """Write an index as a new version and move the alias to it; the version that it replaces is removed.

    url: http(s)://host:port, perhaps with /NAME of the index; or a folder, for Qdrant's local mode in one process.
    Raises IndexFileError when the store cannot be reached or written; an index that was there before stays usable.
    """
    from qdrant_client import models

    with _opened(url, api_key) as (client, alias):
        previous = _version(client, alias)
        version = f"{alias}-{uuid.uuid4().hex[:12]}"
        client.create_collection(
            version,
            vectors_config=models.VectorParams(size=int(index.vectors.shape[1]), distance=models.Distance.DOT),
            hnsw_config=models.HnswConfigDiff(m=0),  # a graph that nobody searches
        )
        try:
            for start in range(0, len(index.chunks), BATCH):
                points = [models.PointStruct(**point) for point in _points(index, start, start + BATCH)]
                client.upsert(version, points, wait=True)
            _read(client, version)  # what was stored is what was meant
        except BaseException:
            client.delete_collection(version)
            raise
        moved: list[models.AliasOperations] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=version, alias_name=alias))
        ]
        if previous is not None:
            moved.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        client.update_collection_aliases(moved)
        if previous is not None:
            client.delete_collection(previous)


def load_shared(url: str, *, api_key: str | None = None) -> Index:
    """Return the version that the alias names, checked against the hash that it was written with.

    Raises IndexFileError when there is none, it is damaged, or the store cannot be reached.
    """
    with _opened(url, api_key) as (client, alias):
        version = _version(client, alias)
        if version is None:
            raise IndexFileError(
                f"No index at {url}. Make it with: jargon-rag index --corpus GLOSSARY --index-url {url}"
            )
        try:
            return _read(client, version)
        except Exception:
            if _version(client, alias) in (None, version):
                raise
    return load_shared(url, api_key=api_key)  # a new version took its place meanwhile


def _points(index: Index, start: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield chunks as points, numbered in their order; the first of an entry carries it, the very first the manifest."""
    first: dict[str, int] = {}
    for number, chunk in enumerate(index.chunks[:end]):
        first.setdefault(chunk.slug, number)
    carried = {first[entry.slug]: place for place, entry in enumerate(index.entries) if entry.slug in first}
    for number, chunk in enumerate(index.chunks[start:end], start=start):
        payload: dict[str, Any] = {"chunk": dataclasses.asdict(chunk)}
        if number in carried:
            payload |= {"place": carried[number], "entry": dataclasses.asdict(index.entries[carried[number]])}
        if number == 0:
            payload["manifest"] = {
                "format": FORMAT,
                "corpus_hash": index.corpus_hash,
                "embedder": index.embedder_id,
                "sha256": _digest(index),
            }
        yield {"id": number, "vector": index.vectors[number].tolist(), "payload": payload}


def _read(client: QdrantClient, version: str) -> Index:
    """Return the index in a collection; raises IndexFileError when it is not the one that was written."""
    chunks: list[Chunk] = []
    vectors: list[Any] = []
    entries: dict[int, dict[str, Any]] = {}
    manifest: dict[str, Any] = {}
    try:
        offset: Any = None
        while offset is not None or not chunks:
            points, offset = client.scroll(version, limit=BATCH, offset=offset, with_payload=True, with_vectors=True)
            for point in points:
                payload = point.payload or {}
                chunks.append(Chunk(**payload["chunk"]))
                vectors.append(point.vector)
                if "entry" in payload:
                    entries[payload["place"]] = payload["entry"]
                manifest = payload.get("manifest", manifest)
            if not points:
                break
        matrix = np.array(vectors, dtype=np.float32)
        index = Index(
            tuple(entry_of(entries[place]) for place in sorted(entries)),
            tuple(chunks),
            matrix,
            str(manifest["embedder"]),
            str(manifest["corpus_hash"]),
            search_structure(matrix),
        )
        if manifest["format"] != FORMAT or manifest["sha256"] != _digest(index):
            raise ValueError(f"format {manifest['format']}, or other contents than were written")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise IndexFileError(
            f"The shared index {version} is damaged: {error}. Write it again with: jargon-rag index"
        ) from error
    return index


def _digest(index: Index) -> str:
    """Return the SHA-256 of entries, chunks and vectors."""
    rows = [*map(dataclasses.asdict, index.entries), *map(dataclasses.asdict, index.chunks)]
    return hashlib.sha256(json.dumps(rows).encode() + np.ascontiguousarray(index.vectors).tobytes()).hexdigest()


def _version(client: QdrantClient, alias: str) -> str | None:
    """Return the collection that the alias names."""
    return next((a.collection_name for a in client.get_aliases().aliases if a.alias_name == alias), None)


@contextmanager
def _opened(url: str, api_key: str | None) -> Iterator[tuple[QdrantClient, str]]:
    """Yield a client for an address and the name of the alias there; turns its errors into ours."""
    try:
        from qdrant_client import QdrantClient
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException
    except ImportError as error:
        raise InputError("A shared index needs the Qdrant client: pip install 'jargon-rag[qdrant]'") from error
    try:
        if "://" in url:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise InputError(
                    "The shared index's address is like http://localhost:6333/NAME; its key goes into JARGON_RAG_INDEX_KEY."
                )
            default = 443 if parts.scheme == "https" else 6333
            client = QdrantClient(
                url=f"{parts.scheme}://{parts.hostname}:{parts.port or default}",
                api_key=api_key,
                timeout=TIMEOUT,
                check_compatibility=False,
                trust_env=False,
            )
            alias = parts.path.strip("/") or NAME
        else:
            client, alias = QdrantClient(path=url), NAME
    except (ValueError, RuntimeError, OSError) as error:
        raise IndexFileError(f"Cannot open the shared index at {url}: {_short(error)}") from error
    try:
        yield client, alias
    except (QdrantException, ApiException, ValueError, OSError) as error:
        raise IndexFileError(
            f"Cannot use the shared index at {url}: {_short(error)}. Check that Qdrant runs there, and JARGON_RAG_INDEX_KEY."
        ) from error
    finally:
        client.close()


def _short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
