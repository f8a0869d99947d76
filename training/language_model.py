"""Train the language model's LoRA: real prompts and the answers written to them; loss on the answers only.

    python -m training.language_model [--epochs 1] [--rank 16] [--out adapter]

The answers come from `training/answers.jsonl`, each checked by `training.answers`. Every time an example is drawn its
facts may be shuffled, and passages of other entries of the same glossary may stand among them, with markers of their
own. Goes on from the last checkpoint; seeded; bfloat16; half an hour an epoch on two cores that have AMX. Writes the adapter in
peft's format and the losses to `training/language_model.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy, pad
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.data import read_rows
from jargon_rag.models import ADAPTER_FILE, LANGUAGE_MODEL, find_model, prepare_language_model
from jargon_rag.paths import default_cache_dir, write_atomic
from jargon_rag.prompt import NONE, build_messages
from training.data import HERE

JOURNAL = HERE / "language_model.json"
DEV_FIELDS = ("accounting", "chess", "robotics", "weather")  # their prompts measure, and train nothing
SHUFFLED_SHARE, BESIDE_SHARE = 0.4, 0.35
MAX_BESIDE = 2  # passages of other entries
FIRST_LAYER = 6  # the lower ones stay: a fifth less to compute
MAX_TOKENS = 900  # a longer example is left out
CHECKPOINT_STEPS = 50
PADDED_TO = 64  # tokens: the first batch of every shape costs three times as much


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one prompt and its answer."""

    prompt: list[int]
    answer: list[int]


def main() -> None:
    """Train, measuring on the development fields ten times on the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("adapter"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rows = read_examples()
    train = [row for row in rows if _field(row) not in DEV_FIELDS]
    dev = [row for row in rows if _field(row) in DEV_FIELDS]
    model, tokenizer = load(options.rank)
    batches = [
        batch
        for epoch in range(options.epochs)
        for batch in draw_epoch(train, tokenizer, options.batch, random.Random(f"{options.seed} {epoch}"))
    ]
    measured = [encode(row, tokenizer) for row in dev]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=options.rate, weight_decay=0.0)
    checkpoint = options.out / "checkpoint.pt"
    done, log = resume(checkpoint, model, optimizer)
    every = max(1, len(batches) // (5 * options.epochs))
    recent: list[float] = []
    for step in tqdm(range(done, len(batches)), initial=done, total=len(batches), desc="training", mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * schedule(step / len(batches))
        loss = batch_loss(model, batches[step])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == len(batches):
            log.append({"step": step + 1, "train": sum(recent) / len(recent), "dev": dev_loss(model, measured)})
            recent.clear()
            print(json.dumps(log[-1]), flush=True)
            write_atomic(JOURNAL, (json.dumps(log, indent=1) + "\n").encode())
        if (step + 1) % CHECKPOINT_STEPS == 0:
            save_checkpoint(checkpoint, step + 1, log, model, optimizer)
    save(model, options.out)
    checkpoint.unlink(missing_ok=True)


def read_examples() -> list[dict[str, Any]]:
    """Return the prompts with their answers."""
    answers = {row["id"]: row["answer"] for row in read_rows(HERE / "answers.jsonl")}
    return [{**row, "answer": answers[row["id"]]} for row in read_rows(HERE / "prompts.jsonl") if row["id"] in answers]


def load(rank: int) -> tuple[PeftModel, Any]:
    """Return the default model in bfloat16 with a fresh LoRA on every linear layer, and its tokenizer."""
    found = find_model(None, LANGUAGE_MODEL, cache_dir=default_cache_dir())
    folder = prepare_language_model(Path(found), cache_dir=default_cache_dir(), say=print)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, local_files_only=True, attn_implementation="eager"
    )  # the fused attention is slow backwards on a CPU
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(FIRST_LAYER, model.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def draw_epoch(
    rows: Sequence[dict[str, Any]], tokenizer: Any, size: int, rng: random.Random
) -> Iterator[list[Example]]:
    """Yield batches of every example once, those of like length together, in random order."""
    beside: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        beside.setdefault(_field(row), []).append(row)
    examples = [encode(vary(row, beside[_field(row)], rng), tokenizer) for row in rows]
    examples = [example for example in examples if len(example.prompt) + len(example.answer) <= MAX_TOKENS]
    examples.sort(key=lambda example: len(example.prompt) + len(example.answer) + rng.uniform(-30, 30))
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    rng.shuffle(batches)
    yield from batches


def vary(row: dict[str, Any], others: Sequence[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    """Return an example with its facts in another order, perhaps among passages of other entries; markers follow."""
    facts = [(row["terms"][marker - 1], passage) for marker, passage in row["facts"]]
    if rng.random() < BESIDE_SHARE:
        for other in rng.sample(others, min(len(others), rng.randint(1, MAX_BESIDE))):
            marker, passage = rng.choice(other["facts"])
            if other["terms"][marker - 1] not in {term for term, _ in facts}:
                facts.insert(rng.randint(1, len(facts)), (other["terms"][marker - 1], passage))
    if rng.random() < SHUFFLED_SHARE:
        rng.shuffle(facts)
    terms = list(dict.fromkeys(term for term, _ in facts))
    answer = row["answer"]
    for marker, term in enumerate(row["terms"], start=1):
        answer = answer.replace(f"[{marker}]", f"[#{terms.index(term) + 1}]")
    return {
        **row,
        "terms": terms,
        "facts": [(terms.index(term) + 1, passage) for term, passage in facts],
        "answer": answer.replace("[#", "["),
    }


def encode(row: dict[str, Any], tokenizer: Any) -> Example:
    """Return an example's token ids; the answer ends as the chat template ends a message."""
    facts = [(marker, row["terms"][marker - 1], passage) for marker, passage in row["facts"]]
    messages = build_messages(row["question"], facts, style=row["style"])
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    labelled = row["style"] == "rick" or row["answer"] == NONE
    answer = row["answer"] if labelled else f"Answer: {row['answer']}"
    return Example(list(prompt), [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id])


