"""Make the tables of docs/performance.md and its picture of the newest result: `python -m benchmarks.report`.

A full run counts before a quick one. What stands between the two comments in the page is replaced; the prose around it stays.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jargon_rag.paths import write_atomic

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PICTURE = PAGE.parent / "images" / "performance.svg"
BEGIN, END = "<!-- made by benchmarks.report -->", "<!-- end -->"
RESAMPLES = 1000
TIE = 0.05  # a gap between float32 logits that rounding to bfloat16 can turn round

Result = Mapping[str, Any]


def main() -> None:
    """Write the newest result into the page."""
    found = newest(RESULTS)
    if found is None:
        sys.exit(f"No result in {RESULTS}. Measure first: make bench-full")
    result = json.loads(found.read_text("utf-8"))
    draw(result)
    picture = f"![Whole answers: median and p95 of each way](images/{PICTURE.name})"
    write_atomic(PAGE, filled(PAGE.read_text("utf-8"), [picture, "", *tables(result)]).encode())
    print(f"{PAGE} and {PICTURE} from {found.name}")


def newest(folder: Path) -> Path | None:
    """Return the file of the result made last, of the full ones if there are any."""
    made = {file: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}
    return max(made, key=lambda file: (made[file]["kind"] == "full", made[file]["machine"]["made"]), default=None)


def filled(page: str, lines: Sequence[str]) -> str:
    """Return a page with the lines between its two comments."""
    between = "\n\n".join([BEGIN, "\n".join(lines), END])
    text, places = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: between, page, flags=re.DOTALL)
    if places != 1:
        raise ValueError(f"the page needs one {BEGIN} and one {END}")
    return text


# Arithmetic


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated between its neighbours as numpy does."""
    return float(np.quantile(np.asarray(values, dtype=float), share))


def ratio(theirs: Sequence[float], ours: Sequence[float], *, share: float) -> tuple[float, float, float]:
    """Return how many times longer theirs is at a quantile, and the 95 % bootstrap interval over questions (seed 0).

    Both hold one value a question, in the same order; a resample draws the same questions of both.
    """
    pair = np.asarray([theirs, ours], dtype=float)  # (2, questions)
    drawn = pair[:, np.random.default_rng(0).integers(pair.shape[1], size=(RESAMPLES, pair.shape[1]))]
    top, bottom = np.quantile(drawn, share, axis=2)
    low, high = np.quantile(top / bottom, [0.025, 0.975])
    return quantile(theirs, share) / quantile(ours, share), float(low), float(high)


def roofline_shares(row: Mapping[str, Any], model: Mapping[str, Any]) -> list[float]:
    """Return, for each decoding step of an answer, the time that reading its bytes takes as a share of what it took.

    A step reads all weights once, and the keys and values of every token before; the first step, which reads the prompt,
    is bound by arithmetic and left out.
    """
    shares = []
    read = row["steps"][0][0] if row["steps"] else 0
    for tokens, milliseconds in row["steps"][1:]:
        size = model["weight_bytes"] + read * model["token_bytes"]
        shares.append(size / (model["bandwidth_gb_s"] * 1e9) / (milliseconds / 1000))
        read += tokens
    return shares


# Tables


def tables(result: Result) -> list[str]:
    """Return the Markdown of a result; a part that was not measured is left out."""
    lines = _setting(result)
    lines += _whole(result) + _first_texts(result) + _generation(result) + _decoding(result)
    if "greedy" in result:
        lines += _greedy(result["greedy"])
    if "together" in result:
        lines += _together(result["together"])
    if "cold" in result:
        lines += _cold(result["cold"])
    return lines


