"""Draw the losses that training wrote down: `python -m training.curves` makes docs/images/training.svg."""

from __future__ import annotations

import json

import matplotlib as mpl
import matplotlib.pyplot as plt

from training.data import HERE
from training.language_model import JOURNAL

PICTURE = HERE.parent / "docs" / "images" / "training.svg"


def main() -> None:
    """Draw the language model's training and development loss over the steps."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "the same picture for the same numbers"
    log = json.loads(JOURNAL.read_text("utf-8"))
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, style in (("train", "--"), ("dev", "-")):
        axes.plot([row["step"] for row in log], [row[name] for row in log], style, marker="o", label=name)
    axes.set(xlabel="step", ylabel="loss of an answer's token", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
