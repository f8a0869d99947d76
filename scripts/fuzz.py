"""Run the fuzz targets of the tests long, with new inputs each time: `make fuzz`, or `python scripts/fuzz.py --minutes 2 [TARGET ...]`.

Each target gets the same share of the time. An input that fails is made small, printed, and ends the run with status 1.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

from hypothesis import given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fuzz_targets import TARGETS

ROUND = 200  # inputs between two looks at the clock


def main() -> None:
    """Fuzz, target by target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="for each target")
    parser.add_argument("targets", nargs="*", default=[*TARGETS], metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    for name in options.targets:
        strategy, function = TARGETS[name]
        started, rounds = time.monotonic(), 0
        while time.monotonic() - started < 60 * options.minutes:
            property_ = settings(max_examples=ROUND, deadline=None, database=None)(given(strategy)(function))
            seed(secrets.randbits(64))(property_)()
            rounds += 1
        print(f"{name}: {rounds * ROUND} inputs", flush=True)


if __name__ == "__main__":
    main()
