"""Shipped folders, the cache folder, atomic writes and JSON objects."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jargon_rag import paths
from jargon_rag.errors import JargonRAGError
from jargon_rag.paths import default_cache_dir, make_folder, read_json_object, shipped_folder, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkout_uses_its_own_corpus_and_index() -> None:
    assert any(shipped_folder("corpus").glob("*.md"))
    assert (shipped_folder("index") / "manifest.json").is_file()


def test_package_data_wins_over_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "jargon_rag"
    (package / "data" / "corpus").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "paths.py"))
    assert shipped_folder("corpus") == package / "data" / "corpus"
    assert shipped_folder("index") == tmp_path / "index"


def test_the_cache_folder_bears_the_name_of_the_package_once() -> None:
    assert default_cache_dir().is_absolute()
    assert default_cache_dir().parts.count("jargon-rag") == 1


def test_make_folder_creates_parents_and_takes_a_folder_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()


def test_a_folder_that_cannot_be_made_names_the_way_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JargonRAGError, match="JARGON_RAG_CACHE") as caught:
        make_folder(tmp_path / "file" / "cache")
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def test_a_write_replaces_the_old_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_atomic(file, b"old")
    write_atomic(file, b"\x00new")
    assert file.read_bytes() == b"\x00new"
    assert names(tmp_path) == ["a.bin"]


def test_a_written_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    write_atomic(file, b"old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(JargonRAGError, match=r"No space left on device.*untouched") as caught:
        write_atomic(file, b"new")
    assert str(file) in str(caught.value)
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_write_into_a_folder_that_is_a_file_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JargonRAGError, match="Cannot write in") as caught:
        write_atomic(tmp_path / "file" / "a", b"x")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_write_over_a_folder_is_refused_and_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(JargonRAGError, match="Cannot write"):
        write_atomic(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == []


def test_a_json_object_is_read() -> None:
    assert read_json_object('{"ä": 1}'.encode()) == {"ä": 1}


@pytest.mark.parametrize("data", [b"[1]", b"null", b'"text"', b"3", b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_what_is_no_json_object_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json_object(data)
