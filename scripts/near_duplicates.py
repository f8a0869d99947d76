"""Find questions that are nearly the same in two splits, remove the later one's, and write the report.

Two questions are near-duplicates when the cosine of their embeddings is at least 0.92. Between `index` and another split
the other is removed; between train, dev and test the one of the larger split.

Usage: python scripts/near_duplicates.py [--remove]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jargon_rag.embedder import SentenceTransformerEmbedder
from jargon_rag.paths import default_cache_dir

THRESHOLD = 0.92
QUESTIONS = Path("corpus/questions")
REPORT = Path("docs/near-duplicates.md")
KEEP_FIRST = ("index", "test", "dev", "train")  # of two, the one whose split comes first stays


def main() -> None:
    """Compare all pairs across splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remove", action="store_true")
    options = parser.parse_args()
    rows: list[tuple[Path, dict[str, Any]]] = [
        (file, json.loads(line))
        for file in sorted(QUESTIONS.glob("*.jsonl"))
        for line in file.read_text("utf-8").split("\n")
        if line
    ]
    vectors = SentenceTransformerEmbedder(cache_dir=default_cache_dir(), lora=False).embed(
        [row["question"] for _, row in rows]
    )
    removed: dict[int, tuple[int, float]] = {}
    for number, cosines in enumerate(vectors @ vectors.T):
        for other in (cosines >= THRESHOLD).nonzero()[0]:
            mine, theirs = rows[number][1]["split"], rows[other][1]["split"]
            if KEEP_FIRST.index(mine) > KEEP_FIRST.index(theirs):
                removed.setdefault(number, (int(other), float(cosines[other])))
    lines = ["# Near-duplicate questions across splits", ""]
    lines += [f"{len(rows)} questions before, {len(removed)} removed (cosine of at least {THRESHOLD}).", ""]
    lines += ["| removed | from | kept | in | cosine |", "|---|---|---|---|---|"]
    for number, (other, cosine) in removed.items():
        gone, kept = rows[number][1], rows[other][1]
        lines.append(f"| {gone['question']} | {gone['split']} | {kept['question']} | {kept['split']} | {cosine:.3f} |")
    print("\n".join(lines))
    if options.remove:
        REPORT.write_text("\n".join(lines) + "\n", "utf-8")
        for file in {file for file, _ in rows}:
            kept_rows = [row for number, (place, row) in enumerate(rows) if place == file and number not in removed]
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept_rows), "utf-8")


if __name__ == "__main__":
    main()
