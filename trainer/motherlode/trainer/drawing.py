"""How charts look: SVG that stands inside a page.

Colours are the page's own (`var(--ink)` and so on, see page.html), so that a chart follows the
page into dark mode and on to paper. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins for the page's colours: matplotlib takes no CSS variables.
INK, MUTED, GRID, ONE, TWO = "#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005"
GOOD = "#0a0006"
_PAGE_COLORS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    ONE: "var(--one)",
    TWO: "var(--two)",
    GOOD: "var(--good)",
}
# Any: matplotlib's stubs list every setting by name, and not each release has the same.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "motherlode",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def panel() -> tuple[Figure, Axes]:
    """A figure with one pair of axes, to be made within `rc_context(STYLE)`."""
    figure = Figure(figsize=(5.2, 2.9))
    axes = figure.add_axes((0.085, 0.17, 0.905, 0.73))
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    return figure, axes


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: From `panel`.
        name: No other chart of the page has it.
        description: For those who cannot see it.
    """
    page = io.BytesIO()
    figure.savefig(page, format="svg", transparent=True, metadata=_NO_METADATA)
    opening, rest = page.getvalue().decode().split("<svg", 1)[1].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None  # matplotlib always writes one
    drawing = _fit_for_page(rest, re.sub(r"\W", "-", name))
    return f'<svg role="img" aria-label="{escape(description)}" {box[0]}>{drawing.rstrip()}'


def _fit_for_page(drawing: str, name: str) -> str:
    """The drawing with the page's colours and font, and with ids that no other chart has."""
    # Its style sheet would hold for the whole page.
    drawing = re.sub(r"<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"font-family: [^;]*; ?", "", drawing)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = drawing.replace("xlink:href=", "href=")
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for stand_in, color in _PAGE_COLORS.items():
        drawing = drawing.replace(stand_in, color)
    return drawing
