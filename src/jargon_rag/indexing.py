"""Make the index of a glossary, or open the one that exists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from jargon_rag.calibration import calibration
from jargon_rag.chunking import chunk_glossary
from jargon_rag.errors import IndexFileError, JargonRAGError
from jargon_rag.glossary import corpus_hash, read_glossary, read_questions
from jargon_rag.index import REBUILD, Index, build_index, check_embedder, load_index, read_manifest, save_index
from jargon_rag.paths import shipped_folder
from jargon_rag.types import Embedder


def open_index(
    *,
    corpus: Path | None,
    index: Path | Index | None,
    embedder: Embedder,
    cache_dir: Path,
    say: Callable[[str], None] = lambda _: None,
    progress: bool = False,
) -> Index:
    """Return the index to search: the one given, the shipped one, or the one kept for this corpus, built again if stale."""
    if isinstance(index, Index):
        check_embedder(index.embedder_id, embedder, None)
        return index
    if index is not None:
        loaded = load_index(index)
        check_embedder(loaded.embedder_id, embedder, index)
        if corpus is not None and loaded.corpus_hash != corpus_hash(corpus):
            raise IndexFileError(
                f"The index in {index} is stale: {corpus} has changed since. {REBUILD.format(folder=index)}"
            )
        return loaded
    if corpus is None:
        shipped = shipped_folder("index")
        if read_manifest(shipped)["embedder"] == embedder.id:
            return load_index(shipped)
        say(f"The shipped index was made with another embedder; indexing the shipped glossary with {embedder.id}")
        corpus = shipped_folder("corpus")
    digest = corpus_hash(corpus)
    key = hashlib.sha256(os.fsencode(f"{corpus.resolve()}\n{embedder.id}")).hexdigest()[:16]
    folder = cache_dir / "indexes" / key
    try:
        previous = load_index(folder)
    except IndexFileError:
        previous = None
    if previous is not None and previous.corpus_hash == digest:
        return previous
    say(f"Indexing {corpus}")
    built = index_corpus(corpus, embedder, previous=previous, progress=progress)
    try:
        save_index(built, folder)
    except JargonRAGError as error:
        say(f"The index is not kept, and is made again next time. {error}")
    for gap in gaps(built):
        say(gap)
    return built


def write_index(corpus: Path, embedder: Embedder, folder: Path, *, say: Callable[[str], None]) -> Index:
    """Index a glossary into a folder, with a progress bar; what did not change since the index there is not embedded again."""
    try:
        previous = load_index(folder)
    except IndexFileError:
        previous = None
    built = index_corpus(corpus, embedder, previous=previous, progress=True)
    save_index(built, folder)
    for gap in gaps(built):
        say(gap)
    return built


def index_corpus(corpus: Path, embedder: Embedder, *, previous: Index | None = None, progress: bool = False) -> Index:
    """Read a glossary and return its index; what did not change since `previous` is not embedded again."""
    digest = corpus_hash(corpus)
    entries = read_glossary(corpus)
    chunks = chunk_glossary(entries, read_questions(corpus, entries))
    return build_index(entries, chunks, embedder, corpus_hash=digest, previous=previous, progress=progress)


def gaps(index: Index) -> list[str]:
    """Return what an index lacks that searches would use, in words; each search works without it, a little worse."""
    found = []
    if not any(chunk.kind == "question" for chunk in index.chunks):
        found.append("No questions to index beside the entries: wordings far from the text are found less often.")
    if not any(entry.see_also for entry in index.entries):
        found.append("No see-also links: what to ask next is taken from the search alone.")
    if not calibration(index.embedder_id).fitted:
        found.append(f"Nothing was calibrated for {index.embedder_id}: what is in scope is judged less surely.")
    return found
