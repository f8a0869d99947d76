"""Build, save, load and search an index: entries, chunks and their vectors.

A saved index is a folder of three content-named files and `manifest.json`, which is written last and names them: a
reader sees the old index or the new one, never a mixture. FAISS holds the vectors; JSON holds the rest; no pickle.
A small index is searched whole, its vectors kept in half precision. From APPROXIMATE_FROM chunks on, where that begins to cost more than embedding the
question (docs/retrieval-scale.md), the vectors lie in an inverted file (IVF: Jégou, Douze & Schmid 2011).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import faiss
import filelock
import numpy as np

from jargon_rag.errors import IndexFileError, JargonRAGError
from jargon_rag.paths import make_folder, read_json_object, write_atomic
from jargon_rag.types import Chunk, Embedder, Entry, Passage, Snippet, Turn

T = TypeVar("T")
FORMAT = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
_LEFT_BEHIND = re.compile(
    r"\.(?:manifest\.json|(?:entries|chunks|vectors)-[0-9a-f]{12}\.\w+)\.\w+"
)  # as write_atomic names them
METRIC = "inner_product"  # of unit vectors: the cosine
APPROXIMATE_FROM = 50_000  # chunks
PROBES = 32  # of the inverted file's lists, of which there are 4 √n
REBUILD = "Rebuild it with: jargon-rag index --corpus GLOSSARY --out {folder}"


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Entries and chunks with their vectors; row i of the vectors belongs to chunk i."""

    entries: tuple[Entry, ...]
    chunks: tuple[Chunk, ...]
    vectors: np.ndarray  # float32 (n_chunks, dimension), unit length up to what is rounded away on disk
    embedder_id: str
    corpus_hash: str
    _faiss: faiss.Index

    @property
    def is_exact(self) -> bool:
        """Tell whether `search` looks at every chunk."""
        return not isinstance(self._faiss, faiss.IndexIVF)

    def search(self, vector: np.ndarray, *, top_k: int) -> list[tuple[int, float]]:
        """Return (chunk number, cosine) of the nearest chunks, best first, for one vector of shape (dimension,)."""
        scores, numbers = self._faiss.search(vector.reshape(1, -1), min(top_k, len(self.chunks)))
        return [(int(n), float(score)) for n, score in zip(numbers[0], scores[0], strict=True) if n >= 0]


def build_index(
    entries: Sequence[Entry],
    chunks: Sequence[Chunk],
    embedder: Embedder,
    *,
    corpus_hash: str,
    previous: Index | None = None,
    progress: bool = False,
) -> Index:
    """Embed the chunks and return the index; vectors of `previous` are used again where a chunk's text is unchanged."""
    known: dict[str, np.ndarray] = {}
    if previous is not None and previous.embedder_id == embedder.id:
        known = {chunk.text: vector for chunk, vector in zip(previous.chunks, previous.vectors, strict=True)}
    missing = list(dict.fromkeys(chunk.text for chunk in chunks if chunk.text not in known))
    if missing:
        known.update(zip(missing, embedder.embed(missing, progress=progress), strict=True))
    found = search_structure(np.stack([known[chunk.text] for chunk in chunks]).astype(np.float32))
    vectors = found.reconstruct_n(0, found.ntotal)  # as they will be read
    return Index(tuple(entries), tuple(chunks), vectors, embedder.id, corpus_hash, found)


def save_index(index: Index, folder: Path) -> None:
    """Write an index into a folder, atomically; other files there are left alone.

    Raises JargonRAGError when the folder cannot be written; an index that was there before stays usable.
    """
    make_folder(folder)
    lock = filelock.FileLock(folder / LOCK)  # two writers would remove each other's files
    try:
        held = lock.acquire()
    except OSError as error:
        raise JargonRAGError(
            f"Cannot write in {folder}: {error.strerror}. Choose a folder that can be written."
        ) from error
    with held:
        _save(index, folder)


def _save(index: Index, folder: Path) -> None:
    for left in folder.glob(".*.*"):  # by a process that was killed: whoever is here holds the lock
        if _LEFT_BEHIND.fullmatch(left.name):
            left.unlink(missing_ok=True)
    contents = {
        "entries": (".jsonl", _to_lines(index.entries)),
        "chunks": (".jsonl", _to_lines(index.chunks)),
        "vectors": (".faiss", bytes(faiss.serialize_index(index._faiss))),
    }
    files = {}
    for role, (suffix, data) in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        files[role] = {"name": f"{role}-{digest[:12]}{suffix}", "sha256": digest}
        write_atomic(folder / files[role]["name"], data)
    manifest = {
        "format": FORMAT,
        "corpus_hash": index.corpus_hash,
        "embedder": index.embedder_id,
        "dimension": int(index.vectors.shape[1]),
        "metric": METRIC,
        "entries": len(index.entries),
        "chunks": len(index.chunks),
        "files": files,
        "versions": {"faiss": faiss.__version__},
    }
    write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    current = {file["name"] for file in files.values()}
    for role, (suffix, _) in contents.items():
        for old in folder.glob(f"{role}-{'[0-9a-f]' * 12}{suffix}"):
            if old.name not in current:
                old.unlink(missing_ok=True)


