"""Building, saving, loading and searching an index, and what happens to a damaged one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jargon_rag import index as index_module
from jargon_rag.chunking import chunk_glossary
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.errors import IndexFileError, JargonRAGError
from jargon_rag.glossary import corpus_hash, read_glossary
from jargon_rag.index import Index, build_index, check_embedder, load_index, save_index
from jargon_rag.indexing import gaps, index_corpus, open_index
from jargon_rag.paths import write_atomic
from jargon_rag.types import Chunk, Entry, Passage, Snippet, Turn

GLOSSARY = """# Kitchen

## Simmering

Simmering keeps water just below its boiling point.

**Also known as:** slow boil

## Blanching

Blanching is a short bath in boiling water, then one in ice.
"""


class KnownEmbedder:
    """Gives each text the vector it was told, and records what it was asked for."""

    def __init__(self, vectors: dict[str, Sequence[float]] | None = None, *, name: str = "known@1") -> None:
        self.vectors = vectors or {}
        self.name = name
        self.asked: list[str] = []

    @property
    def id(self) -> str:
        return self.name

    @property
    def dimension(self) -> int:
        return 3

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        self.asked += texts
        return np.array([self.vectors.get(text) or self._hashed(text) for text in texts], dtype=np.float32)

    @staticmethod
    def _hashed(text: str) -> list[float]:
        numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:12], dtype=np.uint32).astype(np.float64)
        return [float(number) for number in numbers / np.linalg.norm(numbers)]


class BrokenWriteError(OSError):
    """Stands for a crash."""


def chunk(text: str, *, slug: str = "a", line: int = 1) -> Chunk:
    return Chunk(slug, "definition", text, text, line, line)


def rich_entry(slug: str) -> Entry:
    return Entry(
        term=f"Term {slug}, “quoted”",
        slug=slug,
        area="Area\u2028with a separator",
        path="corpus/x.md",
        line=3,
        end_line=30,
        definition=(Passage("One ε-line.\nTwo.", 4, 5), Passage("Three \u0085 four.", 6, 6)),
        turns=(Turn("Morty", "Why?", 8, 8), Turn("Rick", "Because \N{PILE OF POO}.", 9, 10)),
        gotchas=(Passage("Mind the gap.", 12, 12),),
        snippets=(Snippet("python", 'print("\\n")\n', 14, 16),),
        aliases=("alias", "Ålias"),
        see_also=("b",),
    )


def axes_index() -> Index:
    """Three chunks whose cosines with the axes are known exactly."""
    vectors: dict[str, Sequence[float]] = {"x": (1, 0, 0), "xy": (0.75, 0.5, 0), "-x": (-1, 0, 0)}
    chunks = [chunk("-x", line=1), chunk("x", line=2), chunk("xy", line=3)]
    return build_index(
        [rich_entry("a"), rich_entry("b")], chunks, KnownEmbedder(vectors), corpus_hash="abc", previous=None
    )


def other_index() -> Index:
    return build_index([rich_entry("c")], [chunk("new")], KnownEmbedder({"new": (0, 0, 1)}), corpus_hash="new")


def same(one: Index, other: Index) -> bool:
    return (
        (one.entries, one.chunks, one.embedder_id, one.corpus_hash)
        == (other.entries, other.chunks, other.embedder_id, other.corpus_hash)
        and one.vectors.dtype == other.vectors.dtype
        and np.array_equal(one.vectors, other.vectors)
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = manifest_of(folder)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def file_of(folder: Path, role: str) -> Path:
    return folder / "manifest.json" if role == "manifest" else folder / manifest_of(folder)["files"][role]["name"]


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def refused(folder: Path) -> str:
    """Return the message of a load that fails, which must name the folder and the way to rebuild it."""
    with pytest.raises(IndexFileError) as caught:
        load_index(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert f"jargon-rag index --corpus GLOSSARY --out {folder}" in message
    return message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the index of three chunks."""
    save_index(axes_index(), tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """A glossary of two terms."""
    (tmp_path / "kitchen.md").write_text(GLOSSARY)
    return tmp_path / "kitchen.md"


# Build and search


def test_search_gives_exact_cosines_best_first() -> None:
    assert axes_index().search(np.array([1, 0, 0], dtype=np.float32), top_k=3) == [(1, 1.0), (2, 0.75), (0, -1.0)]
    assert axes_index().search(np.array([0, 1, 0], dtype=np.float32), top_k=1) == [(2, 0.5)]


def test_more_results_than_chunks_gives_each_chunk_once() -> None:
    found = axes_index().search(np.array([1, 0, 0], dtype=np.float32), top_k=50)
    assert [number for number, _ in found] == [1, 2, 0]


def test_vectors_are_float32_in_the_order_of_the_chunks() -> None:
    index = axes_index()
    assert index.vectors.dtype == np.float32
    assert index.vectors.tolist() == [[-1, 0, 0], [1, 0, 0], [0.75, 0.5, 0]]


def test_a_text_that_two_chunks_share_is_embedded_once() -> None:
    embedder = KnownEmbedder()
    index = build_index([], [chunk("x"), chunk("y"), chunk("x", slug="b")], embedder, corpus_hash="")
    assert embedder.asked == ["x", "y"]
    assert np.array_equal(index.vectors[0], index.vectors[2])


def test_only_new_texts_are_embedded_again() -> None:
    old = build_index([], [chunk("x"), chunk("y")], KnownEmbedder({"x": (1, 0, 0)}), corpus_hash="")
    embedder = KnownEmbedder()
    new = build_index([], [chunk("z"), chunk("x", line=9)], embedder, corpus_hash="", previous=old)
    assert embedder.asked == ["z"]
    assert new.vectors[1].tolist() == [1, 0, 0]
    assert [c.text for c in new.chunks] == ["z", "x"]


def test_an_unchanged_glossary_embeds_nothing() -> None:
    embedder = KnownEmbedder()
    again = build_index(axes_index().entries, axes_index().chunks, embedder, corpus_hash="abc", previous=axes_index())
    assert embedder.asked == []
    assert same(again, axes_index())


def test_vectors_of_another_embedder_are_not_used_again() -> None:
    embedder = KnownEmbedder(name="other@2")
    build_index([], axes_index().chunks, embedder, corpus_hash="", previous=axes_index())
    assert embedder.asked == ["-x", "x", "xy"]


def test_one_edited_entry_embeds_its_own_chunks_only(kitchen: Path) -> None:
    first = index_corpus(kitchen, KnownEmbedder())
    kitchen.write_text(GLOSSARY.replace("short bath", "brief bath"))
    embedder = KnownEmbedder()
    second = index_corpus(kitchen, embedder, previous=first)
    assert len(embedder.asked) == 1
    assert "brief bath" in embedder.asked[0]
    assert same(second, index_corpus(kitchen, KnownEmbedder()))


# Save and load


def test_a_saved_index_loads_as_it_was(saved: Path) -> None:
    assert same(load_index(saved), axes_index())


def test_a_loaded_index_gives_the_same_scores_in_the_same_order(saved: Path) -> None:
    vector = np.array([0.6, 0.8, 0], dtype=np.float32)
    assert load_index(saved).search(vector, top_k=3) == axes_index().search(vector, top_k=3)


def test_real_vectors_come_back_bit_for_bit(tmp_path: Path, embedder: SentenceTransformerEmbedder) -> None:
    (tmp_path / "kitchen.md").write_text(GLOSSARY)
    entries = read_glossary(tmp_path / "kitchen.md")
    built = build_index(entries, chunk_glossary(entries, []), embedder, corpus_hash="k")
    save_index(built, tmp_path / "index")
    question = embedder.embed(["How hot is water that simmers?"])[0]
    assert same(load_index(tmp_path / "index"), built)
    found = load_index(tmp_path / "index").search(question, top_k=5)
    assert found == built.search(question, top_k=5)
    assert built.chunks[found[0][0]].slug == "simmering"
    assert found[0][1] == pytest.approx(float(built.vectors[found[0][0]] @ question), abs=1e-6)


def test_the_same_index_saved_twice_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_index(axes_index(), tmp_path / name)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_a_folder_and_its_parents_are_created(tmp_path: Path) -> None:
    save_index(axes_index(), tmp_path / "a" / "b")
    assert same(load_index(tmp_path / "a" / "b"), axes_index())


def test_a_moved_index_still_loads(saved: Path, tmp_path: Path) -> None:
    shutil.move(saved, tmp_path / "elsewhere")
    assert same(load_index(tmp_path / "elsewhere"), axes_index())


def test_a_new_save_removes_the_old_files_and_no_others(saved: Path) -> None:
    strangers = ["notes.txt", "entries-old.jsonl", "vectors-0123456789abc.faiss", "chunks-0123456789ab.txt"]
    for name in strangers:
        (saved / name).write_text("mine")
    old = {file_of(saved, role).name for role in ("entries", "chunks", "vectors")}
    save_index(other_index(), saved)
    current = {file["name"] for file in manifest_of(saved)["files"].values()}
    assert {file.name for file in saved.iterdir()} == {*strangers, *current, "manifest.json", ".lock"}
    assert not old & current
    assert all((saved / name).read_text() == "mine" for name in strangers)
    assert same(load_index(saved), other_index())


def test_a_save_that_changes_one_part_keeps_the_files_of_the_others(saved: Path) -> None:
    before = manifest_of(saved)["files"]
    changed = build_index(
        [rich_entry("z")], axes_index().chunks, KnownEmbedder(), corpus_hash="", previous=axes_index()
    )
    save_index(changed, saved)
    after = manifest_of(saved)["files"]
    assert (after["chunks"], after["vectors"]) == (before["chunks"], before["vectors"])
    assert same(load_index(saved), changed)


def test_a_crash_at_any_write_leaves_the_old_index_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0

    def crashing(crash_at: int) -> Callable[[Path, bytes], None]:
        def write(file: Path, data: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes == crash_at:
                raise BrokenWriteError(f"crash at write {writes}")
            write_atomic(file, data)

        return write

    for crash_at in (1, 2, 3, 4):
        folder = tmp_path / str(crash_at)
        save_index(axes_index(), folder)
        writes = 0
        monkeypatch.setattr(index_module, "write_atomic", crashing(crash_at))
        with pytest.raises(BrokenWriteError):
            save_index(other_index(), folder)
        assert same(load_index(folder), axes_index())
        monkeypatch.setattr(index_module, "write_atomic", write_atomic)
        save_index(other_index(), folder)
        assert same(load_index(folder), other_index())
        assert len(list(folder.iterdir())) == 5  # what the crash left is gone too
    writes = 0
    monkeypatch.setattr(index_module, "write_atomic", crashing(0))
    save_index(axes_index(), tmp_path / "whole")
    assert writes == 4  # so every write was tried


def test_a_crash_at_the_first_save_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_manifest(file: Path, data: bytes) -> None:
        if file.name == "manifest.json":
            raise BrokenWriteError
        write_atomic(file, data)

    monkeypatch.setattr(index_module, "write_atomic", no_manifest)
    with pytest.raises(BrokenWriteError):
        save_index(axes_index(), tmp_path)
    assert "there is no manifest.json" in refused(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file")
    with pytest.raises(JargonRAGError, match="Cannot create") as caught:
        save_index(axes_index(), tmp_path / "index")
    assert str(tmp_path / "index") in str(caught.value)
    assert (tmp_path / "index").read_text() == "a file"


def test_a_manifest_that_cannot_be_replaced_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(JargonRAGError, match="Cannot write"):
        save_index(axes_index(), tmp_path)


# Damage


def test_no_folder_and_an_empty_folder_are_no_index(tmp_path: Path) -> None:
    assert "No index in" in refused(tmp_path / "nowhere")
    assert "No index in" in refused(tmp_path)


@pytest.mark.parametrize("role", ["entries", "chunks", "vectors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_flipped_byte_is_noticed(saved: Path, role: str, share: float) -> None:
    file = file_of(saved, role)
    flip(file, int(share * file.stat().st_size))
    assert file.name in refused(saved)


def test_a_flipped_byte_of_the_manifest_never_gives_other_contents(saved: Path) -> None:
    whole = (saved / "manifest.json").read_bytes()
    good = axes_index()
    noticed = 0
    for position in range(len(whole)):
        flip(saved / "manifest.json", position)
        try:
            loaded = load_index(saved)
        except IndexFileError as error:
            assert str(saved) in str(error)
            noticed += 1
        else:
            assert loaded.chunks == good.chunks
            assert loaded.entries == good.entries
            assert np.array_equal(loaded.vectors, good.vectors)
        (saved / "manifest.json").write_bytes(whole)
    assert noticed > len(whole) / 2
    assert same(load_index(saved), good)


@pytest.mark.parametrize("role", ["entries", "chunks", "vectors", "manifest"])
@pytest.mark.parametrize("kept", [0, 40])
def test_a_truncated_file_is_noticed(saved: Path, role: str, kept: int) -> None:
    file = file_of(saved, role)
    file.write_bytes(file.read_bytes()[:kept])
    assert file.name in refused(saved)


@pytest.mark.parametrize("role", ["entries", "chunks", "vectors"])
def test_a_missing_file_is_noticed(saved: Path, role: str) -> None:
    file = file_of(saved, role)
    file.unlink()
    message = refused(saved)
    assert f"cannot read {file.name}" in message
    assert "No such file" in message


@pytest.mark.parametrize("role", ["entries", "chunks", "vectors"])
def test_a_folder_in_place_of_a_file_is_noticed(saved: Path, role: str) -> None:
    file = file_of(saved, role)
    file.unlink()
    file.mkdir()
    assert file.name in refused(saved)


@pytest.mark.parametrize("text", ["", "not json", "[]", "null", '{"format": 1'])
def test_a_manifest_that_is_no_json_object_is_damaged(saved: Path, text: str) -> None:
    (saved / "manifest.json").write_text(text)
    message = refused(saved)
    assert "is damaged" in message
    assert "manifest.json" in message


@pytest.mark.parametrize(
    ("key", "value"), [("format", 2), ("format", "1"), ("format", None), ("metric", "l2"), ("metric", None)]
)
def test_another_format_or_metric_is_another_version(saved: Path, key: str, value: object) -> None:
    change_manifest(saved, lambda manifest: manifest.update({key: value}))
    message = refused(saved)
    assert "another version" in message
    assert repr(value) in message


@pytest.mark.parametrize("key", ["files", "chunks", "dimension", "embedder", "corpus_hash"])
def test_a_manifest_without_a_key_is_damaged(saved: Path, key: str) -> None:
    change_manifest(saved, lambda manifest: manifest.pop(key))
    assert key in refused(saved)


@pytest.mark.parametrize("files", [None, [], {}, {"entries": "x"}, {"entries": {"name": 3, "sha256": "x"}}])
def test_a_manifest_whose_files_are_malformed_is_damaged(saved: Path, files: object) -> None:
    change_manifest(saved, lambda manifest: manifest.update({"files": files}))
    assert "is damaged" in refused(saved)


@pytest.mark.parametrize(("key", "value"), [("chunks", 2), ("chunks", "3"), ("dimension", 4)])
def test_sizes_that_disagree_with_the_manifest_are_damage(saved: Path, key: str, value: object) -> None:
    change_manifest(saved, lambda manifest: manifest.update({key: value}))
    assert "is damaged" in refused(saved)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_manifest_cannot_name_a_file_outside_its_folder(saved: Path, absolute: bool) -> None:
    outside = saved.parent / "outside.jsonl"
    outside.write_bytes(file_of(saved, "entries").read_bytes())  # its hash would fit
    name = str(outside) if absolute else "../outside.jsonl"
    change_manifest(saved, lambda manifest: manifest["files"]["entries"].update({"name": name}))
    assert "is no file name" in refused(saved)


@pytest.mark.parametrize("name", ["..", ".", "", "a\x00b"])
def test_a_name_that_is_no_file_is_damage(saved: Path, name: str) -> None:
    change_manifest(saved, lambda manifest: manifest["files"]["vectors"].update({"name": name}))
    assert "is damaged" in refused(saved)


@pytest.mark.parametrize(
    ("role", "data"),
    [
        ("vectors", b"these are no vectors"),
        ("chunks", b'{"slug": "a"}\n'),
        ("chunks", b"[1]\n[2]\n[3]\n"),
        ("entries", b'{"term": "a"}\n'),
        ("entries", b"\xff\n"),
        ("entries", b"7\n"),
    ],
)
def test_contents_of_another_shape_are_damage_even_when_their_hash_fits(saved: Path, role: str, data: bytes) -> None:
    file_of(saved, role).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    change_manifest(saved, lambda manifest: manifest["files"][role].update({"sha256": digest}))
    assert "is damaged" in refused(saved)


def test_vectors_of_another_index_are_noticed(saved: Path, tmp_path: Path) -> None:
    save_index(other_index(), tmp_path / "other")
    vectors = manifest_of(tmp_path / "other")["files"]["vectors"]
    shutil.copy(tmp_path / "other" / vectors["name"], saved)
    change_manifest(saved, lambda manifest: manifest["files"].update({"vectors": vectors}))
    assert "3 chunks, 1 vectors" in refused(saved)


def test_another_embedder_is_an_error_that_names_both_and_the_folder(saved: Path) -> None:
    check_embedder("known@1", KnownEmbedder(), saved)
    with pytest.raises(IndexFileError, match=r"known@1.*known@2") as caught:
        check_embedder("known@1", KnownEmbedder(name="known@2"), saved)
    assert str(saved) in str(caught.value)
    assert "--embedder" in str(caught.value)
    assert "jargon-rag index --corpus" in str(caught.value)


# Which index is opened


def test_an_index_given_alone_is_not_compared_with_any_corpus(saved: Path, tmp_path: Path) -> None:
    opened = open_index(corpus=None, index=saved, embedder=KnownEmbedder(), cache_dir=tmp_path / "cache")
    assert same(opened, axes_index())
    assert not (tmp_path / "cache").exists()


def test_an_index_of_another_embedder_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="other@9"):
        open_index(corpus=None, index=saved, embedder=KnownEmbedder(name="other@9"), cache_dir=tmp_path)


def test_an_index_given_with_its_corpus_must_be_fresh(kitchen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    save_index(index_corpus(kitchen, KnownEmbedder()), folder)
    opened = open_index(corpus=kitchen, index=folder, embedder=KnownEmbedder(), cache_dir=tmp_path)
    assert [entry.term for entry in opened.entries] == ["Simmering", "Blanching"]
    kitchen.write_text(GLOSSARY + "\n## Searing\n\nSearing browns the outside fast.\n")
    with pytest.raises(IndexFileError, match="stale") as caught:
        open_index(corpus=kitchen, index=folder, embedder=KnownEmbedder(), cache_dir=tmp_path)
    assert str(folder) in str(caught.value)
    assert str(kitchen) in str(caught.value)
    assert "jargon-rag index --corpus" in str(caught.value)


def test_the_index_of_a_corpus_is_made_once_and_kept(kitchen: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    cache = tmp_path / "cache"
    first, second = KnownEmbedder(), KnownEmbedder()
    made = open_index(corpus=kitchen, index=None, embedder=first, cache_dir=cache, say=notes.append)
    kept = open_index(corpus=kitchen, index=None, embedder=second, cache_dir=cache, say=notes.append)
    assert same(made, kept)
    assert len(first.asked) == len(made.chunks)
    assert second.asked == []
    assert notes == [f"Indexing {kitchen}", *gaps(made)]
    assert made.corpus_hash == corpus_hash(kitchen)


def test_a_changed_corpus_is_indexed_again_where_it_changed(kitchen: Path, tmp_path: Path) -> None:
    open_index(corpus=kitchen, index=None, embedder=KnownEmbedder(), cache_dir=tmp_path)
    kitchen.write_text(GLOSSARY + "\n## Searing\n\nSearing browns the outside fast.\n")
    embedder = KnownEmbedder()
    opened = open_index(corpus=kitchen, index=None, embedder=embedder, cache_dir=tmp_path)
    assert [entry.term for entry in opened.entries] == ["Simmering", "Blanching", "Searing"]
    assert [text.split(":")[0] for text in embedder.asked] == ["Searing"]


def test_a_damaged_kept_index_is_made_again(kitchen: Path, tmp_path: Path) -> None:
    made = open_index(corpus=kitchen, index=None, embedder=KnownEmbedder(), cache_dir=tmp_path)
    (folder,) = (tmp_path / "indexes").iterdir()
    flip(file_of(folder, "vectors"), -1)
    healed = open_index(corpus=kitchen, index=None, embedder=KnownEmbedder(), cache_dir=tmp_path)
    assert same(healed, made)
    assert same(load_index(folder), made)


def test_two_embedders_keep_two_indexes_of_one_corpus(kitchen: Path, tmp_path: Path) -> None:
    for name in ("known@1", "known@2"):
        open_index(corpus=kitchen, index=None, embedder=KnownEmbedder(name=name), cache_dir=tmp_path)
    kept = {load_index(folder).embedder_id for folder in (tmp_path / "indexes").iterdir()}
    assert kept == {"known@1", "known@2"}


def test_the_shipped_index_is_that_of_the_shipped_corpus(corpus: Path, embedder: SentenceTransformerEmbedder) -> None:
    shipped = load_index(corpus.parent / "index")
    check_embedder(shipped.embedder_id, embedder, corpus.parent / "index")
    assert shipped.corpus_hash == corpus_hash(corpus)
    assert shipped.entries == tuple(read_glossary(corpus))
    assert np.allclose(np.linalg.norm(shipped.vectors, axis=1), 1.0, atol=1e-4)  # half precision on disk


def test_what_a_glossary_lacks_is_told(tmp_path: Path, embedder: SentenceTransformerEmbedder, corpus: Path) -> None:
    bare = tmp_path / "bare.md"
    bare.write_text("## Roux\n\nFlour cooked in fat.\n")
    said: list[str] = []
    opened = open_index(corpus=bare, index=None, embedder=embedder, cache_dir=tmp_path / "cache", say=said.append)
    assert said[1:] == gaps(opened)
    assert [gap.split(":")[0] for gap in gaps(opened)] == [
        "No questions to index beside the entries",
        "No see-also links",
    ]
    open_index(corpus=bare, index=None, embedder=embedder, cache_dir=tmp_path / "cache", say=said.append)
    assert len(said) == 3  # nothing was indexed anew, so nothing is told again
    assert gaps(load_index(corpus.parent / "index")) == []
