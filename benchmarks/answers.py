"""Measure whole answers beside plain transformers and, with --peers, beside other libraries; write benchmarks/results/COMMIT.json.

    python -m benchmarks.answers [--quick] [--questions 30] [--threads N] [--out FOLDER]

One process, one question after the other, every contender on each: what else the machine does touches all alike. Questions
are drawn with a seed from those of the development terms that the glossary answers. docs/performance.md says what each
figure means; `python -m benchmarks.report` writes them there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.cold import measure_cold_starts
from benchmarks.machine import commit, cores, describe, read_bandwidth
from benchmarks.peers import Peers, open_peers
from benchmarks.plain import Row, ask_transformers
from benchmarks.report import RESULTS, tables
from evals.retrieval import own_exam
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.form import Steps, Vocabulary, write_form
from jargon_rag.generator import LocalGenerator, generate_greedy
from jargon_rag.models import LANGUAGE_MODEL, find_packaged, prepare_language_model
from jargon_rag.paths import default_cache_dir, make_folder, shipped_folder, write_atomic
from jargon_rag.rag import MAX_NEW_TOKENS, JargonRAG
from jargon_rag.types import Answer, AnswerForm, Embedder, Message, Sentence, TextPiece

SEED = 0
QUESTIONS = 30
CHECKED = 10  # answers compared token by token with greedy decoding in a quick run; all of them in a full one
PEOPLE, ROUNDS = 8, 3  # who ask at once, and how often they do
COLD_STARTS = 3


@dataclass(frozen=True, slots=True)
class Models:
    """What the contenders share: one set of weights, read by our engine and by transformers."""

    embedder: Embedder
    engine: LocalGenerator
    folder: Path  # of the weights with the adapter merged in
    tokenizer: Any
    plain: Any  # transformers, float32
    same: Any  # transformers, in the engine's dtype

    @property
    def dtype(self) -> str:
        """Return the engine's number format, e.g. bfloat16."""
        return str(self.same.dtype).removeprefix("torch.")


class Recorder:
    """Our language model, and the last prompt and form that it was given."""

    def __init__(self, model: LocalGenerator) -> None:
        """Wrap a model."""
        self._model = model
        self.messages: Sequence[Message] = ()
        self.form: AnswerForm | None = None

    @property
    def id(self) -> str:
        """Return the model's."""
        return self._model.id

    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int, form: AnswerForm | None = None
    ) -> Generator[TextPiece, None, None]:
        """Stream what the model streams."""
        self.messages, self.form = messages, form
        return self._model.stream(messages, max_new_tokens=max_new_tokens, form=form)


class InForm:
    """A logits processor for `generate` that lets through only what the form does, one step at a time."""

    def __init__(self, form: AnswerForm, words: Vocabulary) -> None:
        """Start before the first token."""
        self._steps: Steps[None] = write_form(form, words)
        self._stop = (words.stop_id,)
        self._options: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the scores, shape (1, vocabulary), with -inf for what may not come next."""
        import torch

        try:
            self._options = next(self._steps) if self._options is None else self._steps.send(int(input_ids[0, -1]))
        except StopIteration:
            self._options = self._stop
        allowed = torch.as_tensor(self._options)
        return torch.full_like(scores, float("-inf")).index_copy_(1, allowed, scores[:, allowed])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, write the result, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the other libraries")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(arguments)
    for name, value in {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "GOMP_SPINCOUNT": "300000"}.items():
        os.environ.setdefault(name, value)  # as the command line does
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    machine = describe(threads=options.threads)
    models = open_models()
    questions = draw_questions(models, options.questions)
    with open_peers(
        models.folder, models.tokenizer, models.same, wanted=not options.quick, threads=options.threads
    ) as peers:
        result = {
            "commit": commit(),
            "kind": "quick" if options.quick else "full",
            "seed": SEED,
            "machine": machine,
            "model": describe_model(models),
            "peers": peers.notes,
            "answers": compare(models, questions, peers=peers),
        }
    result["greedy"] = [
        compare_with_greedy(models, question)
        for question in tqdm(questions[: CHECKED if options.quick else None], desc="greedy decoding")
    ]
    result["together"] = ask_together(models, questions[:PEOPLE], rounds=ROUNDS)
    del models
    result["cold"] = measure_cold_starts(questions[0], repeats=COLD_STARTS)
    print("\n".join(tables(result)))
    print(f"\nWritten to {save(result, options.out)}; `python -m benchmarks.report` puts it into docs/performance.md")


def save(result: Mapping[str, Any], folder: Path) -> Path:
    """Write a result under its commit's id and kind, and return the file."""
    file = make_folder(folder) / f"{result['commit']}-{result['kind']}.json"
    write_atomic(file, (json.dumps(result, indent=1) + "\n").encode())
    return file


