"""Greedy decoding with a local causal LM, streamed.

The loop takes token ids in and gives token ids out, one step at a time, so that closing the iterator stops the work
at the next step; text is cut from it only where it is certain not to change with the next token. What a model has read
of the instructions, which are the same in every prompt, is kept.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from jargon_rag.errors import WeightsError
from jargon_rag.form import Steps, Vocabulary, write_form
from jargon_rag.models import LANGUAGE_MODEL, find_model, merge_adapter, prepare_language_model
from jargon_rag.types import AnswerForm, Message, TextPiece

MAX_INSTRUCTIONS = 4  # whose reading is kept
MAX_QUESTION, MAX_PASSAGE = 96, 192  # tokens whose likelihood is computed, and before them
PIECE = 192  # tokens of a prompt that are read at once: between two pieces it can be stopped
AT_ONCE = 8  # answers that are worth writing side by side on a CPU
# reads token ids after those in a cache, which is None at first; returns the likeliest next one, of all or of some, and the cache
Step = Callable[[Sequence[int], Any, ArrayLike | None], tuple[int, Any]]


class LocalGenerator:
    """SmolLM2-135M-Instruct, or any causal LM by folder or Hugging Face id, on the CPU.

    Streams of several threads are decoded together where the model is a Llama, and by turns where it is none.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        cache_dir: Path,
        adapter: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the model, and merge a LoRA adapter into it if one is given.

        Raises WeightsError naming the model or adapter when it is not on this machine or cannot be read.
        """
        found = find_model(model, LANGUAGE_MODEL, cache_dir=cache_dir)
        local = isinstance(found, Path)
        if isinstance(found, Path) and (found / LANGUAGE_MODEL.file).is_file():
            found = prepare_language_model(found, cache_dir=cache_dir, adapter=adapter, say=say)
            adapter = None  # merged already
        elif not local:
            say(f"Language model {found}: from the Hugging Face cache, or fetched from the hub")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from jargon_rag.batching import Batcher
        from jargon_rag.llama import FastLlama, fits

        self._dtype = torch.bfloat16 if has_bfloat16() else torch.float32
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(found, local_files_only=local)
            causal: Any = AutoModelForCausalLM.from_pretrained(found, dtype=self._dtype, local_files_only=local).eval()
        except Exception as error:  # it raises what its many file formats raise
            raise WeightsError(f"Cannot load the language model {found}: {error}. Try: jargon-rag doctor") from error
        if adapter is not None:
            causal = merge_adapter(causal, adapter)
        self._stop_ids = _stop_ids(causal, self._tokenizer)
        self._fast = FastLlama(causal) if fits(causal) else None
        engine = ByTurns(causal) if self._fast is None else Batcher(self._fast)
        self._step: Step = engine.step
        self._likelihoods = engine.likelihoods
        if not self._tokenizer.chat_template:
            raise WeightsError(f"The language model {found} has no chat template; choose an instruct or chat model.")
        self._id = LANGUAGE_MODEL.name if model is None else model
        self._encoding = threading.Lock()  # a tokenizer of transformers sets itself up for each text
        self._read: dict[str, tuple[list[int], Any]] = {}  # instructions: their tokens, and the cache after them
        plain = copy.deepcopy(self._tokenizer.backend_tokenizer)
        plain.encode_special_tokens = True  # '<|im_end|>' in a glossary is text, and ends nothing
        encode = plain.encode
        self._inert: Callable[[str], list[int]] = lambda text: list(encode(text, add_special_tokens=False).ids)
        special = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
        self._vocabulary = Vocabulary(self._inert, self._tokenizer.eos_token_id)

    @property
    def id(self) -> str:
        """Return the model's name."""
        return self._id

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Yield pieces of text as they are decoded, nothing outside `form`. Closing the iterator stops the work.

        Pieces without text come while a long prompt is read.
        """
        prompt = self.encode(messages)
        read, cache = self._instructions(messages)
        if prompt[: len(read)] != read:
            read, cache = [], None
        cache = cache.copy() if cache is not None else None
        unread = prompt[len(read) :]
        while len(unread) > PIECE:
            _, cache = self._step(unread[:PIECE], cache, (0,))
            unread = unread[PIECE:]
            yield TextPiece("", len(prompt), 0)
        made: list[int] = []
        shown = ""
        for token in generate_greedy(
            self._step,
            unread,
            cache=cache,
            max_new_tokens=max_new_tokens,
            stop_ids=self._stop_ids,
            steps=None if form is None else write_form(form, self._vocabulary),
        ):
            made.append(token)
            text = self._tokenizer.decode(made, skip_special_tokens=True)
            if text.endswith("\ufffd"):  # half of a character: wait for its other bytes
                continue
            yield TextPiece(text[len(shown) :], len(prompt), len(made))
            shown = text

    def likelihoods(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return how likely a question is after each passage, as log-likelihood in nats.

        Of two passages, the one that answers makes it likelier (Sachan et al. 2022, UPR).
        """
        asked = self._inert(f" {question}")[:MAX_QUESTION]
        colon = self._inert("\n\nQuestion:")
        return self._likelihoods(asked, [self._inert(passage)[:MAX_PASSAGE] + colon for passage in passages])

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return a prompt's token ids; special tokens that somebody wrote are text."""
        inert = [{**message, "content": self._special.sub(_broken_up, message["content"])} for message in messages]
        with self._encoding:
            encoded = self._tokenizer.apply_chat_template(inert, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def _instructions(self, messages: Sequence[Message]) -> tuple[list[int], Any]:
        """Return the tokens that every prompt with the same instructions begins with, and the cache of having read them."""
        system = messages[0]["content"]
        if self._fast is None or messages[0]["role"] != "system":
            return [], None
        if (known := self._read.get(system)) is None:
            prompts = [self.encode([messages[0], {"role": "user", "content": text}]) for text in ("A", "0")]
            read = [first for first, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*prompts, strict=False))]
            _, cache = self._step(read, None, None)
            known = read, cache
            self._read = dict([*self._read.items(), (system, known)][-MAX_INSTRUCTIONS:])
        return known


