"""Other libraries with the same weights: whole pipelines at their documented defaults, and llama.cpp as the engine alone.

Needs `make bench-full`'s packages. One that is not installed is named as such in the result, never left out silently.
Three settings differ from the defaults, all in the libraries' favour: an answer has at most as many tokens as that of plain
transformers, they decode greedily, which draws nothing at random, and LlamaIndex is told that the model is one for chat.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.plain import LIMIT, Row
from evals.peers import langchain_embeddings, llama_index_embedding
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.glossary import glossary_files
from jargon_rag.models import LANGUAGE_MODEL, find_packaged
from jargon_rag.paths import default_cache_dir, shipped_folder

CONTEXT = 4096  # tokens that llama.cpp makes room for

Chatbot = Callable[[str], Row]  # question → measures of the whole answer
Engine = Callable[[Sequence[int], int], Row]  # prompt's ids, tokens to write → measures of the generation


@dataclass(frozen=True, slots=True)
class Peers:
    """What is measured beside ours, and what is known of each: its version, or why it is missing."""

    chatbots: dict[str, Chatbot] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@contextmanager
def open_peers(folder: Path, tokenizer: Any, model: Any, *, wanted: bool, threads: int) -> Iterator[Peers]:
    """Load every peer that is installed; `model` is transformers' in the dtype that our engine computes in."""
    peers = Peers()
    if not wanted:
        yield peers
        return
    embedder = SentenceTransformerEmbedder(cache_dir=default_cache_dir(), lora=False)
    for name, module, package, opened in (
        ("LangChain", "langchain_huggingface", "langchain-huggingface", langchain),
        ("LlamaIndex", "llama_index.llms.huggingface", "llama-index-llms-huggingface", llama_index),
    ):
        if _installed(module):
            peers.chatbots[name] = opened(embedder, tokenizer, model)
            peers.notes[name] = f"{package} {version(package)}"
        else:
            peers.notes[name] = f"not installed ({package})"
    with tempfile.TemporaryDirectory() as temporary:
        packaged = find_packaged(LANGUAGE_MODEL, cache_dir=default_cache_dir())
        assert packaged is not None, "its weights are loaded"
        quantised = packaged / LANGUAGE_MODEL.file
        merged = Path(temporary) / "merged-bf16.gguf"
        for name, module, package, opener in (
            ("llama.cpp, wheel of xllamacpp", "xllamacpp", "xllamacpp", xllamacpp),
            ("llama.cpp, llama-cpp-python built here", "llama_cpp", "llama-cpp-python", llama_cpp_python),
        ):
            if not _installed(module):
                peers.notes[name] = f"not installed ({package})"
                continue
            if not merged.is_file():
                write_gguf(folder, quantised, merged)
            for kind, file in (("BF16", merged), (quantised.name.split(".")[-2], quantised)):
                peers.engines[f"{name}, {kind}"], system = opener(file, threads)
            peers.notes[name] = f"{package} {version(package)}: {system}"
        yield peers


def langchain(embedder: SentenceTransformerEmbedder, tokenizer: Any, model: Any) -> Chatbot:
    """Split into 1,000 characters with 200 of overlap, search in FAISS, stuff what is found into the default prompt.

    python.langchain.com: the RAG tutorial, 'FAISS' and 'Hugging Face Local Pipelines'.
    """
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain
    from langchain_classic.chains.question_answering.stuff_prompt import PROMPT_SELECTOR
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from transformers import pipeline

    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    documents = splitter.create_documents(
        [file.read_text("utf-8") for file in glossary_files(shipped_folder("corpus"))]
    )
    store = FAISS.from_documents(documents, langchain_embeddings(embedder))
    watch = _Watch(model)
    generate = pipeline(
        "text-generation",
        model=watch.model,
        tokenizer=tokenizer,
        max_new_tokens=LIMIT,
        do_sample=False,
        return_full_text=False,
    )
    chat = ChatHuggingFace(llm=HuggingFacePipeline(pipeline=generate), tokenizer=tokenizer)
    answer = create_stuff_documents_chain(chat, PROMPT_SELECTOR.get_prompt(chat))
    search = store.as_retriever()
    return lambda question: watch.timed(
        lambda: answer.invoke({"context": search.invoke(question), "question": question})
    )


