"""Where things lie: what ships with the package, whole or damaged, and the cache for what is made on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

from jargon_rag.errors import JargonRAGError, WeightsError

CHECKSUMS = Path(__file__).with_name("checksums.json")  # of shipped files that nothing else would notice to be damaged


def shipped_folder(name: str) -> Path:
    """Return the shipped `corpus`, `index` or `adapter`: package data in a wheel, the checkout's folder in a checkout."""
    package = Path(__file__).parent
    packaged = package / "data" / name
    return packaged if packaged.is_dir() else package.parents[1] / name


def check_shipped(file: Path) -> None:
    """Raise WeightsError unless a shipped file is the one whose SHA-256 `make checksums` recorded under its name."""
    try:
        recorded = read_json_object(CHECKSUMS.read_bytes()).get(file.name)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise WeightsError(f"Cannot check {file}: {error}. Install the package again.") from error
    if found != recorded:
        raise WeightsError(
            f"{file} is damaged: it is not the file that {CHECKSUMS.name} names. Install the package again, or, if you made "
            "it yourself, run: make checksums"
        )


def default_cache_dir() -> Path:
    """Return the user's cache folder for converted weights and for indexes of their own glossaries."""
    try:
        folder = Path(platformdirs.user_cache_dir("jargon-rag", appauthor=False))
        if not folder.is_absolute():  # as older versions of platformdirs say it
            raise RuntimeError(f"{folder} is no home")
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        raise JargonRAGError(
            f"No home folder ({error}). Set JARGON_RAG_CACHE to a folder that can be written."
        ) from error
    return folder


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
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value
