"""Greedy decoding with a local causal LM, streamed.

The loop takes token ids in and gives token ids out, one step at a time, so that closing the iterator stops the work
at the next step; text is cut from it only where it is certain not to change with the next token.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from jargon_rag.errors import WeightsError
from jargon_rag.form import Steps, Vocabulary, write_form
from jargon_rag.models import LANGUAGE_MODEL, find_model, merge_adapter, prepare_language_model
from jargon_rag.types import AnswerForm, Message, TextPiece


class LocalGenerator:
    """SmolLM2-135M-Instruct, or any causal LM by folder or Hugging Face id, on the CPU.

    One answer at a time: streams of several threads take turns.
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

        from jargon_rag.llama import FastLlama, fits

        self._dtype = torch.bfloat16 if has_bfloat16() else torch.float32
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(found, local_files_only=local)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                found, dtype=self._dtype, local_files_only=local
            ).eval()
        except Exception as error:  # it raises what its many file formats raise
            raise WeightsError(f"Cannot load the language model {found}: {error}. Try: jargon-rag doctor") from error
        if adapter is not None:
            self._model = merge_adapter(self._model, adapter)
        self._stop_ids = _stop_ids(self._model, self._tokenizer)
        if fits(self._model):
            self._model = FastLlama(self._model)
        if not self._tokenizer.chat_template:
            raise WeightsError(f"The language model {found} has no chat template; choose an instruct or chat model.")
        self._id = LANGUAGE_MODEL.name if model is None else model
        self._turn = threading.Lock()
        plain = copy.deepcopy(self._tokenizer.backend_tokenizer)
        plain.encode_special_tokens = True  # '<|im_end|>' in a glossary is text, and ends nothing
        encode = plain.encode
        special = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
        self._vocabulary = Vocabulary(
            lambda text: encode(text, add_special_tokens=False).ids,
            self._tokenizer.batch_decode([[token] for token in range(len(self._tokenizer))]),
            self._tokenizer.eos_token_id,
        )

    @property
    def id(self) -> str:
        """Return the model's name."""
        return self._id

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Yield pieces of text as they are decoded, nothing outside `form`. Closing the iterator stops the work."""
        inert = [{**message, "content": self._special.sub(_broken_up, message["content"])} for message in messages]
        prompt = list(
            self._tokenizer.apply_chat_template(inert, add_generation_prompt=True, return_dict=True)["input_ids"]
        )
        made: list[int] = []
        shown = ""
        with self._turn:
            for token in generate_greedy(
                self._model,
                prompt,
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


def generate_greedy(
    model: Any,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    steps: Steps[None] | None = None,
) -> Iterator[int]:
    """Yield the most likely next token id, again and again, until a stop id, the end of the form or `max_new_tokens`.

    `model` is called as transformers calls a causal LM, with input_ids of shape (1, n) and a key/value cache. `steps`
    says which tokens may come next; where it leaves one, the model is not asked, and reads it with the next that it is.
    Nothing is given out before the model has read the prompt, so that the time to the first token is what it seems.
    """
    import torch

    cache = None
    unread = list(prompt)
    held: list[int] = []
    options = next(steps) if steps is not None else None
    for _ in range(max_new_tokens):
        if options is not None and len(options) == 1:
            token = options[0]
        else:
            with torch.inference_mode():
                output = model(
                    input_ids=torch.tensor([unread]), past_key_values=cache, use_cache=True, logits_to_keep=1
                )
            cache, unread = output.past_key_values, []
            logits = output.logits[0, -1]
            token = int(logits.argmax() if options is None else options[int(logits[torch.as_tensor(options)].argmax())])
        if token in stop_ids:
            break
        held.append(token)
        unread.append(token)
        if cache is not None:
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
