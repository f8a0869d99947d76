"""Run the fuzz targets of the tests long, with new inputs each time: `make fuzz`, or `python -m scripts.fuzz --minutes 2 [TARGET ...]`.

Each target gets the same share of the time; `api` puts requests made from its schema to a real server. An input that
fails is made small, printed, and ends the run with status 1. A whole run writes docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from benchmarks.machine import commit
from jargon_rag.paths import write_atomic
from jargon_rag.rag import JargonRAG
from tests.fuzz_targets import TARGETS
from tests.test_fuzz import SCHEMA, check_call, serving

PAGE = Path(__file__).parents[1] / "docs" / "fuzzing.md"
ROUND = 200  # inputs between two looks at the clock
API = "api"
LONG = settings(max_examples=ROUND, deadline=None, database=None)
SLOW = settings(LONG, suppress_health_check=[*HealthCheck])  # requests take their time


def main() -> None:
    """Fuzz, target by target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*TARGETS, API]
    parser.add_argument("--minutes", type=float, default=2.0, help="for each target")
    parser.add_argument("targets", nargs="*", default=every, metavar="TARGET", help=", ".join(every))
    options = parser.parse_args()
    counts = {name: _repeat(name, options.minutes) for name in options.targets}
    if options.targets == every:
        lines = ["# Fuzzing, measured", ""]
        lines += [
            f"Made by `make fuzz MINUTES={options.minutes:g}`, commit {commit()}. hypothesis makes the inputs, new ones each time;",
            "for `api`, schemathesis makes requests from `src/jargon_rag/openapi.json`, which go to a real server. Each gave a",
            "result or a named error, as `tests/fuzz_targets.py` and the schema demand.",
            "",
            "| target | inputs |",
            "|---|---|",
            *(f"| {name} | {count:,} |" for name, count in counts.items()),
        ]
        write_atomic(PAGE, ("\n".join(lines) + "\n").encode())


def _repeat(name: str, minutes: float) -> int:
    """Feed one target until its time is over, and return how many inputs it took."""
    count = 0
    with _checks(name) as checks:
        started = time.monotonic()
        while time.monotonic() - started < 60 * minutes:
            for check in checks:
                check()
                count += ROUND
    print(f"{name}: {count} inputs", flush=True)
    return count


@contextmanager
def _checks(name: str) -> Iterator[list[Callable[[], None]]]:
    """Give the properties of a target, each called without arguments; those of the API need a server."""
    if name != API:
        strategy, function = TARGETS[name]
        yield [lambda: seed(secrets.randbits(64))(LONG(given(strategy)(function)))()]
        return
    with serving(JargonRAG()) as url:

        def fuzz(operation: Any) -> Callable[[], None]:
            calls = SLOW(given(operation.as_strategy())(lambda case: check_call(case, url)))
            return lambda: seed(secrets.randbits(64))(calls)()

        yield [fuzz(result.ok()) for result in SCHEMA.get_all_operations()]


if __name__ == "__main__":
    main()