def open_models(embedder: Embedder | None = None, engine: LocalGenerator | None = None) -> Models:
    """Load what is not given."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cache, adapter = default_cache_dir(), shipped_folder("adapter")
    embedder = embedder or SentenceTransformerEmbedder(cache_dir=cache)
    engine = engine or LocalGenerator(cache_dir=cache, adapter=adapter)
    packaged = find_packaged(LANGUAGE_MODEL, cache_dir=cache)
    assert packaged is not None, "the engine is loaded"
    folder = prepare_language_model(packaged, cache_dir=cache, adapter=adapter, say=print)

    def load(dtype: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Models(embedder, engine, folder, tokenizer, load("float32"), load(engine._dtype))


def describe_model(models: Models) -> Row:
    """Return what a decoding step reads: the bytes of all weights, those of one token's keys and values, and the bandwidth."""
    parameters = list(models.same.parameters())
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    config = models.same.config
    head = models.same.model.layers[0].self_attn.head_dim
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * parameters[0].element_size()
    return {
        "name": models.engine.id,
        "dtype": models.dtype,
        "weight_bytes": size,
        "token_bytes": token,
        "bandwidth_gb_s": read_bandwidth(size),
    }


def draw_questions(models: Models, number: int) -> list[str]:
    """Return questions about development terms that the glossary answers, in an order drawn with the seed."""
    asked = [row["question"] for row in own_exam("dev").inside]
    random.Random(SEED).shuffle(asked)
    bot = open_bot(models)
    inside = (question for question in asked if bot.retrieve(question).in_scope)
    return [question for question, _ in zip(inside, range(number), strict=False)]


def open_bot(models: Models, engine: Any = None) -> JargonRAG:
    """Return a bot that remembers no question yet."""
    return JargonRAG(embedder=models.embedder, model=engine or models.engine)


# Whole answers


def compare(models: Models, questions: Sequence[str], *, peers: Peers) -> list[Row]:
    """Return the measures of every contender on every question; the first one is asked twice, to warm them up."""
    rows = []
    recorder = Recorder(models.engine)
    for number, question in enumerate(tqdm([questions[0], *questions], desc="whole answers")):
        ours, theirs = open_bot(models, recorder), open_bot(models)
        whole: dict[str, Row] = {}
        times: list[float] = []
        for name in ("ours", "transformers") if number % 2 else ("transformers", "ours"):
            if name == "ours":
                whole[name] = ask_ours(ours, models.engine, question)
            else:
                whole[name], times = ask_transformers(models.plain, models.tokenizer, theirs, question)
        tokens = whole["ours"]["answer_tokens"]
        whole["transformers, as many tokens"] = _as_many(models, question, tokens, whole["transformers"], times)
        generation: dict[str, Row] = {}
        if tokens:
            prompt = prompt_ids(models, recorder.messages)
            generation = {name: engine(prompt, tokens) for name, engine in peers.engines.items()}
        whole |= {name: ask(question) for name, ask in peers.chatbots.items()}
        rows.append({"question": question, "whole": whole, "generation": generation})
    return rows[1:]


def _as_many(models: Models, question: str, tokens: int, row: Row, times: Sequence[float]) -> Row:
    """Return what plain transformers takes for a given number of tokens, of the same run where that was long enough."""
    if tokens > len(times):
        row, times = ask_transformers(
            models.plain, models.tokenizer, open_bot(models), question, limit=tokens, at_least=tokens
        )
    return {**row, "total_ms": times[tokens - 1] if tokens else row["total_ms"], "answer_tokens": tokens}


