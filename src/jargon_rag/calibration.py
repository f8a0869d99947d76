"""The fitted numbers of retrieval: how signals are weighed, and what makes a question in scope or a follow-up.

`calibration.json` holds them per embedder, since a cosine means something else in each; `python -m training.calibrate`
writes it and nobody edits it by hand. An embedder that is not in it gets the numbers of the plain MiniLM.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jargon_rag.paths import check_shipped

FILE = Path(__file__).with_name("calibration.json")
FALLBACK = "default"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights by the names of signals; `fitted` says whether they were made for this embedder."""

    fitted: bool
    ranking: Mapping[str, float]  # an entry's score is their weighted sum
    sharpness: float  # of two entries whose scores differ by d, the better is exp(sharpness · d) times as likely right
    passage: Mapping[str, float]  # log-odds, up to a constant, that an entry's passage is the one that answers
    scope: Mapping[str, float]  # log-odds that the glossary answers the question; "bias" is the constant
    follow_up: Mapping[str, float]  # log-odds that a question leans on what was asked before
    likelihood: float = 0.0  # log-odds that a passage answers, per nat of the question's likelihood after it


@cache
def calibration(embedder_id: str) -> Calibration:
    """Return the numbers fitted for an embedder, or the fallback's; raises WeightsError if the file is damaged."""
    check_shipped(FILE)
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    fitted = embedder_id in stored
    numbers = stored[embedder_id if fitted else FALLBACK]
    return Calibration(fitted, **numbers)


def weighted(weights: Mapping[str, float], signals: Mapping[str, float]) -> float:
    """Return the weighted sum of signals plus the bias, if there is one."""
    return weights.get("bias", 0.0) + sum(weight * signals[name] for name, weight in weights.items() if name != "bias")


def probability(log_odds: float) -> float:
    """Return the probability of log-odds, 0..1."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, log_odds))))
