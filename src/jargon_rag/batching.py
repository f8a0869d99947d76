"""One forward pass for all who wait: sequences of several threads are read together, so that the weights are read once.

Continuous batching (Yu et al. 2022, Orca) in its simplest form: whoever comes while a pass runs is in the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from numpy.typing import ArrayLike

from jargon_rag.llama import Cache, FastLlama

MAX_TOKENS = 512  # in one pass, so that those who are in the middle of an answer do not wait for many long prompts


@dataclass(frozen=True, slots=True)
class _Waiting:
    ids: Sequence[int]
    cache: Cache
    options: ArrayLike | None
    token: Future[int] = field(default_factory=Future)


class Batcher:
    """Steps of several threads, computed by one thread of its own. It ends with the last reference to the batcher."""

    def __init__(self, model: FastLlama) -> None:
        """Start with nobody waiting."""
        self._model = model
        self._waiting: deque[_Waiting] = deque()
        # one thread does all the passes: every thread that does gets helpers of its own from OpenMP
        self._passes = ThreadPoolExecutor(1, "language-model")

    def step(self, ids: Sequence[int], cache: Cache | None, options: ArrayLike | None) -> tuple[int, Cache]:
        """Read tokens after those in the cache; return the likeliest next one, of all or of `options`, and the cache."""
        asked = _Waiting(ids, cache or self._model.new_cache(), options)
        self._waiting.append(asked)
        self._passes.submit(_pass, self._model, self._waiting)  # as many passes as steps: none is forgotten
        return asked.token.result(), asked.cache

    def likelihoods(self, ids: Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-likelihood in nats of the same tokens after each prefix, computed between two passes."""
        return self._passes.submit(_likelihoods, self._model, ids, prefixes).result()


def _likelihoods(model: FastLlama, ids: Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[float]:
    with torch.inference_mode():
        return model.likelihoods(ids, prefixes)


def _pass(model: FastLlama, waiting: deque[_Waiting]) -> None:
    """Read the tokens of those who wait, first come, first served; nothing where an earlier pass has done so."""
    batch: list[_Waiting] = []
    tokens = 0
    while waiting and (not batch or tokens + len(waiting[0].ids) <= MAX_TOKENS):
        batch.append(waiting.popleft())
        tokens += len(batch[-1].ids)
    if not batch:
        return
    try:
        with torch.inference_mode():
            states = model.read([(asked.ids, asked.cache) for asked in batch])
            chosen = [model.choose(state, asked.options) for state, asked in zip(states, batch, strict=True)]
    except BaseException as error:  # it is for those who wait; this thread goes on
        for asked in batch:
            asked.token.set_exception(error)
        return
    for asked, token in zip(batch, chosen, strict=True):
        asked.token.set_result(token)