def ask_ours(bot: JargonRAG, engine: LocalGenerator, question: str) -> Row:
    """Answer a question as the page does; return the measures, and each model step as (tokens read, milliseconds)."""
    row: Row = {"first_sentence_ms": None, "first_cited_ms": None}
    answer: Answer | None = None
    with watched(engine) as steps:
        started = time.perf_counter()
        for event in bot.stream(question):
            now = 1000 * (time.perf_counter() - started)
            if isinstance(event, Answer):
                row["total_ms"], answer = now, event
            elif isinstance(event, Sentence):
                if event.origin == "model" and row["first_sentence_ms"] is None:
                    row["first_sentence_ms"] = now
                if event.citations and row["first_cited_ms"] is None:
                    row["first_cited_ms"] = now
    assert answer is not None
    kept = ("retrieve_ms", "prefill_ms", "decode_ms", "check_ms", "first_token_ms", "prompt_tokens", "answer_tokens")
    return row | {name: getattr(answer.timings, name) for name in kept} | {"steps": list(steps)}


@contextmanager
def watched(engine: LocalGenerator) -> Iterator[list[tuple[int, float]]]:
    """Keep how many tokens each call of the engine's forward pass reads, and its milliseconds."""
    step = engine._step
    steps: list[tuple[int, float]] = []

    def timed(ids: Sequence[int], cache: Any, options: Any) -> tuple[int, Any]:
        started = time.perf_counter()
        found = step(ids, cache, options)
        steps.append((len(ids), 1000 * (time.perf_counter() - started)))
        return found

    engine._step = timed
    try:
        yield steps
    finally:
        engine._step = step


def prompt_ids(models: Models, messages: Sequence[Message]) -> list[int]:
    """Return a prompt's token ids."""
    encoded = models.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


# The same tokens


def compare_with_greedy(models: Models, question: str) -> Row:
    """Compare our tokens with those of transformers' `generate`: same weights, dtype and form, every token by the model.

    Returns the number of tokens, the place of the first difference or None, and there the gap between the two largest
    float32 logits of what the form allows: a small one is a tie that rounding breaks either way.
    """
    import torch

    recorder = Recorder(models.engine)
    open_bot(models, recorder).ask(question)
    words, form = models.engine._vocabulary, recorder.form
    assert form is not None, "questions outside the glossary are not drawn"
    prompt = prompt_ids(models, recorder.messages)
    ours = list(
        generate_greedy(
            models.engine._step,
            prompt,
            max_new_tokens=MAX_NEW_TOKENS,
            stop_ids=models.engine._stop_ids,
            steps=write_form(form, words),
        )
    )
    ids = torch.tensor([prompt])
    made = models.same.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        logits_processor=[InForm(form, words)],
    )[0, len(prompt) :].tolist()
    theirs = made[:-1] if made[-1] in models.engine._stop_ids else made
    if ours == theirs:
        return {"question": question, "tokens": len(ours), "difference": None, "gap": None}
    place = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    steps = write_form(form, words)
    options = next(steps)
    for token in ours[:place]:
        options = steps.send(token)
    with torch.inference_mode():
        logits = models.plain(input_ids=torch.tensor([[*prompt, *ours[:place]]]), logits_to_keep=1).logits[0, -1]
    first, second = logits[torch.as_tensor(options)].topk(2).values.tolist()
    return {"question": question, "tokens": len(ours), "difference": place, "gap": first - second}


# Many at once


def ask_together(models: Models, questions: Sequence[str], *, rounds: int) -> Row:
    """Let people ask one after the other, and all at once; return seconds of each round and every person's waiting times."""
    found: Row = {"people": len(questions), "serial_s": [], "together_s": [], "serial": [], "together": []}
    for number in tqdm(range(rounds), desc=f"{len(questions)} people"):
        for way in ("serial", "together") if number % 2 else ("together", "serial"):
            bot = open_bot(models)
            started = time.perf_counter()
            with ThreadPoolExecutor(len(questions) if way == "together" else 1) as people:
                found[way] += people.map(_timed(bot), questions)
            found[f"{way}_s"].append(time.perf_counter() - started)
    return found


def _timed(bot: JargonRAG) -> Callable[[str], Row]:
    def ask(question: str) -> Row:
        started = time.perf_counter()
        first = model = None
        for event in bot.stream(question):
            if isinstance(event, Sentence):
                first = first or 1000 * (time.perf_counter() - started)
                if event.origin == "model":
                    model = model or 1000 * (time.perf_counter() - started)
        return {"first_text_ms": first, "first_sentence_ms": model, "total_ms": 1000 * (time.perf_counter() - started)}

    return ask


if __name__ == "__main__":
    main()
