"""What commands print: answers on standard output, everything else on standard error.

Nothing else in the package writes to these streams; logs go through `logging`.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import PurePath
from typing import Any

__all__ = ["print_json", "print_line", "print_note", "print_table"]


def print_line(text: str = "") -> None:
    """Write one line of the answer to standard output."""
    sys.stdout.write(f"{text}\n")


def print_note(text: str) -> None:
    """Write one line about the answer (a version, a duration, a hint) to standard error."""
    sys.stderr.write(f"{text}\n")


def print_json(document: object) -> None:
    """Write one JSON document to standard output, text as it is, without escapes.

    Dataclasses become objects, NumPy arrays and scalars lists and numbers, paths strings.

    Raises:
        TypeError: If a value has no JSON form.
        ValueError: If a number is NaN or infinite, which JSON cannot say.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2, default=_plain)
    print_line(text)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    decimals: int = 4,
) -> None:
    """Write a table to standard output: ruled on a terminal, aligned plain text elsewhere.

    A column of numbers is aligned right. Line breaks and control characters within a cell are
    shown as spaces, so that a row stays a row and no text from outside steers the terminal.

    Args:
        columns: Headings.
        rows: One sequence of cells per row, as long as `columns`; None is an empty cell.
        title: A line above the table.
        decimals: Digits after the point of a float.

    Raises:
        ValueError: If a row has more or fewer cells than there are columns.
    """
    listed = [list(row) for row in rows]
    for row in listed:
        if len(row) != len(columns):
            raise ValueError(f"expected {len(columns)} cells in a row, got {len(row)}")
    right = [_is_numeric([row[i] for row in listed]) for i in range(len(columns))]
    cells = [[_cell(value, decimals) for value in row] for row in listed]
    if sys.stdout.isatty():
        _print_ruled(columns, cells, right, title)
    else:
        _print_plain(columns, cells, right, title)


def _print_ruled(
    columns: Sequence[str], rows: list[list[str]], right: list[bool], title: str | None
) -> None:
    # Rich costs tens of milliseconds to import, so only a table on a terminal pays for it. `Text`
    # keeps square brackets in a label from being read as markup.
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(_clean(title)) if title else None,
        title_justify="left",
        title_style="bold",
    )
    for column, is_right in zip(columns, right, strict=True):
        table.add_column(Text(column), justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout).print(table)


def _print_plain(
    columns: Sequence[str], rows: list[list[str]], right: list[bool], title: str | None
) -> None:
    lines = [list(columns), *rows]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        print_line(_clean(title))
    for line in lines:
        padded = map(_pad, line, widths, right)
        print_line("  ".join(padded).rstrip())


def _pad(cell: str, width: int, is_right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if is_right else cell + space


def _width(text: str) -> int:
    """Columns that a text takes on a terminal: two for a wide character, none for a mark on one."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _is_numeric(values: list[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{decimals}f}" if math.isfinite(value) else str(value)
    return _clean(str(value))


def _clean(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, PurePath):
        return str(value)
    # NumPy arrays and scalars, without importing NumPy into every command.
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