class ByTurns:
    """Steps and likelihoods of a model that is called as transformers calls a causal LM; several threads take turns."""

    def __init__(self, model: Any) -> None:
        """Start with nobody waiting."""
        self._model = model
        self._turn = threading.Lock()

    def step(self, ids: Sequence[int], cache: Any, options: ArrayLike | None) -> tuple[int, Any]:
        """Read tokens after those in the cache; return the likeliest next one, of all or of `options`, and the cache."""
        import torch

        with self._turn, torch.inference_mode():
            read = torch.tensor([list(ids)])
            output = self._model(input_ids=read, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = output.logits[0, -1]
            if options is None:
                return int(logits.argmax()), output.past_key_values
            allowed = torch.as_tensor(options)
            return int(allowed[logits[allowed].argmax()]), output.past_key_values

    def likelihoods(self, ids: Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-likelihood in nats of the same tokens after each prefix."""
        import torch

        nats = []
        with self._turn, torch.inference_mode():
            for prefix in prefixes:
                read = torch.tensor([[*prefix, *ids[:-1]]])
                logits = self._model(input_ids=read, use_cache=False, logits_to_keep=len(ids)).logits[0]
                nats.append(float(logits.float().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).sum()))
        return nats


def generate_greedy(
    step: Step,
    prompt: Sequence[int],
    *,
    cache: Any = None,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    steps: Steps[None] | None = None,
) -> Iterator[int]:
    """Yield the most likely next token id, again and again, until a stop id, the end of the form or `max_new_tokens`.

    `cache` holds what was read before the prompt. `steps` says which tokens may come next; where it leaves one, the model
    is not asked, and reads it with the next that it is. Nothing is given out before the model has read the prompt, so that
    the time to the first token is what it seems.
    """
    unread = list(prompt)
    held: list[int] = []
    asked = False
    options = next(steps) if steps is not None else None
    for _ in range(max_new_tokens):
        if options is not None and len(options) == 1:
            token = int(options[0])
        else:
            token, cache = step(unread, cache, options)
            asked, unread = True, []
        if token in stop_ids:
            break
        held.append(token)
        unread.append(token)
        if asked:
            yield from held
            held.clear()
        if steps is not None:
            try:
                options = steps.send(token)
            except StopIteration:
                break
    yield from held


def _broken_up(token: re.Match[str]) -> str:
    """Return a special token that somebody wrote as text that is none: it cannot end a turn or begin another's."""
    return f"{token[0][0]} {token[0][1:]}"


def has_bfloat16() -> bool:
    """Tell whether this processor computes in bfloat16; where it does not, that is slower than float32."""
    import torch

    known = (
        torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    )  # newer than the oldest torch
    return bool(known.get("amx_bf16") or known.get("avx512_bf16") or known.get("bf16"))


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
