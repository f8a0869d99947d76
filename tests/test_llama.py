"""The lean forward pass gives the numbers of transformers' own, for one sequence or several at once."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.machine import resident_mib
from jargon_rag.batching import Batcher
from jargon_rag.generator import ByTurns
from jargon_rag.llama import BLOCK, Cache, FastLlama, fits


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


def some(length: int) -> list[int]:
    return [random.Random(length).randrange(97) for _ in range(length)]


@pytest.mark.parametrize("lengths", [[1], [7], [5, 1, 1], [3, 4, 1, 9], [1, BLOCK, 2, BLOCK + 1, 1]])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(lengths: list[int], tied: bool) -> None:
    model = small(tie_word_embeddings=tied)
    fast = FastLlama(model)
    theirs, ours = None, fast.new_cache()
    with torch.inference_mode():
        for length in lengths:
            expected = model(
                input_ids=torch.tensor([some(length)]), past_key_values=theirs, use_cache=True, logits_to_keep=1
            )
            theirs = expected.past_key_values
            (state,) = fast.read([(some(length), ours)])
            logits = model.lm_head(state)
            torch.testing.assert_close(logits, expected.logits[0, -1])
            assert fast.choose(state, None) == int(expected.logits.argmax())
            assert fast.choose(state, [3, 5, 8]) == max([3, 5, 8], key=lambda token: float(logits[token]))
    assert ours.length == sum(lengths)


@pytest.mark.parametrize("lengths", [[1, 1], [7, 1, 3], [1, BLOCK + 3]])
def test_sequences_that_are_read_together_do_not_mix(lengths: list[int]) -> None:
    fast = FastLlama(small())
    with torch.inference_mode():
        alone, together = ([fast.new_cache() for _ in lengths] for _ in range(2))
        for _ in range(2):
            expected = [fast.read([(some(n), cache)])[0] for n, cache in zip(lengths, alone, strict=True)]
            found = fast.read([(some(n), cache) for n, cache in zip(lengths, together, strict=True)])
            torch.testing.assert_close(found, torch.stack(expected))


def test_a_copied_cache_goes_its_own_way() -> None:
    fast = FastLlama(small())
    with torch.inference_mode():
        cache = fast.new_cache()
        fast.read([([1, 2], cache)])
        first, second = cache.copy(), cache.copy()
        fast.read([([7, 8, 9], first)])
        (state,) = fast.read([([3], second)])
        (expected,) = fast.read([([1, 2, 3], fast.new_cache())])
    assert (cache.length, first.length, second.length) == (2, 5, 3)
    torch.testing.assert_close(state, expected)


def test_likelihoods_are_those_of_transformers() -> None:
    model = small()
    prefixes, ids = [some(3), some(40), some(7)], some(6)
    with torch.inference_mode():
        expected = []
        for prefix in prefixes:
            logits = model(input_ids=torch.tensor([[*prefix, *ids]])).logits[0, len(prefix) - 1 : -1]
            expected.append(float(logits.log_softmax(-1)[range(len(ids)), ids].sum()))
    assert Batcher(FastLlama(model)).likelihoods(ids, prefixes) == pytest.approx(expected)
    assert ByTurns(model).likelihoods(ids, prefixes) == pytest.approx(expected)
    assert ByTurns(model).likelihoods(ids[:1], prefixes[:1]) == pytest.approx(
        Batcher(FastLlama(model)).likelihoods(ids[:1], prefixes[:1])
    )


def test_only_a_few_numbers_of_rows_are_computed() -> None:
    """Each one is code that oneDNN compiles and keeps."""
    fast, multiplied = FastLlama(small()), set[int]()

    class Rows(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.linear:
                multiplied.add(len(args[0]))
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Rows():
        for length in (*range(1, 34), 63, 64, 65, 97):
            fast.read([(some(length), fast.new_cache())])
    assert multiplied == {2, 4, 8, 16, 32, 64, 96, 128}


def test_the_memory_of_caches_is_given_back() -> None:
    """Though they are of ever new sizes, and small things that stay are made in between."""
    rng, memory, kept = random.Random(0), [], []
    for _ in range(20):
        caches = [Cache(*torch.empty(2, 30, 3, 0, 64, dtype=torch.bfloat16)) for _ in range(6)]
        for cache in caches:
            length = rng.randrange(200, 700)
            cache.make_room(length)
            cache.keys[:, :, :length] = cache.values[:, :, :length] = 1.0
            cache.length = length
            kept.append(torch.empty(1000))
        memory.append(resident_mib(os.getpid()))
    del cache, caches
    assert max(memory[5:]) - resident_mib(os.getpid()) > 20
    assert max(memory) - memory[0] < 40


def test_only_a_plain_llama_fits() -> None:
    assert fits(small())
    assert not fits(small(attention_bias=True))
    assert not fits(small(hidden_act="gelu"))


class Watched(FastLlama):
    """Keeps how many sequences and tokens each pass reads."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.passes: list[tuple[int, int]] = []

    def read(self, sequences: Sequence[tuple[Sequence[int], Cache]]) -> torch.Tensor:
        self.passes.append((len(sequences), sum(len(ids) for ids, _ in sequences)))
        return super().read(sequences)


def write(batcher: Batcher, prompt: list[int]) -> list[int]:
    """Return ten tokens of greedy decoding."""
    made: list[int] = []
    unread, cache = prompt, None
    for _ in range(10):
        token, cache = batcher.step(unread, cache, range(1, 97))
        made.append(token)
        unread = [token]
    return made


def test_threads_that_decode_together_get_what_they_get_alone() -> None:
    model = Watched(small())
    batcher = Batcher(model)
    prompts = [some(length) for length in (3, 400, 5, 90, 1, 401, 7, 8)]
    alone = [write(batcher, prompt) for prompt in prompts]
    assert {sequences for sequences, _ in model.passes} == {1}
    model.passes.clear()
    with ThreadPoolExecutor(len(prompts)) as people:
        assert list(people.map(lambda prompt: write(batcher, prompt), prompts)) == alone
    assert sum(tokens for _, tokens in model.passes) == sum(len(prompt) + 9 for prompt in prompts)
    assert len(model.passes) < 10 * len(prompts)
    assert max(tokens for _, tokens in model.passes) < 800  # two long prompts are not read in one pass


def test_what_fails_is_told_to_those_who_asked_and_the_next_is_served() -> None:
    batcher = Batcher(FastLlama(small()))
    with pytest.raises(IndexError):
        batcher.step([1000], None, None)  # no such token
    assert write(batcher, [1, 2])
