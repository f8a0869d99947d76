"""Shared, expensive things: the real embedder and the real bot, loaded once for all tests."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GOMP_SPINCOUNT", "300000")  # as the command line does

from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.paths import default_cache_dir
from jargon_rag.rag import JargonRAG
from jargon_rag.types import AnswerForm, LanguageModel, Message, TextPiece
from jargon_rag.ui.page import launch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The shipped glossary's folder."""
    return ROOT / "corpus"


@pytest.fixture(scope="session")
def embedder() -> SentenceTransformerEmbedder:
    """all-MiniLM-L6-v2, from the installed package."""
    return SentenceTransformerEmbedder(cache_dir=default_cache_dir())


@pytest.fixture(scope="session")
def rag(embedder: SentenceTransformerEmbedder) -> JargonRAG:
    """The bot on the shipped index, with the real language model loaded."""
    bot = JargonRAG(embedder=embedder)
    bot.load()
    return bot


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gated:
    """The real language model, which goes on only while its gate is open."""

    id = "gated"

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.gate = threading.Event()
        self.started, self.closed = threading.Event(), threading.Event()  # the last stream

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        self.closed.clear()
        try:
            for piece in self._model.stream(messages, max_new_tokens=max_new_tokens, form=form):
                self.started.set()
                yield piece
                while not self.gate.wait(0.02):
                    yield TextPiece("", piece.prompt_tokens, piece.answer_tokens)  # a slow machine thinks
        finally:
            self.closed.set()


@pytest.fixture
def gated(rag: JargonRAG, embedder: SentenceTransformerEmbedder) -> Iterator[tuple[str, Gated]]:
    """The page with a model that stops for its gate, and the model."""
    model, port = Gated(rag.load()), free_port()
    model.gate.set()
    bot = JargonRAG(embedder=embedder, model=model)
    page = launch(lambda _: bot, port=port, say=lambda _: None, wait=False)
    yield f"http://127.0.0.1:{port}/", model
    model.gate.set()
    page.close()
