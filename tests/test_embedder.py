"""The real embedder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jargon_rag.embedder import LORA, SentenceTransformerEmbedder
from jargon_rag.errors import WeightsError
from jargon_rag.models import EMBEDDER, find_packaged, sha256
from jargon_rag.paths import default_cache_dir, shipped_folder

TEXTS = ["What is overfitting?", "a kettle of fish", "gradient", "Why does dropout help a network?"]


@pytest.fixture(scope="module")
def model_folder() -> Path:
    """The folder of the default embedder's weights."""
    folder = find_packaged(EMBEDDER, cache_dir=default_cache_dir())
    assert folder is not None
    return folder


def test_vectors_are_float32_of_unit_length_one_a_text(embedder: SentenceTransformerEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (4, embedder.dimension) == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_the_same_text_has_the_same_vector_alone_and_in_a_batch(embedder: SentenceTransformerEmbedder) -> None:
    together = embedder.embed(TEXTS)
    for row, text in enumerate(TEXTS):
        assert np.array_equal(embedder.embed([text]), embedder.embed([text]))
        assert together[row] == pytest.approx(embedder.embed([text])[0], abs=1e-5)


def test_nearness_in_meaning_is_nearness_of_vectors(embedder: SentenceTransformerEmbedder) -> None:
    cat, kitten, tax = embedder.embed(["a sleeping cat", "a kitten takes a nap", "quarterly tax return"])
    assert cat @ kitten > cat @ tax + 0.2


def test_no_texts_give_no_rows_of_the_right_width(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.embed([]).dtype == np.float32


@pytest.mark.parametrize("text", ["", "   ", "\N{GRINNING FACE}", "\x00", "nul " * 20_000])
def test_odd_and_very_long_texts_have_unit_vectors(embedder: SentenceTransformerEmbedder, text: str) -> None:
    vectors = embedder.embed([text])
    assert vectors.shape == (1, 384)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_the_progress_bar_goes_to_stderr(
    embedder: SentenceTransformerEmbedder, capfd: pytest.CaptureFixture[str]
) -> None:
    embedder.embed(["a"])
    assert capfd.readouterr() == ("", "")
    embedder.embed(["a"], progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "1/1" in shown.err


PLAIN = f"all-MiniLM-L6-v2@{EMBEDDER.sha256[:12]}"


def test_the_id_holds_the_beginning_of_the_hash_of_the_weights_and_of_the_lora(
    embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    assert embedder.id == f"{PLAIN}+{sha256(shipped_folder('adapter') / LORA)[:8]}"
    assert SentenceTransformerEmbedder(cache_dir=tmp_path, lora=False).id == PLAIN


def test_the_same_weights_in_another_folder_have_the_same_id(
    model_folder: Path, embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "renamed")
    assert SentenceTransformerEmbedder(str(tmp_path / "renamed"), cache_dir=tmp_path).id == embedder.id


def test_the_lora_turns_vectors_and_keeps_their_length(embedder: SentenceTransformerEmbedder, tmp_path: Path) -> None:
    text = ["my loss never moves from the first step"]
    plain = SentenceTransformerEmbedder(cache_dir=tmp_path, lora=False).embed(text)[0]
    tuned = embedder.embed(text)[0]
    assert 0.1 < float(plain @ tuned) < 0.99
    assert np.linalg.norm(tuned) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("content", [b"", b"not safetensors", (8).to_bytes(8, "little") + b"{}      "])
def test_a_damaged_lora_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LORA).write_bytes(content)
    monkeypatch.setattr("jargon_rag.embedder.shipped_folder", lambda _: tmp_path)
    with pytest.raises(WeightsError, match=f"{LORA} is damaged"):
        SentenceTransformerEmbedder(cache_dir=tmp_path)


def test_other_weights_have_another_id(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(model_folder, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    name, version = SentenceTransformerEmbedder(str(folder), cache_dir=tmp_path).id.split("@")
    assert name == "mine"
    assert len(version) == 12
    assert version != EMBEDDER.sha256[:12]


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="jargon-rag doctor") as caught:
        SentenceTransformerEmbedder(str(tmp_path), cache_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_weights_are_an_error_that_names_the_folder(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model_folder, folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="Cannot load the embedder") as caught:
        SentenceTransformerEmbedder(str(folder), cache_dir=tmp_path)
    assert str(folder) in str(caught.value)


def test_a_hub_id_that_is_not_on_this_machine_is_an_error_that_names_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from jargon_rag.embedder import LORA, SentenceTransformerEmbedder as E;"
        "from jargon_rag.errors import WeightsError\n"
        "try: E('nobody/nothing', cache_dir=Path('.'), say=print)\n"
        "except WeightsError as error: print(error); sys.exit(7)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    note, message = done.stdout.split("\n", 1)
    assert note == "Embedder nobody/nothing: from the Hugging Face cache, or fetched from the hub"
    assert message.startswith("Cannot load the embedder nobody/nothing:")


def test_eight_threads_get_the_vectors_that_one_gets(embedder: SentenceTransformerEmbedder) -> None:
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS]
    alone = {text: embedder.embed([text])[0] for text in texts}
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: (text, embedder.embed([text])[0]), texts))
    assert len(together) == 32
    for text, vector in together:
        assert vector == pytest.approx(alone[text], abs=1e-6)
