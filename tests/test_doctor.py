"""What the doctor finds, and what it says to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from jargon_rag.doctor import PACKAGES, Check, examine
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.index import save_index
from jargon_rag.indexing import index_corpus
from jargon_rag.models import EMBEDDER, LANGUAGE_MODEL, weights_dir
from jargon_rag.paths import default_cache_dir

GLOSSARY = "# Garden\n\n## Mulch\n\nMulch covers the soil and keeps it moist.\n"


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    """A glossary of one term."""
    (tmp_path / "garden.md").write_text(GLOSSARY)
    return tmp_path / "garden.md"


@pytest.fixture
def garden_index(garden: Path, tmp_path: Path, embedder: SentenceTransformerEmbedder) -> Path:
    """The fresh index of that glossary."""
    save_index(index_corpus(garden, embedder), tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights; returns its cache folder."""
    from huggingface_hub import constants

    find_spec = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in {EMBEDDER.package, LANGUAGE_MODEL.package} else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def faults(checks: list[Check]) -> dict[str, str]:
    """Return what is not fine, with its remedy."""
    return {check.what: check.remedy for check in checks if not check.fine}


def test_everything_is_fine_on_this_machine(corpus: Path) -> None:
    checks = examine(corpus=None, index=None, cache_dir=default_cache_dir())
    assert faults(checks) == {}
    told = "\n".join(check.what for check in checks)
    for part in (*PACKAGES, EMBEDDER.name, LANGUAGE_MODEL.name, str(default_cache_dir()), str(corpus.parent / "index")):
        assert part in told
    assert checks[-1].what.endswith(", fresh")


def test_missing_weights_are_told_with_the_command_that_fetches_them(
    bare: Path, garden: Path, garden_index: Path
) -> None:
    assert faults(examine(corpus=garden, index=garden_index, cache_dir=bare)) == {
        "all-MiniLM-L6-v2: no weights": "jargon-rag pull",
        "SmolLM2-135M-Instruct: no weights": "jargon-rag pull",
    }


def test_damaged_weights_are_told_with_what_to_remove(bare: Path, garden: Path, garden_index: Path) -> None:
    folder = weights_dir(bare) / LANGUAGE_MODEL.package
    folder.mkdir(parents=True)
    (folder / LANGUAGE_MODEL.file).write_bytes(b"half a download")
    found = faults(examine(corpus=garden, index=garden_index, cache_dir=bare))
    assert found[f"SmolLM2-135M-Instruct: {folder} is damaged"] == f"remove {folder}, then: jargon-rag pull"


def test_a_package_that_is_not_installed_is_told(
    bare: Path, garden: Path, garden_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without_gradio(name: str) -> str:
        if name == "gradio":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_gradio)
    checks = examine(corpus=garden, index=garden_index, cache_dir=bare)
    assert faults(checks)["gradio is not installed"] == "pip install gradio"
    assert f"torch {version('torch')}" in [check.what for check in checks if check.fine]


def test_an_index_older_than_its_glossary_is_told_with_the_command(
    bare: Path, garden: Path, garden_index: Path
) -> None:
    assert examine(corpus=garden, index=garden_index, cache_dir=bare)[-1].what.endswith(", fresh")
    garden.write_text(GLOSSARY + "\n## Compost\n\nCompost feeds the soil.\n")
    stale = examine(corpus=garden, index=garden_index, cache_dir=bare)[-1]
    assert stale.what == f"index {garden_index}: older than {garden}"
    assert not stale.fine
    assert stale.remedy == f"Rebuild it with: jargon-rag index --corpus GLOSSARY --out {garden_index}"


def test_an_index_given_alone_is_not_compared_with_the_shipped_glossary(bare: Path, garden_index: Path) -> None:
    check = examine(corpus=None, index=garden_index, cache_dir=bare)[-1]
    assert check.fine
    assert "1 entries, 1 chunks" in check.what
    assert f"all-MiniLM-L6-v2@{EMBEDDER.sha256[:12]}" in check.what


def test_a_glossary_given_alone_is_not_compared_with_the_shipped_index(bare: Path, garden: Path) -> None:
    check = examine(corpus=garden, index=None, cache_dir=bare)[-1]
    assert check.fine
    assert check.what.startswith(f"glossary {garden}: 1 entries")


@pytest.mark.parametrize("name", ["missing.md", "empty.md"])
def test_a_glossary_that_cannot_be_read_is_told(bare: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.md").write_text("")
    check = examine(corpus=tmp_path / name, index=None, cache_dir=bare)[-1]
    assert not check.fine
    assert str(tmp_path / name) in check.remedy


def test_a_damaged_or_missing_index_is_told(bare: Path, garden_index: Path, tmp_path: Path) -> None:
    next(garden_index.glob("vectors-*")).write_bytes(b"half")
    damaged = examine(corpus=None, index=garden_index, cache_dir=bare)[-1]
    missing = examine(corpus=None, index=tmp_path / "nowhere", cache_dir=bare)[-1]
    assert (damaged.fine, missing.fine) == (False, False)
    assert "is damaged" in damaged.remedy
    assert f"No index in {tmp_path / 'nowhere'}" in missing.remedy


def test_a_cache_that_cannot_be_written_is_told(
    bare: Path, garden_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = faults(examine(corpus=None, index=garden_index, cache_dir=bare))
    assert found[f"cache: {bare} cannot be written"] == "set JARGON_RAG_CACHE to another folder"


def test_examining_creates_nothing(bare: Path, garden_index: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    examine(corpus=None, index=garden_index, cache_dir=bare)
    assert sorted(tmp_path.rglob("*")) == before
