"""Other libraries at their documented defaults, with the same embedder, on the same glossary.

Needs `pip install -e '.[peers]'`. Each function returns a search: question → headings, best first. A chunk counts for the
heading that it stands under; where a splitter keeps no headings, for the last heading before the chunk's beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jargon_rag.glossary import glossary_files, read_glossary
from jargon_rag.types import Embedder

CHUNKS = 20  # asked for, so that at least three headings come back

Search = Callable[[str], Sequence[str]]


def peers(glossary: Path, embedder: Embedder) -> dict[str, Search]:
    """Return every peer's search by its name."""
    return {
        "LangChain: MarkdownHeaderTextSplitter, FAISS": langchain(glossary, embedder),
        "LlamaIndex: MarkdownNodeParser, VectorStoreIndex": llama_index(glossary, embedder, by_heading=True),
        "LlamaIndex: default splitter, VectorStoreIndex": llama_index(glossary, embedder, by_heading=False),
        "txtai: hybrid, one section an entry": txtai(glossary, embedder),
    }


def langchain(glossary: Path, embedder: Embedder) -> Search:
    """Split at headings, search in FAISS (python.langchain.com, 'Split markdown' and 'FAISS')."""
    from langchain_community.vectorstores import FAISS
    from langchain_text_splitters import MarkdownHeaderTextSplitter

    splitter = MarkdownHeaderTextSplitter([("#", "area"), ("##", "term")])
    documents = [document for text in _texts(glossary) for document in splitter.split_text(text)]
    store = FAISS.from_documents(
        [document for document in documents if "term" in document.metadata], langchain_embeddings(embedder)
    )
    return lambda question: _once(found.metadata["term"] for found in store.similarity_search(question, k=CHUNKS))


def llama_index(glossary: Path, embedder: Embedder, *, by_heading: bool) -> Search:
    """Build a VectorStoreIndex (docs.llamaindex.ai), from nodes at headings or from its default splitter's."""
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter

    Settings.llm = MockLLM()
    documents = [Document(text=text) for text in _texts(glossary)]
    parser = MarkdownNodeParser() if by_heading else SentenceSplitter()
    nodes = parser.get_nodes_from_documents(documents)
    retriever = VectorStoreIndex(nodes, embed_model=llama_index_embedding(embedder)).as_retriever(
        similarity_top_k=CHUNKS
    )
    terms = {entry.term for entry in read_glossary(glossary)}
    heading_of = {}
    for document in documents:
        term = ""
        for start, name in _headings(document.text):
            heading_of[document.doc_id, start] = term = name if name in terms else term

    def heading(node: object) -> str:
        start, source = node.start_char_idx or 0, node.ref_doc_id  # type: ignore[attr-defined]
        before = [place for (document_id, place) in heading_of if document_id == source and place <= start]
        return heading_of[source, max(before)] if before else ""

    return lambda question: _once(heading(found.node) for found in retriever.retrieve(question))


def txtai(glossary: Path, embedder: Embedder) -> Search:
    """Index one section an entry, dense and sparse together (neuml.github.io/txtai, 'hybrid')."""
    from txtai import Embeddings

    entries = read_glossary(glossary)
    lines = {file.name: file.read_text("utf-8").split("\n") for file in glossary_files(glossary)}
    texts = ["\n".join(lines[Path(entry.path).name][entry.line - 1 : entry.end_line]) for entry in entries]
    embeddings = Embeddings(method="external", transform=lambda texts: embedder.embed(texts), hybrid=True)
    embeddings.index((number, text, None) for number, text in enumerate(texts))
    return lambda question: _once(entries[number].term for number, _ in embeddings.search(question, CHUNKS))


def langchain_embeddings(embedder: Embedder) -> Any:
    """Return an embedder as LangChain calls one."""
    from langchain_core.embeddings import Embeddings

    class Same(Embeddings):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embedder.embed(texts).tolist()  # type: ignore[no-any-return]

        def embed_query(self, text: str) -> list[float]:
            return embedder.embed([text])[0].tolist()  # type: ignore[no-any-return]

    return Same()


def llama_index_embedding(embedder: Embedder) -> Any:
    """Return an embedder as LlamaIndex calls one."""
    from llama_index.core.embeddings import BaseEmbedding

    class Same(BaseEmbedding):  # type: ignore[misc]
        def _get_query_embedding(self, query: str) -> list[float]:
            return embedder.embed([query])[0].tolist()  # type: ignore[no-any-return]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

        def _get_text_embedding(self, text: str) -> list[float]:
            return self._get_query_embedding(text)

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return embedder.embed(texts).tolist()  # type: ignore[no-any-return]

    return Same()


def _texts(glossary: Path) -> list[str]:
    return [file.read_text("utf-8") for file in glossary_files(glossary)]


def _headings(text: str) -> list[tuple[int, str]]:
    places, start = [], 0
    for line in text.split("\n"):
        if line.startswith("## "):
            places.append((start, line[3:].strip()))
        start += len(line) + 1
    return places


def _once(terms: object) -> list[str]:
    return [term for term in dict.fromkeys(terms) if term]  # type: ignore[call-overload]
