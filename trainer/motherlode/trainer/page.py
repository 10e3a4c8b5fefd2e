"""Pages for people, each one HTML file that needs nothing else, and what they are made of.

All text from outside is escaped by `text`; a value of type `Html` is never escaped again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any, NewType

# Text that is already HTML, as against text that must be escaped.
Html = NewType("Html", str)

_CONTROL_CHARACTERS = dict.fromkeys((*range(32), *range(127, 160)), "\ufffd")


def page(*, kind: str, title: str, heading: str, lead: Html, body: Html) -> str:
    """A whole page; write it as UTF-8. It loads nothing.

    Args:
        kind: What sort of page it is, above the heading.
        title: For the window.
        heading: For the reader.
        lead: Below the heading.
        body: Sections.
    """
    shell = resources.files("motherlode.trainer").joinpath("page.html").read_text("utf-8")
    return Template(shell).substitute(
        kind=text(kind), title=text(title), heading=text(heading), lead=lead, body=body.rstrip()
    )


def table_card(caption: str, heads: Html, rows: Html) -> Html:
    """A table that scrolls where the page is too narrow for it; the caption is not to be seen."""
    return Html(
        f'<div class="card scroll" tabindex="0" role="group" aria-label="{caption}"><table>'
        f'<caption class="hidden">{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def figure_card(title: str, what: str, svg: str) -> Html:
    """A chart below its title and a few words on what it shows."""
    return Html(
        f'<figure class="card"><figcaption>{title}<span>{what}</span></figcaption>{svg}</figure>'
    )


def list_of(values: Mapping[str, Any], show: Callable[[Any], Html]) -> Html:
    """Names and values, one pair a line."""
    rows = join(f"<dt>{text(name)}</dt><dd>{show(v)}</dd>" for name, v in values.items())
    return Html(f'<dl class="facts">{rows}</dl>')


def readable(value: object) -> Html:
    """A number as people write it, or the value as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return text(f"{value:,}")
    return text(f"{value:g}" if isinstance(value, float) else value)


def join(parts: Iterable[str]) -> Html:
    """One after the other."""
    return Html("".join(parts))


def text(value: object) -> Html:
    """The value as text that shows in a page just as it is."""
    encodable = str(value).encode("utf-8", "replace").decode()
    return Html(escape(encodable.translate(_CONTROL_CHARACTERS)))
