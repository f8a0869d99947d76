"""Train the embedder's LoRA: questions to the entries that answer them, and away from everything when none does.

    python -m training.embedder [--epochs 3] [--rank 16] [--out adapter/embedder.safetensors]

One step takes one glossary, embeds the chunks of some of its entries and 128 questions, and maximises the likelihood of
the right entry under a softmax over the entries and 'none of them'. An entry's score is the log-sum-exp of its chunks'
cosines over a temperature (a soft maximum, as at search time); 'none' has a learned score, which questions that the
glossary does not answer are taught to prefer. In half of the steps some questions are chunks, as indexed questions are. A second term asks that the passage which answers be the best of its entry.
Goes on from the checkpoint of the last whole epoch; seeded; about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import log_softmax, normalize
from tqdm import tqdm

from jargon_rag.chunking import chunk_entry
from jargon_rag.models import EMBEDDER, find_model
from jargon_rag.paths import default_cache_dir, write_atomic
from jargon_rag.types import Entry
from training.data import FITTED_ON, HELD_OUT, Asked, Field, halves, read_fields, read_own

TEMPERATURE = 0.05
ENTRIES_PER_STEP = 14
QUESTIONS_PER_STEP = 128
FOREIGN_PER_STEP = 10  # questions of other fields, answered by none of this one's entries
INDEXED_PER_ENTRY = 4  # questions that serve as chunks of their entry, in half of the steps
OWN_PER_ENTRY = 22  # questions of each of our own entries in an epoch: our glossary must not outweigh the others
PASSAGE_WEIGHT = 0.5
MAX_TOKENS = 96
TYPO_SHARE = 0.08


@dataclass(frozen=True, slots=True)
class Step:
    """One step's texts; `owner` is the entry of each chunk, `targets` the entries of each question."""

    chunks: list[str]
    owner: torch.Tensor  # int64 (n_chunks,)
    questions: list[str]
    targets: torch.Tensor  # float32 (n_questions, n_entries + 1), rows sum to 1; the last column is 'none'
    passages: list[int]  # the chunk that answers, -1 when unknown