def batch_loss(model: PeftModel, examples: Sequence[Example]) -> torch.Tensor:
    """Return the mean cross-entropy over the answers' tokens; logits are computed only there."""
    longest = max(len(example.prompt) + len(example.answer) for example in examples)
    longest += -longest % PADDED_TO
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    asked = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        both = [*example.prompt, *example.answer]
        ids[row, : len(both)] = torch.tensor(both)
        mask[row, : len(both)] = 1
        asked[row, len(example.prompt) - 1 : len(both) - 1] = True
    causal = model.get_base_model()
    with torch.autocast("cpu", dtype=torch.bfloat16), disable_input_dtype_casting(model):
        hidden = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        answers = hidden[asked]
        logits = causal.lm_head(pad(answers, (0, 0, 0, -len(answers) % PADDED_TO)))[: len(answers)]
    return cross_entropy(logits.float(), torch.cat([torch.tensor(example.answer) for example in examples]))


def dev_loss(model: PeftModel, examples: Sequence[Example]) -> float:
    """Return the mean loss over examples."""
    with torch.inference_mode():
        losses = [batch_loss(model, examples[start : start + 8]).item() for start in range(0, len(examples), 8)]
    return sum(losses) / len(losses)


def schedule(progress: float) -> float:
    """Return the share of the learning rate: up over the first twentieth, then down along half a cosine."""
    return progress / 0.05 if progress < 0.05 else 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))


def save(model: PeftModel, folder: Path) -> None:
    """Write the adapter in bfloat16; its card is not touched, and names the base by its public name."""
    model.peft_config["default"].base_model_name_or_path = LANGUAGE_MODEL.hub_id
    with tempfile.TemporaryDirectory() as temporary:
        model.to(torch.bfloat16).save_pretrained(temporary)
        for name in (ADAPTER_FILE, "adapter_config.json"):
            write_atomic(folder / name, (Path(temporary) / name).read_bytes())


def save_checkpoint(
    file: Path, step: int, log: list[dict[str, float]], model: PeftModel, optimizer: torch.optim.Optimizer
) -> None:
    """Write what training goes on from."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save({"step": step, "log": log, "lora": trained, "optimizer": optimizer.state_dict()}, partial)
    partial.replace(file)


def resume(file: Path, model: PeftModel, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict[str, float]]]:
    """Put a checkpoint's state in place and return its step and log; (0, []) where there is none."""
    if not file.is_file():
        return 0, []
    stored = torch.load(file, weights_only=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(stored["lora"][name])
    optimizer.load_state_dict(stored["optimizer"])
    print(f"going on after step {stored['step']} of the checkpoint {file}")
    return int(stored["step"]), list(stored["log"])


def _field(row: dict[str, Any]) -> str:
    return str(row["id"]).rpartition("-")[0]


if __name__ == "__main__":
    main()
