"""Which n-grams are features, and where they stand.

Shapes: F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motherlode.core.errors import BundleError
from motherlode.core.features.characters import CharacterCounter, CharacterFinder
from motherlode.core.features.words import WordCounter, WordFinder
from motherlode.core.labels import StringColumn
from motherlode.core.queries import FloatArray, IntArray

# No word holds it, so it tells character n-grams from word n-grams.
CHARACTER_MARK = "#"

_SCHEMA = pa.schema([("feature", pa.string()), ("idf", pa.float32())])

Sizes = tuple[int, int]


class NgramFinder(Protocol):
    """Finds known n-grams of one sort in texts."""

    def find(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """int64 [N], ascending, the text of each known n-gram; int64 [N], its feature id."""

    def find_one(self, text: str) -> list[int]:
        """Feature ids of one text's known n-grams, in no order."""


def make_finders(
    vocabulary: Sequence[str], words: Sizes | None, characters: Sizes | None
) -> list[NgramFinder]:
    """What finds the features of a vocabulary; sizes are least and most, None for none."""
    # In whole columns: a string object for each n-gram would be most of a version's memory.
    column = StringColumn.of(vocabulary).arrow
    is_marked = pc.starts_with(column, CHARACTER_MARK)
    is_marked_F = is_marked.to_numpy(zero_copy_only=False)
    finders: list[NgramFinder] = []
    if words:
        ngrams = StringColumn(column.filter(pc.invert(is_marked)))
        finders.append(WordFinder(*words, ngrams, np.flatnonzero(~is_marked_F)))
    if characters:
        ngrams = StringColumn(pc.utf8_slice_codeunits(column.filter(is_marked), 1))
        finders.append(CharacterFinder(*characters, ngrams, np.flatnonzero(is_marked_F)))
    return finders


def count_ngrams(
    chunks: Iterable[Sequence[str]],
    words: Sizes | None,
    characters: Sizes | None,
    min_count: int,
) -> tuple[list[str], IntArray, int]:
    """The n-grams of normalised texts, in no order.

    Returns:
        The n-grams that stand in min_count texts or more; int64, in how many; how many texts came.
    """
    word_counter = WordCounter(*words) if words else None
    character_counter = CharacterCounter(*characters) if characters else None
    num_texts = 0
    for texts in chunks:
        num_texts += len(texts)
        for counter in (word_counter, character_counter):
            if counter:
                counter.add(texts)
    ngrams, counts = word_counter.frequencies(min_count) if word_counter else ([], _NO_COUNTS)
    if character_counter:
        bare, bare_counts = character_counter.frequencies(min_count)
        ngrams += [CHARACTER_MARK + ngram for ngram in bare]
        counts = np.concatenate([counts, bare_counts])
    return ngrams, counts, num_texts


def merge_counts(
    ngrams: list[str], counts: IntArray, others: list[str], other_counts: IntArray
) -> tuple[list[str], IntArray]:
    """Counted n-grams, and of others those that are not among them."""
    known = set(ngrams)
    is_new = np.fromiter((ngram not in known for ngram in others), np.bool_, len(others))
    new = [others[i] for i in np.flatnonzero(is_new).tolist()]
    return ngrams + new, np.concatenate([counts, other_counts[is_new]])


def select(ngrams: list[str], counts: IntArray, limit: int) -> tuple[list[str], IntArray]:
    """The n-grams of the highest counts, at most limit; by descending count, then by text."""
    if len(ngrams) > limit:
        # What cannot be among them need not be sorted.
        kept = counts >= np.partition(counts, -limit)[-limit]
        ngrams = [ngrams[i] for i in np.flatnonzero(kept).tolist()]
        counts = counts[kept]
    by_text = np.array(sorted(range(len(ngrams)), key=ngrams.__getitem__), np.int64)
    order = by_text[np.argsort(-counts[by_text], kind="stable")][:limit]
    return [ngrams[i] for i in order.tolist()], counts[order]


def write_vocabulary(path: Path, vocabulary: Sequence[str], idf: FloatArray) -> None:
    """Writes an Arrow file with the columns feature and idf.

    Raises:
        OSError: If it cannot be written.
    """
    features = StringColumn.of(vocabulary).arrow.cast(pa.string())
    table = pa.table({"feature": features, "idf": idf}, schema=_SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        writer.write_table(table)


def read_vocabulary(path: Path) -> tuple[StringColumn, FloatArray]:
    """The vocabulary and float32 [F] idf that were written.

    Raises:
        BundleError: If the file is missing or damaged.
    """
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(path, f"cannot be read: {error}") from error
    if not table.schema.equals(_SCHEMA):
        raise BundleError(
            path, f"expected columns {_describe(_SCHEMA)}, got {_describe(table.schema)}"
        )
    idf: FloatArray = table["idf"].to_numpy()
    if table["feature"].null_count or not np.isfinite(idf).all():
        raise BundleError(path, "expected a feature and a finite idf in each row, got a gap")
    return StringColumn(table["feature"].combine_chunks().cast(pa.large_string())), idf


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


_NO_COUNTS = np.empty(0, np.int64)