def llama_index(embedder: SentenceTransformerEmbedder, tokenizer: Any, model: Any) -> Chatbot:
    """Index with the default splitter and ask the default query engine (docs.llamaindex.ai, 'Starter Tutorial' with local models)."""
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.llms.huggingface import HuggingFaceLLM

    watch = _Watch(model)
    llm = HuggingFaceLLM(
        model=watch.model,
        tokenizer=tokenizer,
        max_new_tokens=LIMIT,
        generate_kwargs={"do_sample": False},
        is_chat_model=True,
    )
    documents = [Document(text=file.read_text("utf-8")) for file in glossary_files(shipped_folder("corpus"))]
    index = VectorStoreIndex.from_documents(documents, embed_model=llama_index_embedding(embedder))
    engine = index.as_query_engine(llm=llm)
    return lambda question: watch.timed(lambda: engine.query(question))


def xllamacpp(file: Path, threads: int) -> tuple[Engine, str]:
    """Load a GGUF into llama.cpp's own server, as the prebuilt wheel has it; return its completions and what it was built for."""
    import xllamacpp as cpp

    params = cpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = CONTEXT, 1, 1  # 1: errors only
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = cpp.Server(params)

    def generate(prompt: Sequence[int], tokens: int) -> Row:
        wish = {
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        started = time.perf_counter()
        answer = server.handle_completions(wish)
        total = 1000 * (time.perf_counter() - started)
        usage = answer["usage"]
        return {
            "total_ms": total,
            "prompt_tokens": usage["prompt_tokens"],
            "answer_tokens": usage["completion_tokens"],
        }

    return generate, cpp.get_system_info().strip(" |")


def llama_cpp_python(file: Path, threads: int) -> tuple[Engine, str]:
    """Load a GGUF into llama-cpp-python, which is built from source for this processor."""
    import llama_cpp

    llm = llama_cpp.Llama(
        str(file), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False
    )

    def generate(prompt: Sequence[int], tokens: int) -> Row:
        llm.reset()
        started = time.perf_counter()
        made = list(islice(llm.generate(prompt, temp=0.0), tokens))  # it does not stop by itself
        total = 1000 * (time.perf_counter() - started)
        return {"total_ms": total, "prompt_tokens": len(prompt), "answer_tokens": len(made)}

    return generate, llama_cpp.llama_print_system_info().decode().strip(" |")


def write_gguf(folder: Path, published: Path, out: Path) -> None:
    """Write merged weights as a BF16 GGUF: metadata and tokenizer of the published file, our tensors in its layout."""
    import gguf
    import torch
    from safetensors.torch import load_file

    reader = gguf.GGUFReader(published)
    writer = gguf.GGUFWriter(out, "llama")
    for name, part in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            kind, *inner = part.types
            writer.add_key_value(name, part.contents(), kind, sub_type=inner[-1] if inner else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    field_of = {
        name: reader.fields[f"llama.{name}"].contents()
        for name in ("block_count", "attention.head_count", "attention.head_count_kv")
    }
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, field_of["block_count"])
    heads = {"q_proj": field_of["attention.head_count"], "k_proj": field_of["attention.head_count_kv"]}
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name == "lm_head.weight":  # tied to the embedding
            continue
        data = tensor.to(torch.float32).numpy()
        for part, number in heads.items():
            if f".{part}." in name:  # GGUF keeps the two halves of a rotated pair side by side
                data = data.reshape(number, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        kind = gguf.GGMLQuantizationType.F32 if data.ndim == 1 else gguf.GGMLQuantizationType.BF16
        writer.add_tensor(names.get_name(name, (".weight",)), gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Watch:
    """A transformers model whose `generate` calls are counted: the tokens that a pipeline puts in and gets out."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._counts: list[tuple[int, int]] = []

    def timed(self, ask: Callable[[], object]) -> Row:
        """Return the measures of one answer."""
        generate = self.model.generate
        counts: list[tuple[int, int]] = []

        def counting(*arguments: Any, **named: Any) -> Any:
            output = generate(*arguments, **named)
            put = named["input_ids"].shape[1]
            counts.append((put, output.shape[1] - put))
            return output

        self.model.generate = counting
        try:
            started = time.perf_counter()
            ask()
            total = 1000 * (time.perf_counter() - started)
        finally:
            del self.model.generate
        return {
            "total_ms": total,
            "prompt_tokens": sum(put for put, _ in counts),
            "answer_tokens": sum(made for _, made in counts),
        }


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a namespace that is not there
        return False
