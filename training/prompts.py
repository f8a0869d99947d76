"""Draw real prompts for the language model's training data: questions of training terms with the evidence retrieved for them.

    python -m training.prompts [--count 1700] [--out training/prompts.jsonl]

Glossaries that have prompts in the file already keep them, since their answers are written; the others are added. A row has
an id, the question, its kind, the style, the entries' terms, and the numbered facts as the model will see them. Answers are written to `training/answers.jsonl` by people who see such a row only; `python -m training.answers` checks them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evals.data import read_rows
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.paths import default_cache_dir
from jargon_rag.rag import JargonRAG
from jargon_rag.types import Entry
from training.data import HELD_OUT, Field, read_fields, read_own

OWN_SHARE = 0.4
PLAIN_SHARE = 0.2
UNANSWERED_SHARE = 0.12  # questions beside the point, whose best passages do not answer them


def main() -> None:
    """Draw, retrieve and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1700)
    parser.add_argument("--out", type=Path, default=Path("training/prompts.jsonl"))
    options = parser.parse_args()
    rng = random.Random(0)
    embedder = SentenceTransformerEmbedder(cache_dir=default_cache_dir())
    fields = [field for field in read_fields() if field.name not in HELD_OUT]
    own = read_own()
    share = {field.name: (1 - OWN_SHARE) / len(fields) for field in fields} | {"own": OWN_SHARE}
    rows: list[dict[str, Any]] = read_rows(options.out) if options.out.is_file() else []
    drawn = {row["id"].rpartition("-")[0] for row in rows}
    for field in tqdm([field for field in [*fields, own] if field.name not in drawn], desc="fields"):
        bot = JargonRAG(corpus=field.path, embedder=embedder, check_model=False)
        rows += draw(field, bot, round(options.count * share[field.name]), rng)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} prompts in {options.out}")


def draw(field: Field, bot: JargonRAG, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Return prompts of one glossary; sources outside the field's own (training) entries make a prompt unusable."""
    allowed = {entry.slug for entry in field.entries}
    asked: list[tuple[str, tuple[str, ...], str]] = [
        (q.question, (), q.kind) for q in field.questions if q.terms and not q.indexed
    ]
    asked += [(d.turns[-1], d.turns[:-1], d.kind) for d in field.dialogues if d.term]
    beside: list[tuple[str, tuple[str, ...], str]] = [(q.question, (), q.kind) for q in field.questions if not q.terms]
    rng.shuffle(asked)
    rng.shuffle(beside)
    wanted = round(count * UNANSWERED_SHARE)
    rows: list[dict[str, Any]] = []
    for pool, limit in ((beside, wanted), (asked, count)):
        for question, earlier, kind in pool:
            if len(rows) >= limit:
                break
            row = prompt_row(bot, question, earlier, anyway=pool is beside)
            if row is not None and {entry.slug for entry in row[0]} <= allowed:
                style = "plain" if rng.random() < PLAIN_SHARE else "rick"
                rows.append({"id": f"{field.name}-{len(rows)}", "kind": kind, "style": style, **row[1]})
    return rows


def prompt_row(
    bot: JargonRAG, question: str, earlier: Sequence[str], *, anyway: bool = False
) -> tuple[list[Entry], dict[str, Any]] | None:
    """Return the sources, and the question as the model will see it with its facts; None for a refused one.

    anyway: also for a refused one, so that the model learns to say when the facts do not answer.
    """
    retrieval = bot.retrieve(question, history=[{"role": "user", "content": turn} for turn in earlier], top_k=6)
    if not (retrieval.in_scope or anyway):
        return None
    evidence = bot.evidence(retrieval)
    facts = [[n, passage] for n, _, passage in evidence.facts]
    return list(evidence.sources), {
        "question": retrieval.standalone_question,
        "terms": [entry.term for entry in evidence.sources],
        "facts": facts,
    }


if __name__ == "__main__":
    main()
