"""Sentence embeddings with sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jargon_rag.errors import WeightsError
from jargon_rag.models import EMBEDDER, find_model, sha256


class SentenceTransformerEmbedder:
    """all-MiniLM-L6-v2, or any sentence-transformers model by folder or Hugging Face id.

    Sentence-BERT: Reimers & Gurevych 2019. Safe to call from several threads; calls take turns.
    """

    def __init__(
        self, model: str | None = None, *, cache_dir: Path, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load the model; raises WeightsError naming it when it is not on this machine or cannot be read."""
        found = find_model(model, EMBEDDER, cache_dir=cache_dir)
        if isinstance(found, str):
            say(f"Embedder {found}: from the Hugging Face cache, or fetched from the hub")
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(str(found), device="cpu", local_files_only=isinstance(found, Path))
        except Exception as error:  # it raises what its many file formats raise
            raise WeightsError(f"Cannot load the embedder {found}: {error}. Try: jargon-rag doctor") from error
        weights = found / "model.safetensors" if isinstance(found, Path) else None
        version = sha256(weights)[:12] if weights is not None and weights.is_file() else "unhashed"
        name = EMBEDDER.name if version == EMBEDDER.sha256[:12] else Path(str(found)).name
        self._id = f"{name}@{version}"
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Return the model's name and the beginning of its weights' SHA-256."""
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
