"""Ask a glossary of AI jargon in your own words; every claim of the answer is cited and checked.

    from jargon_rag import JargonRAG
    print(JargonRAG().ask("Why does dropout help?"))

Importing this package loads none of torch, transformers, faiss or gradio; `JargonRAG` loads what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jargon_rag.errors import (
    EngineError,
    GlossaryError,
    IndexFileError,
    InputError,
    JargonRAGError,
    TooManyQuestions,
    WeightsError,
)
from jargon_rag.types import (
    Answer,
    AnswerForm,
    Chunk,
    Citation,
    CodeBlock,
    Embedder,
    Entry,
    LanguageModel,
    Passage,
    Question,
    Retrieval,
    SearchResult,
    Sentence,
    Snippet,
    TextPiece,
    Timings,
    Turn,
    Verdict,
)  # fmt: skip

if TYPE_CHECKING:
    from jargon_rag.rag import Chat, JargonRAG
    from jargon_rag.remote import RemoteGenerator

__version__ = "0.1.0"
__all__ = [
    "Answer", "AnswerForm", "Chat", "Chunk", "Citation", "CodeBlock", "Embedder", "EngineError", "Entry", "GlossaryError", "IndexFileError", "InputError", "JargonRAG",
    "JargonRAGError", "LanguageModel", "Passage", "Question", "RemoteGenerator", "Retrieval", "SearchResult", "Sentence", "Snippet", "TextPiece", "Timings",
    "TooManyQuestions", "Turn", "Verdict", "WeightsError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the heavy half of the package when it is first named (PEP 562)."""
    if name in ("JargonRAG", "Chat"):
        from jargon_rag import rag

        return getattr(rag, name)
    if name == "RemoteGenerator":
        from jargon_rag.remote import RemoteGenerator

        return RemoteGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
