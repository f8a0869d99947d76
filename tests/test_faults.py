"""Damaged files, full disks, kills at the worst moment, bare environments: a named error or a healed state, never a wrong answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jargon_rag import calibration as calibration_module
from jargon_rag import paths
from jargon_rag.calibration import calibration
from jargon_rag.embedder import LORA, SentenceTransformerEmbedder
from jargon_rag.errors import IndexFileError, JargonRAGError, WeightsError
from jargon_rag.index import load_index, save_index
from jargon_rag.indexing import open_index
from jargon_rag.models import ADAPTER_CONFIG, ADAPTER_FILE, EMBEDDER, is_intact, prepare_language_model
from jargon_rag.paths import check_shipped, default_cache_dir, shipped_folder
from tests.test_index import GLOSSARY, KnownEmbedder, flip, same

PLACES = 16  # bytes flipped in each large file
BARE = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "HF_HUB_OFFLINE": "1"}


def places(file: Path) -> list[int]:
    size = file.stat().st_size
    return sorted({*range(0, size, -(-size // PLACES)), size - 1})


def folder_of(name: str, tmp_path: Path) -> Path:
    """Return a copy of a shipped folder."""
    return Path(shutil.copytree(shipped_folder(name), tmp_path / name))


# Flipped bytes


@pytest.mark.parametrize("name", [ADAPTER_CONFIG, ADAPTER_FILE, LORA, "calibration.json"])
def test_a_flipped_byte_of_a_shipped_file_is_named_wherever_it_is(name: str, tmp_path: Path) -> None:
    shipped = calibration_module.FILE if name == "calibration.json" else shipped_folder("adapter") / name
    check_shipped(shipped)
    copy = Path(shutil.copy(shipped, tmp_path))
    for place in places(copy):
        flip(copy, place)
        with pytest.raises(JargonRAGError, match="is damaged") as caught:
            check_shipped(copy)
        assert str(copy) in str(caught.value)
        flip(copy, place)
    check_shipped(copy)


def test_a_damaged_lora_of_the_embedder_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = folder_of("adapter", tmp_path)
    flip(adapter / LORA, -100)
    monkeypatch.setattr("jargon_rag.embedder.shipped_folder", lambda _: adapter)
    with pytest.raises(JargonRAGError, match=LORA):
        SentenceTransformerEmbedder(cache_dir=tmp_path)


@pytest.mark.parametrize("name", [ADAPTER_CONFIG, ADAPTER_FILE])
def test_a_damaged_adapter_is_not_merged(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = folder_of("adapter", tmp_path)
    monkeypatch.setattr("jargon_rag.models.shipped_folder", lambda _: adapter)
    flip(adapter / name, -10)
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    with pytest.raises(JargonRAGError, match=name):
        prepare_language_model(tmp_path, cache_dir=tmp_path / "cache", adapter=adapter, say=print)
    assert not (tmp_path / "cache" / "models").exists()


def test_a_damaged_calibration_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copy(calibration_module.FILE, tmp_path))
    monkeypatch.setattr(calibration_module, "FILE", copy)
    copy.write_bytes(copy.read_bytes().replace(b"1", b"2", 1))  # another number, and still JSON
    calibration.cache_clear()
    with pytest.raises(JargonRAGError, match=r"calibration\.json is damaged"):
        calibration("any")
    copy.unlink()
    with pytest.raises(JargonRAGError, match="Install the package again"):
        calibration("any")
    calibration.cache_clear()


def test_damaged_checksums_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copy(paths.CHECKSUMS, tmp_path))
    monkeypatch.setattr(paths, "CHECKSUMS", copy)
    for data in (b"", b"[]", b"{", b"[" * 100_000, b"\xff", b"{}"):
        copy.write_bytes(data)
        with pytest.raises(JargonRAGError, match="Install the package again"):
            check_shipped(calibration_module.FILE)


def test_damaged_weights_of_the_embedder_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights" / EMBEDDER.package / EMBEDDER.path
    folder.mkdir(parents=True)
    (folder / EMBEDDER.file).write_bytes(b"not these")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="is damaged") as caught:
        SentenceTransformerEmbedder(cache_dir=tmp_path)
    assert "jargon-rag pull" in str(caught.value)


def test_a_flipped_byte_of_the_shipped_index_never_gives_another_index(tmp_path: Path) -> None:
    folder = folder_of("index", tmp_path)
    whole = load_index(folder)
    for file in sorted(folder.iterdir()):
        for place in places(file)[:: 1 if file.name == "manifest.json" else 5]:
            flip(file, place)
            try:
                loaded = load_index(folder)
            except IndexFileError as error:
                assert str(folder) in str(error)
            else:  # a byte that says nothing of the contents, or another embedder's name, which is noticed later
                assert file.name == "manifest.json"
                assert loaded.entries == whole.entries
                assert loaded.chunks == whole.chunks
            flip(file, place)
    assert same(load_index(folder), whole)


def test_a_flipped_byte_of_the_checksums_of_converted_weights_is_seen_or_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"aaaa")
    status = (tmp_path / "a.bin").stat()
    digest = "61be55a8e2f6b4e172338bddf184d6dbee29c98853e0a0485ecee7f27b9af0b4"
    stamp = {"a.bin": {"size": 4, "mtime_ns": status.st_mtime_ns, "sha256": digest}}
    file = tmp_path / "checksums.json"
    file.write_text(json.dumps(stamp))
    assert is_intact(tmp_path)
    for place in range(file.stat().st_size):
        for bit in range(8):
            data = bytearray(file.read_bytes())
            data[place] ^= 1 << bit
            file.write_bytes(data)
            assert is_intact(tmp_path) in (True, False)  # the weights themselves are whole: both are right
            data[place] ^= 1 << bit
            file.write_bytes(data)


# Another version, a folder or a disk that takes nothing


def test_an_index_of_a_later_format_in_the_cache_is_made_again(tmp_path: Path) -> None:
    corpus = tmp_path / "kitchen.md"
    corpus.write_text(GLOSSARY)
    made = open_index(corpus=corpus, index=None, embedder=KnownEmbedder(), cache_dir=tmp_path)
    (folder,) = (tmp_path / "indexes").iterdir()
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(IndexFileError, match="another version"):
        load_index(folder)
    assert same(open_index(corpus=corpus, index=None, embedder=KnownEmbedder(), cache_dir=tmp_path), made)
    assert same(load_index(folder), made)


@contextmanager
def nobody() -> Iterator[Path]:
    """Give a folder that this user may read and not write, also where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)
            Path(name).chmod(0o755)


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else() -> None:
    told: list[str] = []
    with nobody() as folder, tempfile.TemporaryDirectory() as writable:
        corpus = Path(writable) / "kitchen.md"
        corpus.write_text(GLOSSARY)
        index = open_index(corpus=corpus, index=None, embedder=KnownEmbedder(), cache_dir=folder, say=told.append)
        assert [entry.term for entry in index.entries] == ["Simmering", "Blanching"]
        assert any("not kept" in note and str(folder) in note for note in told)
        with pytest.raises(JargonRAGError, match="Cannot"):
            save_index(index, folder / "asked-for")


