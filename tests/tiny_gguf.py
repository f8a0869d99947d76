"""A Llama of one small layer as GGUF, for tests that convert one many times."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np

from jargon_rag.models import LANGUAGE_MODEL, PackagedModel, sha256

WIDTH, INNER, HEADS = 32, 64, 2


def write(folder: Path) -> PackagedModel:
    """Write `tiny.gguf` into a folder and return what the package would know of it."""
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "ab"]
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")},
        "blk.0.ffn_down": (WIDTH, INNER),
        **dict.fromkeys(("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"), (WIDTH,)),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = folder / "tiny.gguf"
    return dataclasses.replace(LANGUAGE_MODEL, file=file.name, sha256=sha256(file))
