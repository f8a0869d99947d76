"""Sentence embeddings with sentence-transformers, and the shipped LoRA that teaches the default model to match questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jargon_rag.errors import WeightsError
from jargon_rag.models import EMBEDDER, check_sha256, find_model, sha256
from jargon_rag.paths import check_shipped, shipped_folder

if TYPE_CHECKING:
    from torch.nn import Module

LORA = "embedder.safetensors"  # in the shipped `adapter` folder; made by `python -m training.embedder`


class SentenceTransformerEmbedder:
    """all-MiniLM-L6-v2 with the shipped LoRA merged in, or any sentence-transformers model by folder or Hugging Face id.

    Sentence-BERT: Reimers & Gurevych 2019. LoRA: Hu et al. 2021. Safe to call from several threads; calls take turns.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        cache_dir: Path,
        lora: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the model; raises WeightsError naming it when it is not on this machine or cannot be read.

        lora: merge the shipped LoRA, which goes with the default weights only; False leaves them as published.
        """
        found = find_model(model, EMBEDDER, cache_dir=cache_dir)
        if isinstance(found, str):
            say(f"Embedder {found}: from the Hugging Face cache, or fetched from the hub")
        elif model is None:
            check_sha256(found / EMBEDDER.file, EMBEDDER.sha256)
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(str(found), device="cpu", local_files_only=isinstance(found, Path))
        except Exception as error:  # it raises what its many file formats raise
            raise WeightsError(f"Cannot load the embedder {found}: {error}. Try: jargon-rag doctor") from error
        weights = found / "model.safetensors" if isinstance(found, Path) else None
        version = sha256(weights)[:12] if weights is not None and weights.is_file() else "unhashed"
        name = EMBEDDER.name if version == EMBEDDER.sha256[:12] else Path(str(found)).name
        self._id = f"{name}@{version}"
        if lora and version == EMBEDDER.sha256[:12]:
            self._id += f"+{merge_lora(self._model, shipped_folder('adapter') / LORA)}"
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Return the model's name and the beginning of its weights' SHA-256, then that of the LoRA's."""
        return self._id

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Return float32 unit vectors of shape (len(texts), dimension); `progress` shows a bar on stderr."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=progress, convert_to_numpy=True
            )
        return np.asarray(vectors, dtype=np.float32)


def merge_lora(model: Module, file: Path) -> str:
    """Add a LoRA's products to the weights they belong to, W + (alpha / rank) · B · A; return the file's hash, shortened."""
    from safetensors import SafetensorError, safe_open

    check_shipped(file)
    weights = dict(model.named_parameters())
    try:
        with safe_open(file, framework="pt") as stored:
            scale = float(stored.metadata()["alpha"]) / float(stored.metadata()["rank"])
            for name in list(stored.keys()):
                if name.endswith(".lora_A"):
                    product = (
                        stored.get_tensor(name.replace(".lora_A", ".lora_B")).float() @ stored.get_tensor(name).float()
                    )
                    weights[name.replace(".lora_A", ".weight")].data += scale * product
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"Cannot read the embedder's LoRA {file}: {error}. Install the package again.") from error
    return sha256(file)[:8]