FULL = """
import resource, sys
from pathlib import Path
from jargon_rag.errors import JargonRAGError
from jargon_rag.index import load_index, save_index
from tests.test_index import axes_index, other_index, same
folder = Path(sys.argv[1])
save_index(axes_index(), folder)
told = []
for limit in range(0, 2000, 100):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save_index(other_index(), folder)
    except JargonRAGError as error:
        told.append(str(error))
        assert same(load_index(folder), axes_index()), limit
    else:
        assert same(load_index(folder), other_index())
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        save_index(axes_index(), folder)
assert all(str(folder) in message for message in told)
print(len(told), sorted(path.name for path in folder.iterdir() if path.name[0] == "." and path.name != ".lock"))
"""


def test_a_full_disk_is_named_and_leaves_the_old_index(tmp_path: Path) -> None:
    refused, _, left = python(FULL, str(tmp_path)).partition(" ")
    assert int(refused) >= 5
    assert left.strip() == "[]"


# Kills


KILLED = """
import os, signal, sys
from pathlib import Path

def run(work, check, limit=200):
    '''Fork, kill the child at its n-th write, rename, removal or new folder, and check what is left, for every n.'''
    for n in range(1, limit):
        child = os.fork()
        if child == 0:
            left = n
            def hook(event, args):
                nonlocal left
                writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
                if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(hook)
            work()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(os.WIFSIGNALED(status))
        if not os.WIFSIGNALED(status):
            assert status == 0
            return n
    raise AssertionError("it never came to an end")
"""
KILLED_INDEXING = """
from jargon_rag.index import load_index, save_index
from tests.test_index import axes_index, other_index, same
folder = Path(sys.argv[1])
old, new = axes_index(), other_index()
save_index(old, folder)
seen = set()

def check(killed):
    found = load_index(folder)
    assert same(found, old) or same(found, new)
    seen.add(same(found, new))
    save_index(new, folder)
    assert same(load_index(folder), new)
    assert len(list(folder.iterdir())) == 5, sorted(folder.iterdir())  # three files, the manifest, the lock
    save_index(old, folder)

count = run(lambda: save_index(new, folder), check)
assert seen == {True, False}
print(count)
"""
KILLED_CONVERSION = """
import hashlib, shutil, tests.tiny_gguf
from jargon_rag import models
source, cache = Path(sys.argv[1]), Path(sys.argv[2])
models.LANGUAGE_MODEL = tests.tiny_gguf.write(source)
convert = lambda cache: models.prepare_language_model(source, cache_dir=cache, say=lambda _: None)
whole = convert(cache / "whole")
expected = {file.name: models.sha256(file) for file in whole.iterdir() if file.name != "checksums.json"}

def check(killed):
    target = cache / "killed" / "models" / whole.name
    if models.is_intact(target):
        assert {name: models.sha256(target / name) for name in expected} == expected
    if not killed:
        assert models.is_intact(target)
        return
    kills.append(target)
    if len(kills) % 5 == 0:  # what comes after heals it: the same files, and nothing that was left behind
        assert convert(cache / "killed") == target
        assert {name: models.sha256(target / name) for name in expected} == expected
        assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.lock"]
    shutil.rmtree(cache / "killed", ignore_errors=True)

kills = []
print(run(lambda: convert(cache / "killed"), check))
"""


