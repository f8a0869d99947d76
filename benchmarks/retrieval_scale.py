"""Measure what a search costs from a hundred chunks to a million, flat and with an inverted file; write docs/retrieval-scale.md.

    python -m benchmarks.retrieval_scale [--largest 1000000]

Real texts of that number do not exist here, so vectors are made from those of the shipped index: each is one of them
plus Gaussian noise of the same length over all dimensions (cosine to its origin about 0.7), which keeps their clusters.
Queries are made likewise. Times are medians over 200 single queries on this machine; recall is of the ten nearest.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import faiss
import numpy as np
from tqdm import tqdm

from jargon_rag.index import APPROXIMATE_FROM, PROBES, load_index, make_ivf
from jargon_rag.paths import shipped_folder

REPORT = Path(__file__).parents[1] / "docs" / "retrieval-scale.md"
QUERIES = 200
SIZES = (100, 1_000, 10_000, 50_000, 100_000, 300_000, 1_000_000)


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    options = parser.parse_args()
    real = load_index(shipped_folder("index")).vectors
    rng = np.random.default_rng(0)
    queries = _made(real, QUERIES, rng)
    lines = [
        "# What a search costs",
        "",
        "Made by `make bench-retrieval`: the vector search alone, one query at a time, seed 0.",
        "",
    ]
    lines += [
        f"From {APPROXIMATE_FROM:,} chunks on an index is an inverted file (IVF, {PROBES} lists looked at); below it is flat.",
        "",
    ]
    lines += [
        "| chunks | flat, ms | IVF, ms | IVF / flat | IVF recall@10 | IVF built in, s | kind chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in tqdm([size for size in SIZES if size <= options.largest], desc="sizes"):
        vectors = _made(real, size, rng)
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        flat_ms, truth = _timed(flat, queries)
        chosen = "flat" if size < APPROXIMATE_FROM else "IVF"
        if size < 10_000:
            lines.append(f"| {size:,} | {flat_ms:.2f} | | | | | {chosen} |")
            continue
        started = time.perf_counter()
        ivf = make_ivf(vectors)
        built = time.perf_counter() - started
        ivf_ms, found = _timed(ivf, queries)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
        lines.append(
            f"| {size:,} | {flat_ms:.2f} | {ivf_ms:.2f} | {ivf_ms / flat_ms:.2f} | {recall:.3f} | {built:.0f} | {chosen} |"
        )
    report = "\n".join(lines) + "\n"
    print(report)
    REPORT.write_text(report, encoding="utf-8")


def _made(real: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors, float32 (size, dimension), scattered around real ones."""
    vectors = real[rng.integers(len(real), size=size)]
    vectors = vectors + rng.standard_normal(vectors.shape, dtype=np.float32) / np.sqrt(vectors.shape[1])
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _timed(index: faiss.Index, queries: np.ndarray) -> tuple[float, list[np.ndarray]]:
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        _, numbers = index.search(query.reshape(1, -1), 10)
        times.append(1000 * (time.perf_counter() - started))
        found.append(numbers[0])
    return float(np.median(times)), found


if __name__ == "__main__":
    main()
