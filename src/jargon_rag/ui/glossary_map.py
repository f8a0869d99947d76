"""The glossary as a picture: entries in two dimensions, near ones close together, and a question among them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from jargon_rag.index import Index
from jargon_rag.types import Entry

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star-triangle-up", "hexagon", "pentagon", "bowtie", "hourglass")  # fmt: skip
COLOURS = ("#12855a", "#c2562d", "#3a6ea5", "#a0782c", "#8a4f9e", "#2c8c99", "#b0405f", "#6b7a1f", "#5b5fc7", "#7a5c4f")
HOVER_CHARS, HOVER_WIDTH = 220, 48
FEW = 40  # entries that can all bear their name without covering each other
INK = "#7c8a84"  # readable on light and on dark


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A linear map to the plane: `(vector - mean) @ axes`, and where it puts the entries."""

    mean: np.ndarray  # (dimension,)
    axes: np.ndarray  # (dimension, 2)
    places: np.ndarray  # (n_entries, 2)

    def place(self, vector: np.ndarray) -> np.ndarray:
        """Return where a question lies, shape (2,)."""
        return np.asarray((vector - self.mean) @ self.axes)


def project(index: Index) -> Projection:
    """Return the plane that keeps most of the entries' spread, that between areas counted double (weighted PCA).

    An entry lies at the mean of its chunks. Works from one entry on; missing directions are filled with zeros.
    """
    slots = {entry.slug: number for number, entry in enumerate(index.entries)}
    owner = np.array([slots[chunk.slug] for chunk in index.chunks])
    vectors = np.zeros((len(index.entries), index.vectors.shape[1]))
    np.add.at(vectors, owner, index.vectors)
    vectors /= np.bincount(owner, minlength=len(index.entries))[:, None]
    mean = vectors.mean(axis=0)
    areas = [entry.area for entry in index.entries]
    centers = {area: vectors[[a == area for a in areas]].mean(axis=0) for area in set(areas)}
    pull = np.array([centers[area] for area in areas]) - mean
    _, _, directions = np.linalg.svd(np.concatenate([vectors - mean, 2 * pull]), full_matrices=False)
    axes = np.zeros((vectors.shape[1], 2))
    axes[:, : len(directions[:2])] = directions[:2].T
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]] + 1e-12)  # the sign of an axis is arbitrary: fix it
    return Projection(mean, axes, (vectors - mean) @ axes)


def figure(
    entries: Sequence[Entry], projection: Projection, *, question: str = "", vector: np.ndarray | None = None, found: Sequence[str] = ()
) -> go.Figure:  # fmt: skip
    """Return the map; with a question's vector, a star with lines to the entries found (their slugs)."""
    drawn = go.Figure()
    areas = list(dict.fromkeys(entry.area for entry in entries))
    few = len(entries) <= FEW
    for number, area in enumerate(areas):
        inside = [n for n, entry in enumerate(entries) if entry.area == area]
        drawn.add_scatter(
            x=projection.places[inside, 0],
            y=projection.places[inside, 1],
            mode="markers+text",
            name=html.escape(area),
            text=[html.escape(entries[n].term) if few or entries[n].slug in found else "" for n in inside],
            customdata=[entries[n].term for n in inside],
            hovertext=[_hover(entries[n]) for n in inside],
            hoverinfo="text",
            textposition="top center",
            textfont={"size": 12},
            marker={"size": 11, "color": COLOURS[number % len(COLOURS)], "symbol": SYMBOLS[number % len(SYMBOLS)]},
        )
    if vector is not None:
        x, y = projection.place(vector)
        for n in [n for n, entry in enumerate(entries) if entry.slug in found]:
            drawn.add_scatter(
                x=[x, projection.places[n, 0]], y=[y, projection.places[n, 1]], mode="lines", hoverinfo="skip",
                showlegend=False, line={"color": INK, "width": 1, "dash": "dot"},
            )  # fmt: skip
        drawn.add_scatter(
            x=[x], y=[y], mode="markers", name="your question", hovertext=[_wrapped(question)], hoverinfo="text",
            marker={"size": 18, "symbol": "star", "color": "#e0a100", "line": {"color": INK, "width": 1}},
        )  # fmt: skip
    drawn.update_layout(
        height=620,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "Inter, system-ui, sans-serif"},
        legend={"orientation": "h", "y": -0.02},
        hoverlabel={"align": "left"},
        dragmode="pan",
    )
    drawn.update_xaxes(visible=False)
    drawn.update_yaxes(visible=False)
    return drawn


def _hover(entry: Entry) -> str:
    definition = " ".join(passage.text for passage in entry.definition)
    return f"<b>{html.escape(entry.term)}</b><br>{_wrapped(definition)}"


def _wrapped(text: str) -> str:
    short = textwrap.shorten(text, HOVER_CHARS, placeholder=" …")
    return "<br>".join(html.escape(line) for line in textwrap.wrap(short, HOVER_WIDTH))