def load_index(folder: Path) -> Index:
    """Return the index saved in a folder, every file checked against the manifest's hashes.

    Raises IndexFileError naming the file, the fault and the command that rebuilds the index.
    """
    manifest = read_manifest(folder)
    try:
        return _load(folder, manifest)
    except IndexFileError:
        if read_manifest(folder) == manifest:
            raise
        return load_index(folder)  # another process saved a new index meanwhile


def _load(folder: Path, manifest: dict[str, Any]) -> Index:
    try:
        entries = _from_lines(_read_checked(folder, manifest, "entries"), entry_of)
        chunks = _from_lines(_read_checked(folder, manifest, "chunks"), lambda row: Chunk(**row))
        stored = faiss.deserialize_index(np.frombuffer(_read_checked(folder, manifest, "vectors"), dtype=np.uint8))
        vectors = stored.reconstruct_n(0, stored.ntotal)
        if not len(chunks) == len(vectors) == manifest["chunks"] or stored.d != manifest["dimension"]:
            raise ValueError(f"{len(chunks)} chunks, {len(vectors)} vectors, manifest says {manifest['chunks']}")
        return Index(entries, chunks, vectors, str(manifest["embedder"]), str(manifest["corpus_hash"]), stored)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError, ArithmeticError) as error:
        raise _damaged(folder, str(error) or type(error).__name__) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a saved index; raises IndexFileError if there is none, or of another format."""
    file = folder / MANIFEST
    if not file.is_file():
        raise IndexFileError(f"No index in {folder} (there is no {MANIFEST}). {REBUILD.format(folder=folder)}")
    try:
        manifest: dict[str, Any] = read_json_object(file.read_bytes())
    except OSError as error:
        raise IndexFileError(f"Cannot read {file}: {error.strerror}. Check its permissions.") from error
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST}: {error}") from error
    if manifest.get("format") != FORMAT or manifest.get("metric") != METRIC:
        found = f"format {manifest.get('format')!r}, metric {manifest.get('metric')!r}"
        message = f"The index in {folder} was made by another version ({found}; this one reads format {FORMAT}, metric {METRIC!r})."
        raise IndexFileError(f"{message} {REBUILD.format(folder=folder)}")
    return manifest


def check_embedder(index_embedder: str, embedder: Embedder, folder: Path | None) -> None:
    """Raise IndexFileError when an index, in a folder or a shared one, holds another embedder's vectors."""
    if index_embedder != embedder.id:
        where, target = (f"index in {folder}", f"--out {folder}") if folder else ("shared index", "--index-url URL")
        message = f"The {where} was made with embedder {index_embedder}, and {embedder.id} is loaded."
        raise IndexFileError(
            f"{message} Use the same --embedder, or rebuild with: jargon-rag index --corpus GLOSSARY {target}"
        )


def search_structure(vectors: np.ndarray) -> faiss.Index:
    """Return the FAISS index over vectors of shape (n, dimension): flat, or an inverted file where n is large.

    Rounding to half precision moves a cosine by less than 1e-4, and halves the file.
    """
    if len(vectors) >= APPROXIMATE_FROM:
        return make_ivf(vectors)
    flat = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    flat.add(np.ascontiguousarray(vectors))
    return flat


def make_ivf(vectors: np.ndarray) -> faiss.IndexIVFFlat:
    """Return an inverted file over vectors of shape (n, dimension), trained on a sample of them."""
    n, dimension = vectors.shape
    lists = int(4 * n**0.5)
    sample = np.random.default_rng(0).permutation(n)[: 40 * lists]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    ivf.nprobe = PROBES
    ivf.train(np.ascontiguousarray(vectors[sample]))
    ivf.add(np.ascontiguousarray(vectors))
    return ivf


def _damaged(folder: Path, what: str) -> IndexFileError:
    return IndexFileError(f"The index in {folder} is damaged: {what}. {REBUILD.format(folder=folder)}")


def _read_checked(folder: Path, manifest: dict[str, Any], role: str) -> bytes:
    name, expected = manifest["files"][role]["name"], manifest["files"][role]["sha256"]
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no file name")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {name}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise ValueError(f"the contents of {name} are not what the manifest says")
    return bytes(data)


def _to_lines(rows: Sequence[Entry] | Sequence[Chunk]) -> bytes:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()


def _from_lines(data: bytes, make: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    return tuple(make(json.loads(line)) for line in data.decode().split("\n") if line)


def entry_of(row: dict[str, Any]) -> Entry:
    """Return an entry from the form that `dataclasses.asdict` gives it, perhaps by way of JSON."""
    parts: dict[str, type[Passage] | type[Turn] | type[Snippet]] = {
        "definition": Passage, "turns": Turn, "gotchas": Passage, "snippets": Snippet,
    }  # fmt: skip
    typed = {name: tuple(kind(**part) for part in row[name]) for name, kind in parts.items()}
    return Entry(**{**row, **typed, "aliases": tuple(row["aliases"]), "see_also": tuple(row["see_also"])})