def main() -> None:
    """Train, and measure on the held-out fields after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("adapter/embedder.safetensors"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    fields = read_fields()
    train = [field for field in fields if field.name not in {*HELD_OUT, *FITTED_ON}]
    held_out = [field for field in fields if field.name in HELD_OUT]
    own, _ = halves(read_own())
    model = Model(rank=options.rank)
    foreign = [asked for field in train for asked in field.questions]
    checkpoint, journal = options.out.with_suffix(".checkpoint"), options.out.with_suffix(".json")
    log: list[dict[str, float]] = []
    if checkpoint.is_file() and journal.is_file():
        log = json.loads(journal.read_text("utf-8"))
        model.load(checkpoint)
        print(f"going on after epoch {log[-1]['epoch']}")
    else:
        log.append({"epoch": 0, **measure(model, held_out)})
        print(json.dumps(log[-1]), flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    for epoch in range(len(log), options.epochs + 1):
        steps = _epoch(train, own, foreign, random.Random(f"{options.seed} {epoch}"))
        losses = []
        for number, step in enumerate(tqdm(steps, desc=f"epoch {epoch}", mininterval=5)):
            for group in optimizer.param_groups:
                group["lr"] = options.rate * schedule((epoch - 1 + number / len(steps)) / options.epochs)
            loss = model.loss(step)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        log.append({"epoch": epoch, "loss": sum(losses) / len(losses), **measure(model, held_out)})
        print(json.dumps(log[-1]), flush=True)
        model.save(checkpoint)
        write_atomic(journal, (json.dumps(log, indent=1) + "\n").encode())
    model.save(options.out, half=True)
    checkpoint.unlink()


def schedule(progress: float) -> float:
    """Return the share of the learning rate: up over the first tenth, then down along half a cosine."""
    return progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


class Model:
    """The embedder with a LoRA on every linear layer, and the score of 'none of these entries'."""

    def __init__(self, *, rank: int) -> None:
        from sentence_transformers import SentenceTransformer

        found = find_model(None, EMBEDDER, cache_dir=default_cache_dir())
        self.st = SentenceTransformer(
            str(found),
            device="cpu",
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager"},  # the fused one is slow backwards on a CPU
        )
        self.st.max_seq_length = MAX_TOKENS
        self.st.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                lora_dropout=0.0,
                target_modules=["query", "key", "value", "dense"],
                layers_to_transform=[2, 3, 4, 5],  # the lower two stay: a third less to compute
                layers_pattern="layer",
            )
        )
        self.st.eval()  # no dropout: on two cores its random numbers cost as much as the matrices
        self.none = torch.nn.Parameter(torch.tensor(0.45))

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return what is trained."""
        return [self.none, *(p for p in self.st.parameters() if p.requires_grad)]

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors (len(texts), dimension), with gradients; texts of like length go together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: list[torch.Tensor] = []
        for start in range(0, len(order), 32):
            batch = self.st.preprocess([texts[i] for i in order[start : start + 32]])
            with torch.autocast("cpu", dtype=torch.bfloat16):  # three times as fast where the processor has AMX
                vectors = self.st(batch)["sentence_embedding"]
            rows += list(normalize(vectors.float(), dim=-1))
        back = sorted(range(len(order)), key=lambda position: order[position])
        return torch.stack([rows[position] for position in back])

    def scores(self, questions: torch.Tensor, chunks: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """Return logits (n_questions, n_entries + 1): soft maximum over each entry's chunks, then 'none'."""
        cosines = questions @ chunks.T / TEMPERATURE
        entries = [torch.logsumexp(cosines[:, owner == e], dim=1) for e in range(int(owner.max()) + 1)]
        none = (self.none / TEMPERATURE).expand(len(questions))
        return torch.stack([*entries, none], dim=1)

    def loss(self, step: Step) -> torch.Tensor:
        """Return the cross-entropy over entries, and within the right entry over its passages."""
        vectors = self.embed([*step.chunks, *step.questions])
        chunks, questions = vectors[: len(step.chunks)], vectors[len(step.chunks) :]
        loss = -(step.targets * log_softmax(self.scores(questions, chunks, step.owner), dim=1)).sum(1).mean()
        within = []
        for number, passage in enumerate(step.passages):
            if passage >= 0:
                siblings = (step.owner == step.owner[passage]).nonzero().flatten()
                cosines = questions[number] @ chunks[siblings].T / TEMPERATURE
                within.append(-log_softmax(cosines, dim=0)[int((siblings == passage).nonzero().item())])
        return loss + PASSAGE_WEIGHT * torch.stack(within).mean() if within else loss

    def save(self, file: Path, *, half: bool = False) -> None:
        """Write the LoRA, each matrix under the name of the weights it belongs to, and the score of 'none'."""
        config = self.st[0].auto_model.peft_config["default"]
        state = {name: p.detach().half() if half else p.detach() for name, p in self._lora().items()}
        metadata = {
            "rank": str(config.r),
            "alpha": str(config.lora_alpha),
            "base": EMBEDDER.sha256,
            "none": str(self.none.item()),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: p.contiguous() for name, p in state.items()}, file, metadata=metadata)
        file.chmod(0o644)

    def load(self, file: Path) -> None:
        """Go on from what `save` wrote; the optimizer's moments start anew."""
        with torch.no_grad(), safe_open(file, framework="pt") as stored:
            for name, p in self._lora().items():
                p.copy_(stored.get_tensor(name))
            self.none.fill_(float(stored.metadata()["none"]))

    def _lora(self) -> dict[str, torch.nn.Parameter]:
        named = self.st.named_parameters()
        return {
            name.replace(".base_layer", "").replace(".default.weight", ""): p for name, p in named if "lora_" in name
        }


def measure(model: Model, fields: Sequence[Field]) -> dict[str, float]:
    """Return shares over held-out fields: right entry first, top three, and balanced accuracy of the scope verdict."""
    first, three, kept, refused = [], [], [], []
    with torch.inference_mode():
        for field in fields:
            step = _step(field.entries, list(field.questions), random.Random(0))
            vectors = model.embed([*step.chunks, *step.questions])
            chunks, questions = vectors[: len(step.chunks)], vectors[len(step.chunks) :]
            cosines = questions @ chunks.T
            entries = torch.stack([cosines[:, step.owner == e].amax(1) for e in range(len(field.entries))], dim=1)
            scope = model.scores(questions, chunks, step.owner)
            inside = torch.logsumexp(scope[:, :-1], dim=1) > scope[:, -1]
            for number, asked in enumerate(field.questions):
                if asked.terms:
                    ranked = [field.entries[i].term for i in entries[number].argsort(descending=True)[:3]]
                    first.append(ranked[0] == asked.terms[0])
                    three.append(asked.terms[0] in ranked)
                    kept.append(bool(inside[number]))
                else:
                    refused.append(not inside[number])
    shares = {
        name: sum(hits) / len(hits)
        for name, hits in [("first", first), ("three", three), ("kept", kept), ("refused", refused)]
    }
    return {**shares, "scope": (shares["kept"] + shares["refused"]) / 2, "none": model.none.item()}


