"""Measure retrieval, refusal and follow-ups; print the table and write docs/retrieval.md.

    python -m evals.retrieval [--splits dev test] [--failures]

Each figure has a 95 % bootstrap interval (1,000 resamples, seed 0). Baselines use the same embedder and questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jargon_rag.chunking import chunk_glossary
from jargon_rag.conversation import standalone_question
from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.glossary import read_glossary, read_questions
from jargon_rag.index import Index, build_index, load_index
from jargon_rag.paths import default_cache_dir, shipped_folder
from jargon_rag.retriever import Retriever
from jargon_rag.types import Embedder, Retrieval

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "retrieval.md"
RESAMPLES = 1000
TOP_K = 10


def main() -> None:
    """Measure every set and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", default=["dev", "test"], choices=["train", "dev", "test"])
    parser.add_argument("--failures", action="store_true", help="print the questions whose entry is not first")
    options = parser.parse_args()
    embedder = SentenceTransformerEmbedder(cache_dir=default_cache_dir())
    corpus = shipped_folder("corpus")
    ours = Retriever(load_index(shipped_folder("index")), embedder)
    bare = Retriever(_index(corpus, embedder, with_questions=False), embedder)
    sailing = Retriever(_index(HERE / "sailing" / "glossary.md", embedder, with_questions=False), embedder)
    asked = [row for file in sorted((corpus / "questions").glob("asked-*.jsonl")) for row in read_rows(file)]
    lines = ["# Retrieval, measured", "", "Made by `make eval`; 95 % bootstrap intervals in brackets.", ""]
    lines += ["| set | n | right entry first | in the top three | taken as in scope |", "|---|---|---|---|---|"]
    for split in options.splits:
        rows = [row for row in asked if row["split"] == split]
        lines.append(_row(f"{split}: our glossary", rows, ours.retrieve, failures=options.failures))
        lines.append(_row(f"{split}: without indexed questions", rows, bare.retrieve))
        lines.append(_row(f"{split}: cosine alone", rows, lambda question: _by_cosine(ours, question)))
        for kind in sorted({row["kind"] for row in rows}):
            lines.append(_row(f"{split}: kind {kind}", [row for row in rows if row["kind"] == kind], ours.retrieve))
        follow_ups = [row for row in read_rows(HERE / "follow_ups.jsonl") if row["split"] == split]
        known = [{**row, "question": row["turns"]} for row in follow_ups if row["term"]]
        lines.append(_row(f"{split}: follow-ups", known, lambda turns: _last(ours, turns), failures=options.failures))
        lines.append(_row(f"{split}: follow-ups, last turn alone", known, lambda turns: ours.retrieve(turns[-1])))
        lines.append(_row(f"{split}: follow-ups, turns joined", known, lambda turns: ours.retrieve(" ".join(turns))))
        outside = [row for row in read_rows(HERE / "out_of_scope.jsonl") if row["split"] == split]
        for kind in ("everyday", "computing", "near-miss"):
            some = [row for row in outside if row["kind"] == kind]
            lines.append(_refusals(f"{split}: out of scope, {kind}", some, ours.retrieve, failures=options.failures))
    lines.append(
        _row("sailing: a glossary nobody tuned for", read_rows(HERE / "sailing" / "questions.jsonl"), sailing.retrieve)
    )
    lines.append(
        _refusals("sailing: out of scope", read_rows(HERE / "sailing" / "out_of_scope.jsonl"), sailing.retrieve)
    )
    report = "\n".join(lines) + "\n"
    print(report)
    REPORT.write_text(report, encoding="utf-8")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]


def interval(hits: Sequence[bool]) -> str:
    """Return a share with its 95 % bootstrap interval."""
    values = np.asarray(hits, dtype=float)
    drawn = np.random.default_rng(0).choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.2f}, {high:.2f}]"


def _index(corpus: Path, embedder: Embedder, *, with_questions: bool) -> Index:
    entries = read_glossary(corpus)
    questions = read_questions(corpus, entries) if with_questions else []
    return build_index(entries, chunk_glossary(entries, questions), embedder, corpus_hash="", progress=True)


def _by_cosine(retriever: Retriever, question: str) -> list[str]:
    vector = retriever.embedder.embed([question])[0]
    found = retriever.index.search(vector, top_k=len(retriever.index.chunks))
    terms = {entry.slug: entry.term for entry in retriever.index.entries}
    return list(dict.fromkeys(terms[retriever.index.chunks[number].slug] for number, _ in found))


def _last(retriever: Retriever, turns: list[str]) -> Retrieval:
    history = [{"role": "user", "content": turn} for turn in turns[:-1]]
    terms = {entry.slug: entry.term for entry in retriever.index.entries}
    alone = standalone_question(turns[-1], history, named=lambda text: [terms[slug] for slug in retriever.named(text)])
    return retriever.retrieve(turns[-1], standalone_question=alone, top_k=TOP_K)


def _row(
    name: str, rows: list[dict[str, Any]], search: Callable[[Any], Retrieval | list[str]], *, failures: bool = False
) -> str:
    ranks: list[int] = []
    kept: list[bool] = []
    for row in tqdm(rows, desc=name, leave=False):
        found = search(row["question"])
        terms = [result.entry.term for result in found.results] if isinstance(found, Retrieval) else found
        ranks.append(terms.index(row["term"]) if row["term"] in terms else 99)
        kept.append(not isinstance(found, Retrieval) or found.in_scope)
        if failures and (ranks[-1] or not kept[-1]):
            print(f"{row.get('kind')}: {row['question']} | {row['term']} | {terms[:3]} | in scope {kept[-1]}")
    first, three = interval([rank == 0 for rank in ranks]), interval([rank < 3 for rank in ranks])
    return f"| {name} | {len(rows)} | {first} | {three} | {interval(kept)} |"


def _refusals(
    name: str, rows: list[dict[str, Any]], search: Callable[[str], Retrieval], *, failures: bool = False
) -> str:
    kept = [search(row["question"]) for row in rows]
    if failures:
        for row, found in zip(rows, kept, strict=True):
            if found.in_scope:
                print(f"{row['kind']}: {row['question']} | {found.reason}")
    return f"| {name} | {len(rows)} | | | {interval([found.in_scope for found in kept])} |"


if __name__ == "__main__":
    main()
