"""The forward pass of a Llama model (Touvron et al. 2023) in a few plain operations a layer, for decoding on a CPU.

At 135M parameters a decoding step through transformers is mostly Python; here the projections of a layer are fused, and
keys and values are written into a cache that is allocated once. Token ids of one sequence in, logits of the last token
out; the same numbers as transformers' LlamaForCausalLM up to rounding (a test compares them).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

BLOCK = 256  # tokens by which a cache grows


@dataclass(frozen=True, slots=True)
class _Layer:
    before: torch.Tensor  # weights of the norm before attention
    qkv: torch.Tensor  # queries, keys and values in one matrix
    out: torch.Tensor
    between: torch.Tensor  # weights of the norm before the feed-forward part
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(slots=True)
class Cache:
    """Keys and values of the tokens read so far, each of shape (layers, key heads, capacity, head size)."""

    keys: torch.Tensor
    values: torch.Tensor
    length: int


class FastLlama:
    """Stands in for a LlamaForCausalLM where one sequence is decoded; called as transformers calls a model."""

    def __init__(self, model: Any) -> None:
        """Take over the weights of a model for which `fits` holds; they are fused, not copied twice."""
        config = model.config
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size = model.model.layers[0].self_attn.head_dim
        self._epsilon = config.rms_norm_eps
        self._embedding = model.model.embed_tokens.weight.detach()
        self._head = model.lm_head.weight.detach()
        self._norm = model.model.norm.weight.detach()
        self._layers = [_fuse(layer) for layer in model.model.layers]
        self._rotary = model.model.rotary_emb

    def __call__(
        self, *, input_ids: torch.Tensor, past_key_values: Cache | None, use_cache: bool, logits_to_keep: int
    ) -> SimpleNamespace:
        """Read tokens of shape (1, n) after those in the cache; logits have shape (1, 1, vocabulary)."""
        assert use_cache and logits_to_keep == 1 and len(input_ids) == 1
        n = input_ids.shape[1]
        cache = self._grown(past_key_values, n)
        start, end = cache.length, cache.length + n
        hidden = self._embedding[input_ids]  # (1, n, width)
        cosine, sine = (part[0] for part in self._rotary(hidden, torch.arange(start, end)[None]))  # (n, size)
        mask = None
        if n > 1 and start:
            mask = torch.ones(n, end, dtype=torch.bool).tril(start)
        for number, layer in enumerate(self._layers):
            normed = rms_norm(hidden, hidden.shape[-1:], layer.before, self._epsilon)
            heads = linear(normed, layer.qkv).view(n, -1, self._size).transpose(0, 1)  # (all heads, n, size)
            turned, values = heads[: -self._key_heads], heads[-self._key_heads :]
            turned = turned * cosine + _half_turned(turned) * sine
            cache.keys[number, :, start:end] = turned[self._heads :]
            cache.values[number, :, start:end] = values
            attended = scaled_dot_product_attention(
                turned[None, : self._heads],
                cache.keys[number, None, :, :end],
                cache.values[number, None, :, :end],
                attn_mask=mask,
                is_causal=n > 1 and not start,
                enable_gqa=True,
            )
            hidden = hidden + linear(attended.transpose(1, 2).reshape(1, n, -1), layer.out)
            normed = rms_norm(hidden, hidden.shape[-1:], layer.between, self._epsilon)
            gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + linear(silu(gate) * up, layer.down)
        cache.length = end
        last = rms_norm(hidden[:, -1:], hidden.shape[-1:], self._norm, self._epsilon)
        return SimpleNamespace(logits=linear(last, self._head), past_key_values=cache)

    def _grown(self, cache: Cache | None, n: int) -> Cache:
        """Return a cache with room for n tokens more."""
        length = cache.length if cache is not None else 0
        if cache is not None and length + n <= cache.keys.shape[2]:
            return cache
        shape = (len(self._layers), self._key_heads, length + n + BLOCK, self._size)
        keys, values = (torch.empty(shape, dtype=self._embedding.dtype) for _ in range(2))
        if cache is not None:
            keys[:, :, :length], values[:, :, :length] = cache.keys[:, :, :length], cache.values[:, :, :length]
        return Cache(keys, values, length)


def fits(model: Any) -> bool:
    """Tell whether a model is a Llama that FastLlama computes: no biases, no quantisation, SiLU."""
    config = model.config
    if config.model_type != "llama" or config.hidden_act != "silu":
        return False
    return not (config.attention_bias or config.mlp_bias or getattr(config, "quantization_config", None))


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _fuse(layer: Any) -> _Layer:
    attention, feed = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight.detach(),
        torch.cat([part.weight.detach() for part in (attention.q_proj, attention.k_proj, attention.v_proj)]),
        attention.o_proj.weight.detach(),
        layer.post_attention_layernorm.weight.detach(),
        torch.cat([feed.gate_proj.weight.detach(), feed.up_proj.weight.detach()]),
        feed.down_proj.weight.detach(),
    )
