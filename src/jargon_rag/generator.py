"""Greedy decoding with a local causal LM, streamed.

The loop takes token ids in and gives token ids out, one step at a time, so that closing the iterator stops the work
at the next step; text is cut from it only where it is certain not to change with the next token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from jargon_rag.errors import WeightsError
from jargon_rag.models import LANGUAGE_MODEL, find_model, prepare_language_model
from jargon_rag.types import Message, TextPiece


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
        if isinstance(found, Path):
            found = prepare_language_model(found, cache_dir=cache_dir, say=say)
        else:
            say(f"Language model {found}: from the Hugging Face cache, or fetched from the hub")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(found, local_files_only=local)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                found, dtype=torch.float32, local_files_only=local
            ).eval()
        except Exception as error:  # it raises what its many file formats raise
            raise WeightsError(f"Cannot load the language model {found}: {error}. Try: jargon-rag doctor") from error
        if adapter is not None:
            self._model = merge_adapter(self._model, adapter)
        if not self._tokenizer.chat_template:
            raise WeightsError(f"The language model {found} has no chat template; choose an instruct or chat model.")
        self._id = LANGUAGE_MODEL.name if model is None else model
        self._stop_ids = _stop_ids(self._model, self._tokenizer)
        self._turn = threading.Lock()

    @property
    def id(self) -> str:
        """Return the model's name."""
        return self._id

    def stream(self, messages: Sequence[Message], *, max_new_tokens: int) -> Generator[TextPiece, None, None]:
        """Yield pieces of text as they are decoded. Closing the iterator stops the work."""
        prompt = list(
            self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        )
        made: list[int] = []
        shown = ""
        with self._turn:
            for token in generate_greedy(self._model, prompt, max_new_tokens=max_new_tokens, stop_ids=self._stop_ids):
                made.append(token)
                text = self._tokenizer.decode(made, skip_special_tokens=True)
                if text.endswith("\ufffd"):  # half of a character: wait for its other bytes
                    continue
                yield TextPiece(text[len(shown) :], len(prompt), len(made))
                shown = text


def generate_greedy(
    model: Any, prompt: Sequence[int], *, max_new_tokens: int, stop_ids: frozenset[int]
) -> Iterator[int]:
    """Yield the most likely next token id, again and again, until a stop id or `max_new_tokens`.

    `model` is called as transformers calls a causal LM, with input_ids of shape (1, n) and a key/value cache.
    """
    import torch

    cache = None
    step = torch.tensor([list(prompt)])
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            output = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = int(output.logits[0, -1].argmax())
        if token in stop_ids:
            return
        yield token
        cache = output.past_key_values
        step = torch.tensor([[token]])


def merge_adapter(model: Any, adapter: Path) -> Any:
    """Return a model with a LoRA adapter (Hu et al. 2021) merged into its weights."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise WeightsError("Adapters need peft. Install it with: pip install 'jargon-rag[adapter]'") from error
    if not (adapter / "adapter_config.json").is_file():
        raise WeightsError(
            f"{adapter} is no LoRA adapter (it has no adapter_config.json). Give its folder, or --adapter none."
        )
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    except Exception as error:  # peft raises what safetensors, json and torch raise
        raise WeightsError(
            f"Cannot apply the adapter {adapter}: {error}. Give one made for this model, or --adapter none."
        ) from error


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
