"""The page's colours and fonts, light and dark; nothing is fetched from elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
FONTS = {"Inter": "inter", "Space Grotesk": "space-grotesk", "JetBrains Mono": "jetbrains-mono"}


def theme() -> gr.themes.Base:
    """Return Gradio's plain theme in green and graphite; each ink on its ground has a contrast of at least 4.5 (WCAG AA)."""
    green = gr.themes.Color(
        "#effaf4", "#d8f3e4", "#b3e6cb", "#7fd1a8", "#48b583", "#23996a", "#12784f", "#0f6241", "#0d4e35", "#0b402c", "#06251a"
    )  # fmt: skip
    gray = gr.themes.Color(
        "#f7faf8", "#eef2f0", "#dde4e0", "#c2ccc7", "#8e9b95", "#66736d", "#4b5751", "#37413c", "#222b27", "#161d1a", "#0e1412"
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=green,
        secondary_hue=green,
        neutral_hue=gray,
        font=["Inter", "system-ui", "sans-serif"],
        font_mono=["JetBrains Mono", "ui-monospace", "monospace"],
        radius_size="md",
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def stylesheet() -> str:
    """Return the CSS, the fonts in it: so they need no path of their own, whatever folder the page is served under."""
    faces = [
        f"@font-face {{ font-family: '{family}'; font-weight: 300 800; font-display: swap;"
        f" src: url(data:font/woff2;base64,{base64.b64encode((HERE / 'fonts' / f'{name}.woff2').read_bytes()).decode()}) format('woff2'); }}"
        for family, name in FONTS.items()
    ]
    return "\n".join([*faces, (HERE / "style.css").read_text("utf-8")])