def python(code: str, *args: str, **environment: str) -> str:
    """Run code in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kill_at_any_write_of_an_index_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    assert int(python(KILLED + KILLED_INDEXING, str(tmp_path / "index"))) > 10


def test_a_kill_at_any_write_of_a_conversion_is_healed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    assert int(python(KILLED + KILLED_CONVERSION, str(source), str(tmp_path / "cache"))) > 10


FULL_CONVERSION = """
import resource, sys
from pathlib import Path
import tests.tiny_gguf
from jargon_rag import models
from jargon_rag.errors import WeightsError
source, cache = Path(sys.argv[1]), Path(sys.argv[2])
models.LANGUAGE_MODEL = tests.tiny_gguf.write(source)
for limit in (0, 100, 1000, 10_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        models.prepare_language_model(source, cache_dir=cache, say=lambda _: None)
    except WeightsError as error:
        assert "free space" in str(error) and str(cache) in str(error), error
        print("refused")
    assert [path.suffix for path in (cache / "models").iterdir()] == [".lock"]
"""


def test_a_disk_that_is_full_during_a_conversion_is_named_and_nothing_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    assert python(FULL_CONVERSION, str(source), str(tmp_path / "cache")).split() == 4 * ["refused"]


# Two at once, and bare environments


def test_two_processes_index_one_glossary_at_once(tmp_path: Path) -> None:
    corpus = tmp_path / "kitchen.md"
    corpus.write_text(GLOSSARY)
    command = [sys.executable, "-m", "jargon_rag", "index", "--corpus", str(corpus), "--cache-dir", str(tmp_path / "c")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        printed, error = process.communicate(timeout=500)
        assert process.returncode == 0, error
        assert printed.startswith("2 entries, ")
    (folder,) = (tmp_path / "c" / "indexes").iterdir()
    assert len(load_index(folder).entries) == 2
    assert len(list(folder.iterdir())) == 5


def test_without_home_locale_network_and_a_second_core_it_answers(tmp_path: Path) -> None:
    corpus = tmp_path / "küche.md"
    corpus.write_text("## Roux\n\nA roux — flour in fat — thickens “à la minute”.\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "jargon_rag",
        "ask",
        "What is a roux?",
        "--corpus",
        str(corpus),
        "--style",
        "plain",
    ]
    if shutil.which("taskset"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    bare = BARE | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HTTPS_PROXY": "http://127.0.0.1:9"}
    bare["JARGON_RAG_CACHE"] = str(default_cache_dir())
    done = subprocess.run(command, capture_output=True, check=False, timeout=500, env=bare)
    assert done.returncode == 0, done.stderr
    assert b"thickens" in done.stdout
    assert b"[1] Roux" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user whom the system does not know")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    told = python(
        "import os\n"
        "from jargon_rag.errors import JargonRAGError\n"
        "from jargon_rag.paths import default_cache_dir\n"
        "del os.environ['HOME']\n"
        "os.setuid(54321)\n"
        "try:\n"
        "    print(default_cache_dir())\n"
        "except JargonRAGError as error:\n"
        "    print(error)",
    )
    assert "Set JARGON_RAG_CACHE" in told
