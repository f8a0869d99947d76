"""Shared, expensive things: the real embedder and the real bot, loaded once for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does

from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.paths import default_cache_dir
from jargon_rag.rag import JargonRAG

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