def _setting(result: Result) -> list[str]:
    machine, model = result["machine"], result["model"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return [
        (
            f"Commit `{result['commit']}`, {machine['made'][:10]}, a {result['kind']} run of {len(result['answers'])} questions"
            f" (seed {result['seed']}). {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB,"
            f" {' '.join(machine['flags']) or 'no vector units named'}; {machine['threads']} threads each; load before the run"
            f" {machine['load_before']}. Python {machine['python']}, {packages}. {model['name']} in {model['dtype']}."
        ),
        "",
        *(f"- {name}: {note}" for name, note in result["peers"].items()),
        *([""] if result["peers"] else []),
    ]


def _whole(result: Result) -> list[str]:
    answers = result["answers"]
    ours = _of(answers, "whole", "ours", "total_ms")
    lines = ["### Whole answers", ""]
    lines += [
        "| | median, s | p95, s | times ours, median | times ours, p95 | tokens read | tokens written |",
        "|---|" + "---|" * 6,
    ]
    for name in answers[0]["whole"]:
        times = _of(answers, "whole", name, "total_ms")
        read, made = (_median(_of(answers, "whole", name, part)) for part in ("prompt_tokens", "answer_tokens"))
        same = name == "ours"
        lines.append(
            f"| {name} | {_s(times, 0.5)} | {_s(times, 0.95)} | {'' if same else _ratio(times, ours, 0.5)} |"
            f" {'' if same else _ratio(times, ours, 0.95)} | {read:.0f} | {made:.0f} |"
        )
    return [*lines, ""]


def _first_texts(result: Result) -> list[str]:
    answers = result["answers"]
    lines = [
        "### First text",
        "",
        "| | answers that have one | median, s | p95, s | times ours, median |",
        "|---|" + "---|" * 4,
    ]
    for title, part in (
        ("first token", "first_token_ms"),
        ("first sentence of the model's on screen", "first_sentence_ms"),
        ("first cited sentence", "first_cited_ms"),
    ):
        both = [
            (row["whole"]["ours"][part], row["whole"]["transformers"][part])
            for row in answers
            if row["whole"]["ours"][part] is not None and row["whole"]["transformers"][part] is not None
        ]
        for column, name in enumerate(("ours", "transformers")):
            times = [time for time in _of(answers, "whole", name, part) if time is not None]
            cells = f"{_s(times, 0.5)} | {_s(times, 0.95)}" if times else " | "
            times_ours = _ratio([pair[1] for pair in both], [pair[0] for pair in both], 0.5) if both and column else ""
            lines.append(f"| {title}: {name} | {len(times)} of {len(answers)} | {cells} | {times_ours} |")
    return [*lines, ""]


def _generation(result: Result) -> list[str]:
    rows = [row for row in result["answers"] if row["generation"]]
    if not rows:
        return []
    ours = [row["whole"]["ours"]["prefill_ms"] + row["whole"]["ours"]["decode_ms"] for row in rows]
    lines = ["### The engine alone: same prompt, same number of tokens", ""]
    lines += [
        "| | median, s | p95, s | times ours, median |",
        "|---|---|---|---|",
        f"| ours | {_s(ours, 0.5)} | {_s(ours, 0.95)} | |",
    ]
    for name in rows[0]["generation"]:
        times = _of(rows, "generation", name, "total_ms")
        lines.append(f"| {name} | {_s(times, 0.5)} | {_s(times, 0.95)} | {_ratio(times, ours, 0.5)} |")
    return [*lines, ""]


def _decoding(result: Result) -> list[str]:
    model = result["model"]
    rows = [row["whole"]["ours"] for row in result["answers"] if len(row["whole"]["ours"]["steps"]) > 1]
    steps = [step for row in rows for step in row["steps"][1:]]
    shares = [share for row in rows for share in roofline_shares(row, model)]
    written, asked = sum(row["answer_tokens"] for row in rows), sum(len(row["steps"]) for row in rows)
    return [
        "### Decoding",
        "",
        "| | |",
        "|---|---|",
        f"| weights | {model['weight_bytes'] / 1e6:.0f} MB |",
        f"| memory read at that size | {model['bandwidth_gb_s']:.1f} GB/s |",
        f"| the weights read once at that speed | {model['weight_bytes'] / model['bandwidth_gb_s'] / 1e6:.1f} ms |",
        f"| a step as it is, median | {_median([step[1] for step in steps]):.1f} ms |",
        f"| share of the roofline, median (p5 to p95) | {_median(shares):.2f} ({quantile(shares, 0.05):.2f} to {quantile(shares, 0.95):.2f}) |",
        f"| the model's part of the time to decode | {sum(step[1] for step in steps) / sum(row['decode_ms'] for row in rows):.2f} |",
        f"| tokens written per model step | {written / asked:.2f} |",
        f"| of these chosen by the model | {asked / written:.0%} |",
        f"| forced by the form, read with the next step | {1 - asked / written:.0%} |",
        "| drafted and accepted (speculative) | 0%: nothing is drafted |",
        "",
    ]


def _greedy(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    different = [row for row in rows if row["difference"] is not None]
    ties = sum(row["gap"] < TIE for row in different)
    return [
        "### The same tokens",
        "",
        (
            f"{len(rows) - len(different)} of {len(rows)} answers have the tokens of greedy decoding with transformers, under the same"
            f" constraint, all {sum(row['tokens'] for row in rows)} of them chosen by the model. {ties} differ first where the two largest float32"
            f" logits lie less than {TIE} apart, {len(different) - ties} elsewhere."
        ),
        "",
    ]


def _together(rows: Mapping[str, Any]) -> list[str]:
    people, rounds = rows["people"], len(rows["serial_s"])
    alone, together = (people / _median(rows[f"{way}_s"]) for way in ("serial", "together"))
    text, model = (
        [[row[name] for row in rows[way] if row[name] is not None] for way in ("serial", "together")]
        for name in ("first_text_ms", "first_sentence_ms")
    )
    return [
        f"### {people} people at once",
        "",
        "| | one after the other | all at once | ratio |",
        "|---|---|---|---|",
        f"| answers a second, median of {rounds} | {alone:.2f} | {together:.2f} | {together / alone:.2f} |",
        *(
            f"| {title}, p95, s | {_s(lone, 0.95)} | {_s(crowd, 0.95)} | {quantile(crowd, 0.95) / quantile(lone, 0.95):.1f} |"
            for title, (lone, crowd) in {
                "first text (Morty's line)": text,
                "first sentence that the model wrote": model,
            }.items()
        ),
        "",
    ]


def _cold(rows: Mapping[str, Sequence[float]]) -> list[str]:
    lines = ["### Cold start and memory", "", "| | ours | the plain way | plain / ours |", "|---|---|---|---|"]
    for title, ours, theirs in (
        ("page up, s (beside an empty gr.Blocks)", "our page", "empty page"),
        ("first answer, s (beside eager imports and the GGUF)", "our answer", "eager answer"),
        ("resident memory after it, MiB", "our memory", "eager memory"),
    ):
        a, b = _median(rows[ours]), _median(rows[theirs])
        digits = 0 if "memory" in ours else 2
        lines.append(f"| {title} | {a:.{digits}f} | {b:.{digits}f} | {b / a:.2f} |")
    return [*lines, ""]


def _of(rows: Sequence[Mapping[str, Any]], group: str, name: str, part: str) -> list[Any]:
    return [row[group][name][part] for row in rows]


def _median(values: Sequence[float]) -> float:
    return quantile(values, 0.5)


def _s(milliseconds: Sequence[float], share: float) -> str:
    return f"{quantile(milliseconds, share) / 1000:.2f}"


def _ratio(theirs: Sequence[float], ours: Sequence[float], share: float) -> str:
    found, low, high = ratio(theirs, ours, share=share)
    return f"{found:.2f} [{low:.2f}, {high:.2f}]"


# The picture


def draw(result: Result) -> None:
    """Draw the median and p95 of every way to a whole answer into the page's picture."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "the same picture for the same numbers"
    names = list(result["answers"][0]["whole"])[::-1]
    times = [_of(result["answers"], "whole", name, "total_ms") for name in names]
    median, high = ([quantile(each, share) / 1000 for each in times] for share in (0.5, 0.95))
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.45 * len(names)), layout="constrained")
    axes.barh(names, median, color=["#2f7d4f" if name == "ours" else "#8a8f98" for name in names])
    axes.errorbar(
        median, names, xerr=[[0.0] * len(names), np.subtract(high, median)], fmt="none", ecolor="#222222", capsize=3
    )
    axes.set(xlabel="seconds to a whole answer: median, line to p95", xlim=(0, None))
    axes.grid(axis="x", alpha=0.3)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
