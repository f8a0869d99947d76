"""Simulate people asking at once: how long they wait, how many boxes they need, what an answer costs; write the table of docs/scale.md.

    python -m benchmarks.simulate_load --service-s 1 --price 0.10

Questions come at random (Poisson), in one line, to boxes that write so many answers at once each; a box's service times
are drawn from a result of the speed benchmark (--results FILE), or given. What is not in it: that one answer slows down
another on the same box, that people who wait long leave, and hours of the day: give the questions of a busy hour.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jargon_rag.paths import write_atomic

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- made by benchmarks.simulate_load -->", "<!-- end -->"
USERS = (100, 1_000, 10_000, 100_000)
AT_LEAST = 20_000  # questions simulated; else an hour of them
LINE = 16  # people who may wait at one box, as in the page's queue; others are told to come back


@dataclass(frozen=True, slots=True)
class Load:
    """What a simulation found."""

    waits: np.ndarray  # seconds until an answer was begun, of those who were not turned away
    turned_away: float  # share
    busy: float  # share of the time that a box's places were taken


def main() -> None:
    """Simulate every number of users and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    times = parser.add_mutually_exclusive_group(required=True)
    times.add_argument("--results", type=Path, help="a file of benchmarks/results")
    times.add_argument("--service-s", type=float, nargs="+", help="seconds that one answer takes; several to draw from")
    parser.add_argument("--at-once", type=int, default=1, help="answers that one box writes side by side")
    parser.add_argument("--per-hour", type=float, default=6, help="questions that one user asks in a busy hour")
    parser.add_argument(
        "--wait-s", type=float, default=2, help="seconds that nineteen of twenty people may wait at most"
    )
    parser.add_argument("--price", type=float, required=True, help="of one box for an hour")
    options = parser.parse_args()
    service = options.service_s or measured(options.results)
    source = f"from {options.results.name}" if options.results else "given, not measured"
    given = (
        f"One answer takes {np.mean(service):.2f} s on average ({source}), {options.at_once} at once on a box, {options.per_hour:g} "
        f"questions of each user in a busy hour, {options.price:.2f} an hour for a box; simulated, seed 0."
    )
    lines = [
        given,
        "",
        f"| users | questions a second | one box: busy | turned away | p95 of waiting, s | boxes for p95 ≤ {options.wait_s:g} s | a thousand answers cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for users in tqdm(USERS, desc="users"):
        rate = users * options.per_hour / 3600
        one = simulate(rate, service, places=options.at_once, line=LINE)
        boxes = boxes_needed(rate, service, at_once=options.at_once, wait_s=options.wait_s)
        cost = cost_per_thousand(1 / rate, options.price * boxes)
        lines.append(
            f"| {users:,} | {rate:.2f} | {one.busy:.0%} | {one.turned_away:.0%} | {np.quantile(one.waits, 0.95):.1f} | {boxes} | {cost:.3f} |"
        )
    print("\n".join(lines))
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    write_atomic(PAGE, "\n".join([f"{before}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"]).encode())


def measured(file: Path) -> list[float]:
    """Return the seconds that each answer of a speed benchmark took."""
    return [row["whole"]["ours"]["total_ms"] / 1000 for row in json.loads(file.read_text("utf-8"))["answers"]]


def simulate(rate: float, service: Sequence[float], *, places: int, line: float = math.inf, seed: int = 0) -> Load:
    """Serve questions that come at random, `rate` a second, first come first served; more than `line` waiting are turned away."""
    rng = np.random.default_rng(seed)
    questions = max(AT_LEAST, round(3600 * rate))
    arrivals = np.cumsum(rng.exponential(1 / rate, questions))
    drawn = rng.choice(np.asarray(service), questions)
    free = [0.0] * places  # when each place is free again
    begins: list[float] = []  # of those who still wait
    waits: list[float] = []
    taken = 0.0
    for arrival, seconds in zip(arrivals.tolist(), drawn.tolist(), strict=True):
        while begins and begins[0] <= arrival:
            heapq.heappop(begins)
        if free[0] > arrival and len(begins) >= line:
            continue
        begin = max(arrival, free[0])
        heapq.heapreplace(free, begin + seconds)
        heapq.heappush(begins, begin)
        waits.append(begin - arrival)
        taken += seconds
    return Load(np.array(waits), 1 - len(waits) / questions, min(1.0, taken / (places * max(free))))


def boxes_needed(rate: float, service: Sequence[float], *, at_once: int, wait_s: float) -> int:
    """Return the fewest boxes behind one line with which nineteen of twenty people wait `wait_s` at most."""
    boxes = math.floor(rate * float(np.mean(service)) / at_once) + 1  # fewer never catch up
    while np.quantile(simulate(rate, service, places=boxes * at_once).waits, 0.95) > wait_s:
        boxes += 1
    return boxes


def cost_per_thousand(seconds: float, price_per_hour: float) -> float:
    """Return what a thousand answers cost where one is finished every so many `seconds`, for that price an hour."""
    return 1000 * seconds * price_per_hour / 3600


if __name__ == "__main__":
    main()
