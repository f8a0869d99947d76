"""A RAG chatbot started in the plain way, as what our cold start is compared with: `python -m benchmarks.eager QUESTION`.

It imports everything first, reads the language model out of its GGUF with transformers, embeds the question, puts the three
nearest whole entries into the prompt, and answers. Prints one JSON object: the answer and the resident memory.
"""

from __future__ import annotations

import json
import os
import sys

import gradio
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.machine import resident_mib
from benchmarks.plain import ENTRIES, LIMIT, whole_entries
from jargon_rag.index import load_index
from jargon_rag.models import EMBEDDER, LANGUAGE_MODEL, find_model
from jargon_rag.paths import default_cache_dir, shipped_folder
from jargon_rag.prompt import build_messages


def main() -> None:
    """Load, answer, print."""
    question = sys.argv[1]
    folder = find_model(None, LANGUAGE_MODEL, cache_dir=default_cache_dir())
    source = {"gguf_file": LANGUAGE_MODEL.file, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source).eval()
    embedder = SentenceTransformer(str(find_model(None, EMBEDDER, cache_dir=default_cache_dir())), device="cpu")
    index = load_index(shipped_folder("index"))
    found = index.search(embedder.encode([question], normalize_embeddings=True)[0], top_k=10 * ENTRIES)
    slugs = list(dict.fromkeys(index.chunks[row].slug for row, _ in found))[:ENTRIES]
    by_slug = {entry.slug: entry for entry in index.entries}
    facts = whole_entries([by_slug[slug] for slug in slugs])
    prompt = tokenizer.apply_chat_template(
        build_messages(question, facts, style="rick"),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        made = model.generate(**prompt, do_sample=False, max_new_tokens=LIMIT)[0, prompt["input_ids"].shape[1] :]
    answer = tokenizer.decode(made, skip_special_tokens=True)
    print(json.dumps({"answer": answer, "memory_mib": resident_mib(os.getpid()), "gradio": gradio.__version__}))


if __name__ == "__main__":
    main()
