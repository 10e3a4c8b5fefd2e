"""The label table: what each row of the label embeddings stands for.

Shapes: L labels, N rows asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final, overload

import pyarrow as pa
from typing_extensions import override

from motherlode.core.errors import BundleError, NotFoundError
from motherlode.core.queries import IntArray

_COLUMNS = ["key", "text", "frequency"]

# Up to here one access a row is faster than one call of Arrow's kernel.
_FEW_ROWS = 16
# Arrow keeps Python's lock while it makes strings: 65,536 took it for ten milliseconds and more, in
# which a server that loads a version answers nobody. Short blocks take no longer in all.
_BLOCK_STRINGS = 1024


@final
class StringColumn(Sequence[str]):
    """Strings in one Arrow buffer: few bytes beside the text, and mapped files need no reading."""

    def __init__(self, array: Any) -> None:
        self._array = array

    @classmethod
    def of(cls, values: Sequence[str]) -> StringColumn:
        """The strings as a column; a column is returned as it is."""
        if isinstance(values, StringColumn):
            return values
        return cls(pa.array(values, pa.large_string()))

    @property
    def arrow(self) -> Any:
        """The Arrow array, of type large_string."""
        return self._array

    @cached_property
    def mean_bytes(self) -> float:
        """Bytes that a string takes, on average; there must be one."""
        return float(self._array.nbytes / len(self))

    def take(self, rows: IntArray) -> list[str]:
        """The strings at int64 [N] rows, in their order."""
        array = self._array
        if len(rows) <= _FEW_ROWS:
            return [array[row].as_py() for row in rows.tolist()]
        taken: list[str] = array.take(pa.array(rows)).to_pylist()
        return taken

    @override
    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> StringColumn: ...
    @override
    def __getitem__(self, row: int | slice) -> str | StringColumn:
        if isinstance(row, slice):
            return StringColumn(self._array[row])
        return str(self._array[row].as_py())

    @override
    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._array), _BLOCK_STRINGS):
            yield from self._array[start : start + _BLOCK_STRINGS].to_pylist()


@final
class LabelTable:
    """Keys, texts and frequencies of the labels; row i describes row i of the label embeddings.

    Attributes:
        keys: L distinct names by which users know the labels.
        texts: L texts to show, or None where a label is known by its key alone.
        frequencies: int64 [L], positives of each label in the training data.
    """

    def __init__(
        self, keys: Sequence[str], texts: Sequence[str] | None, frequencies: IntArray
    ) -> None:
        self.keys = StringColumn.of(keys)
        self.texts = None if texts is None else StringColumn.of(texts)
        self.frequencies = frequencies
        lengths = {len(keys), len(frequencies), len(keys) if texts is None else len(texts)}
        if len(lengths) != 1:
            raise ValueError(f"keys, texts and frequencies differ in length: {sorted(lengths)}")
        # Asked for several times by each request.
        self._length = len(keys)

    def __len__(self) -> int:
        return self._length

    @property
    def shown(self) -> StringColumn:
        """What is shown of each label: its text, or its key where labels have no texts."""
        return self.keys if self.texts is None else self.texts

    def row_of(self, key: str) -> int:
        """The row of the label with this key.

        The first call builds a dictionary of all keys and costs time and memory accordingly.

        Raises:
            NotFoundError: If no label has this key.
        """
        try:
            return self._rows[key]
        except KeyError:
            raise NotFoundError("label", key) from None

    def keys_of(self, rows: IntArray) -> list[str]:
        """The keys at int64 [N] rows."""
        return self.keys.take(rows)

    def texts_of(self, rows: IntArray) -> list[str]:
        """The texts at int64 [N] rows; the keys where the table has no texts."""
        return self.shown.take(rows)

    def save(self, path: Path) -> None:
        """Writes an Arrow file with the columns `key`, `text` and `frequency`.

        Raises:
            ValueError: If two labels have the same key.
        """
        if len(self._rows) != len(self):
            raise ValueError(
                f"label keys are not distinct: {self._first_repeated_key()!r} is repeated"
            )
        texts = self.texts
        text = pa.nulls(len(self), pa.large_string()) if texts is None else texts.arrow
        columns = [self.keys.arrow, text, pa.array(self.frequencies, pa.int64())]
        batch = pa.record_batch(columns, names=_COLUMNS)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)

    @classmethod
    def load(cls, path: Path) -> LabelTable:
        """The table that `save` wrote; its columns stay in the mapped file.

        Raises:
            BundleError: If the file is no such table.
        """
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise BundleError(path, f"not a readable label table: {error}") from error
        if table.column_names != _COLUMNS or table.schema.types != _TYPES:
            raise BundleError(path, f"expected the columns {_COLUMNS}, got {table.column_names}")
        key, text, frequency = (_one_chunk(column) for column in table.columns)
        if key.null_count or frequency.null_count or text.null_count not in {0, len(text)}:
            raise BundleError(path, "a key, text or frequency is missing")
        texts = StringColumn(text) if text.null_count == 0 else None
        return cls(StringColumn(key), texts, frequency.to_numpy())

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def _first_repeated_key(self) -> str:
        return next(key for row, key in enumerate(self.keys) if self._rows[key] != row)


_TYPES = [pa.large_string(), pa.large_string(), pa.int64()]


def _one_chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
