"""Where things lie: what ships with the package, and the cache for what is made on this machine."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import platformdirs

from jargon_rag.errors import JargonRAGError


def shipped_folder(name: str) -> Path:
    """Return the shipped `corpus`, `index` or `adapter`: package data in a wheel, the checkout's folder in a checkout."""
    package = Path(__file__).parent
    packaged = package / "data" / name
    return packaged if packaged.is_dir() else package.parents[1] / name


def default_cache_dir() -> Path:
    """Return the user's cache folder for converted weights and for indexes of their own glossaries."""
    return Path(platformdirs.user_cache_dir("jargon-rag", appauthor=False))


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents, or raise an error that says how to choose another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JargonRAGError(
            f"Cannot create {folder}: {error.strerror}. Set JARGON_RAG_CACHE to a folder that can be written."
        ) from error
    return folder


def write_atomic(file: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, and a crash leaves no half."""
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise JargonRAGError(
            f"Cannot write in {file.parent}: {error.strerror}. Choose a folder that can be written."
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise JargonRAGError(f"Cannot write {file}: {error.strerror}. What was there before is untouched.") from error


def read_json_object(data: bytes) -> dict[str, object]:
    """Return a JSON object; raises ValueError for anything else."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value
