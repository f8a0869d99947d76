"""The lean forward pass gives the numbers of transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from jargon_rag.llama import BLOCK, FastLlama, fits


def small(**settings: Any) -> Any:
    """Return a random Llama with grouped keys, in double precision."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        **settings,
    )
    return LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize("lengths", [[1], [7], [5, 1, 1], [3, 4, 1, 9], [1, BLOCK, 2, BLOCK + 1, 1]])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(lengths: list[int], tied: bool) -> None:
    model = small(tie_word_embeddings=tied)
    fast = FastLlama(model)
    theirs = ours = None
    with torch.inference_mode():
        for length in lengths:
            ids = torch.randint(0, 97, (1, length))
            expected = model(input_ids=ids, past_key_values=theirs, use_cache=True, logits_to_keep=1)
            found = fast(input_ids=ids, past_key_values=ours, use_cache=True, logits_to_keep=1)
            theirs, ours = expected.past_key_values, found.past_key_values
            assert found.logits.shape == (1, 1, 97)
            torch.testing.assert_close(found.logits, expected.logits)
    assert ours is not None
    assert ours.length == sum(lengths)


def test_two_sequences_do_not_share_a_cache() -> None:
    fast = FastLlama(small())
    with torch.inference_mode():
        first = fast(input_ids=torch.tensor([[1, 2]]), past_key_values=None, use_cache=True, logits_to_keep=1)
        again = fast(input_ids=torch.tensor([[1, 2]]), past_key_values=None, use_cache=True, logits_to_keep=1)
    assert first.past_key_values is not again.past_key_values
    assert torch.equal(first.logits, again.logits)


def test_only_a_plain_llama_fits() -> None:
    assert fits(small())
    assert not fits(small(attention_bias=True))
    assert not fits(small(hidden_act="gelu"))