def _epoch(train: Sequence[Field], own: Field, foreign: Sequence[Asked], rng: random.Random) -> list[Step]:
    """Return an epoch's steps in random order: every question of every field once."""
    steps = []
    for field in train:
        questions = list(field.questions)
        questions += [Asked(d.standalone, (d.term,) if d.term else (), d.kind, "") for d in field.dialogues]
        rng.shuffle(questions)
        for start in range(0, len(questions), QUESTIONS_PER_STEP):
            others = [
                Asked(a.question, (), "foreign", "")
                for a in rng.sample(foreign, FOREIGN_PER_STEP)
                if a not in field.questions
            ]
            batch = questions[start : start + QUESTIONS_PER_STEP]
            known = _draw_indexed([a for a in questions if a not in batch], rng)
            steps.append(_step(field.entries, batch + others, rng, indexed=known))
    steps += _own_steps(own, rng)
    rng.shuffle(steps)
    return steps


def _own_steps(own: Field, rng: random.Random) -> list[Step]:
    """Cut our larger glossary into groups of neighbouring entries, so that a step stays small and hard."""
    by_slug = {entry.slug: entry for entry in own.entries}
    outside = [asked for asked in own.questions if not asked.terms]
    asked_of: dict[str, list[Asked]] = {entry.term: [] for entry in own.entries}
    for asked in rng.sample(own.questions, len(own.questions)):
        if asked.terms and len(asked_of[asked.terms[0]]) < OWN_PER_ENTRY:
            asked_of[asked.terms[0]].append(asked)
    left = list(own.entries)
    rng.shuffle(left)
    steps = []
    while left:
        group = [left.pop()]
        for entry in group:
            if len(group) >= ENTRIES_PER_STEP // 2:
                break
            near = [by_slug[slug] for slug in entry.see_also if slug in by_slug]
            group += [other for other in near if other in left and other not in group]
            left = [other for other in left if other not in group]
        questions = [asked for entry in group for asked in asked_of[entry.term]]
        questions += rng.sample(outside, min(len(outside), len(questions) // 6))
        rng.shuffle(questions)
        rest = [entry for entry in own.entries if entry not in group]
        for start in range(0, len(questions), QUESTIONS_PER_STEP):
            entries = group + rng.sample(rest, max(0, min(len(rest), ENTRIES_PER_STEP - len(group))))
            batch = questions[start : start + QUESTIONS_PER_STEP]
            known = _draw_indexed([a for entry in entries for a in asked_of[entry.term] if a not in batch], rng)
            steps.append(_step(entries, batch, rng, indexed=known))
    return steps


def _draw_indexed(asked: Sequence[Asked], rng: random.Random) -> list[Asked]:
    """Return up to INDEXED_PER_ENTRY questions of each term, or none at all in half of the calls."""
    if rng.random() < 0.5:
        return []
    drawn: dict[str, list[Asked]] = {}
    for question in rng.sample(asked, len(asked)):
        if question.terms and len(drawn.setdefault(question.terms[0], [])) < INDEXED_PER_ENTRY:
            drawn[question.terms[0]].append(question)
    return [question for some in drawn.values() for question in some]


def _step(
    entries: Sequence[Entry], questions: Sequence[Asked], rng: random.Random, *, indexed: Sequence[Asked] = ()
) -> Step:
    chunks: list[str] = []
    owner: list[int] = []
    places: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries):
        seen: dict[str, int] = {}
        for chunk in chunk_entry(entry):
            if chunk.kind == "code":
                continue
            seen[chunk.kind] = seen.get(chunk.kind, 0) + 1
            places[entry.term, f"{chunk.kind}:{seen[chunk.kind]}"] = len(chunks)
            chunks.append(chunk.text)
            owner.append(number)
    positions = {entry.term: number for number, entry in enumerate(entries)}
    for known in indexed:
        chunks.append(known.question)
        owner.append(positions[known.terms[0]])
    targets = torch.zeros(len(questions), len(entries) + 1)
    passages = []
    for number, asked in enumerate(questions):
        present = [positions[term] for term in asked.terms if term in positions]
        for position in present or [len(entries)]:
            targets[number, position] = 1 / max(1, len(present))
        name = asked.passage if ":" in asked.passage else f"{asked.passage}:1"
        passages.append(places.get((asked.terms[0], name), -1) if asked.terms else -1)
    texts = [typo(asked.question, rng) if rng.random() < TYPO_SHARE else asked.question for asked in questions]
    return Step(chunks, torch.tensor(owner), texts, targets, passages)


def typo(text: str, rng: random.Random) -> str:
    """Return the text with two neighbouring letters swapped, one dropped, one doubled, or a hyphen or space lost."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    joints = [i for i, c in enumerate(text) if c in "- " and 0 < i < len(text) - 1]
    kind = rng.randrange(4)
    if kind == 3 and joints:
        i = rng.choice(joints)
        return text[:i] + text[i + 1 :]
    if not places:
        return text
    i = rng.choice(places)
    return text[:i] + (text[i + 1] + text[i] + text[i + 2 :], text[i + 1 :], text[i] + text[i:])[kind % 3]


if __name__ == "__main__":
    main()
