"""The forward pass of a Llama model (Touvron et al. 2023) in a few plain operations a layer, for decoding on a CPU.

At 135M parameters a decoding step through transformers is mostly Python; here the projections of a layer are fused, and
keys and values are written into a cache that is allocated once. Several sequences are read in one pass: their tokens
stand one after the other, so that the weights are read once for all of them; only attention looks at each by itself.
Token ids in, hidden states and the choice of a next token out; the same numbers as transformers' LlamaForCausalLM up to
rounding (a test compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

# tokens by which a cache grows; the default model's is over 32 MiB then, which glibc always maps by itself: only pages that
# are written are taken, and all are given back when it is freed, where smaller pieces of ever new sizes leave gaps
BLOCK = 1536
FEW = 32  # rows up to which the weights are better the left factor: they need not be rearranged then


@dataclass(frozen=True, slots=True)
class _Layer:
    before: torch.Tensor  # weights of the norm before attention
    qkv: torch.Tensor  # queries, keys and values in one matrix
    out: torch.Tensor
    between: torch.Tensor  # weights of the norm before the feed-forward part
    gate_up: torch.Tensor
    down: torch.Tensor


class Cache:
    """Keys and values of the tokens of one sequence that were read, each of shape (layers, key heads, capacity, head size)."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int = 0) -> None:
        """Keep tensors whose first `length` tokens are filled."""
        self.keys, self.values, self.length = keys, values, length

    def copy(self) -> Cache:
        """Return a cache with the same tokens, and room for more, that grows by itself."""
        grown = Cache(self.keys, self.values, self.length)
        grown._grow(0)
        return grown

    def make_room(self, tokens: int) -> None:
        """See to it that so many more fit."""
        if self.length + tokens > self.keys.shape[2]:
            self._grow(tokens)

    def _grow(self, tokens: int) -> None:
        layers, heads, _, size = self.keys.shape
        both = self.keys.new_empty(2, layers, heads, self.length + tokens + BLOCK, size)
        both[0, :, :, : self.length] = self.keys[:, :, : self.length]
        both[1, :, :, : self.length] = self.values[:, :, : self.length]
        self.keys, self.values = both


class FastLlama:
    """Stands in for a LlamaForCausalLM where sequences are decoded."""

    def __init__(self, model: Any) -> None:
        """Take over the weights of a model for which `fits` holds; they are fused, not copied twice."""
        config = model.config
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size = model.model.layers[0].self_attn.head_dim
        self._epsilon = config.rms_norm_eps
        self._embedding = model.model.embed_tokens.weight.detach()
        self._head = model.lm_head.weight.detach()
        self._sums = torch.promote_types(self._embedding.dtype, torch.float32)  # what layers add up in
        self._norm = model.model.norm.weight.detach().to(self._sums)
        self._layers = [_fuse(layer, self._sums) for layer in model.model.layers]
        self._rotary = model.model.rotary_emb

    def new_cache(self) -> Cache:
        """Return a cache without tokens."""
        shape = (len(self._layers), self._key_heads, 0, self._size)
        empty = torch.empty(shape, dtype=self._embedding.dtype)
        return Cache(empty, empty)

    def read(self, sequences: Sequence[tuple[Sequence[int], Cache]]) -> torch.Tensor:
        """Read the next tokens of each sequence into its cache; return the states after their last ones, (sequences, width)."""
        last = torch.tensor([len(ids) for ids, _ in sequences]).cumsum(0) - 1
        return self._normed(self._states(sequences)[last], self._norm)

    def likelihoods(self, ids: Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-likelihood in nats of the same tokens after each prefix."""
        states = self._states([([*prefix, *ids[:-1]], self.new_cache()) for prefix in prefixes])
        ends = torch.tensor([len(prefix) + len(ids) - 1 for prefix in prefixes]).cumsum(0)
        before = torch.stack([torch.arange(int(end) - len(ids), int(end)) for end in ends])  # of each of the tokens
        logits = linear(self._normed(states[before], self._norm), self._head).to(self._sums)
        nats = logits.log_softmax(-1).gather(-1, torch.tensor(ids).expand(len(prefixes), -1)[..., None])
        return [float(value) for value in nats[..., 0].sum(-1)]

    def _states(self, sequences: Sequence[tuple[Sequence[int], Cache]]) -> torch.Tensor:
        """Read the next tokens of each sequence into its cache; return the states after each of them, (tokens, width)."""
        spans, places, end = [], [], 0
        for ids, cache in sequences:
            cache.make_room(len(ids))
            spans.append((end, end + len(ids), cache, _mask(cache.length, len(ids))))
            places.append(torch.arange(cache.length, cache.length + len(ids)))
            end += len(ids)
        rows = _rows(end)
        tokens = torch.zeros(rows, dtype=torch.long)
        tokens[:end] = torch.tensor([token for ids, _ in sequences for token in ids])
        embedded = self._embedding[tokens]  # (rows, width)
        places.append(torch.zeros(rows - end, dtype=torch.long))
        cosine, sine = (part[0] for part in self._rotary(embedded, torch.cat(places)[None]))  # (rows, size)
        hidden = embedded.to(self._sums)
        attended = embedded.new_zeros(rows, self._heads * self._size)
        for number, layer in enumerate(self._layers):
            heads = _times(self._normed(hidden, layer.before), layer.qkv).view(rows, -1, self._size).transpose(0, 1)
            turned, values = heads[: -self._key_heads], heads[-self._key_heads :]  # (heads, rows, size)
            turned = turned * cosine + _half_turned(turned) * sine
            for start, stop, cache, mask in spans:
                found = self._attend(turned[:, start:stop], values[:, start:stop], number, cache, mask)
                attended[start:stop] = found
            hidden += _times(attended, layer.out)
            gate, up = _times(self._normed(hidden, layer.between), layer.gate_up).chunk(2, dim=-1)
            hidden += _times(silu(gate) * up, layer.down)
        for ids, cache in sequences:
            cache.length += len(ids)
        states: torch.Tensor = hidden[:end]
        return states

    def choose(self, state: torch.Tensor, options: ArrayLike | None) -> int:
        """Return the likeliest next token after a state of shape (width,), of all or of some; only theirs are computed."""
        if options is None:
            return int((self._head @ state).argmax())
        allowed = torch.as_tensor(options)
        return int(allowed[(self._head[allowed] @ state).argmax()])

    def _attend(
        self, turned: torch.Tensor, values: torch.Tensor, number: int, cache: Cache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Write keys and values of one sequence's new tokens into its cache, and return what the queries find, (n, width)."""
        n, end = turned.shape[1], cache.length + turned.shape[1]
        cache.keys[number, :, cache.length : end] = turned[self._heads :]
        cache.values[number, :, cache.length : end] = values
        found = scaled_dot_product_attention(
            turned[None, : self._heads],
            cache.keys[number, None, :, :end],
            cache.values[number, None, :, :end],
            attn_mask=mask,
            is_causal=n > 1 and mask is None,
            enable_gqa=True,
        )
        return found[0].transpose(0, 1).reshape(n, -1)

    def _normed(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden, hidden.shape[-1:], weights, self._epsilon).to(self._embedding.dtype)


def fits(model: Any) -> bool:
    """Tell whether a model is a Llama that FastLlama computes: no biases, no quantisation, SiLU."""
    config = model.config
    if config.model_type != "llama" or config.hidden_act != "silu":
        return False
    return not (config.attention_bias or config.mlp_bias or getattr(config, "quantization_config", None))


def _mask(read: int, n: int) -> torch.Tensor | None:
    """Return which tokens the next n may look at, after so many that were read; None where that needs no saying."""
    return torch.ones(n, read + n, dtype=torch.bool).tril(read) if n > 1 and read else None


def _rows(tokens: int) -> int:
    """Return how many rows are computed for so many tokens: oneDNN compiles, and keeps, code for each number that it meets.

    At least two: a single one goes a slow way of its own.
    """
    return -(-tokens // FEW) * FEW if tokens > FEW else max(2, 1 << (tokens - 1).bit_length())


def _times(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return x @ weights.T for x of shape (rows, in)."""
    if len(x) > FEW or x.dtype != torch.bfloat16:
        return linear(x, weights)
    return torch.mm(weights, x.t()).t().contiguous()  # oneDNN rearranges the right factor


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _fuse(layer: Any, sums: torch.dtype) -> _Layer:
    attention, feed = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight.detach().to(sums),
        torch.cat([part.weight.detach() for part in (attention.q_proj, attention.k_proj, attention.v_proj)]),
        attention.o_proj.weight.detach(),
        layer.post_attention_layernorm.weight.detach().to(sums),
        torch.cat([feed.gate_proj.weight.detach(), feed.up_proj.weight.detach()]),
        feed.down_proj.weight.detach(),
    )
