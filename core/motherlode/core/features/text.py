"""Texts to tf-idf features of word and character n-grams.

Shapes: B texts, F features, N n-grams found in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import override

from motherlode.core.errors import InvalidInputError
from motherlode.core.features.featurizer import Featurizer, check_width, write_config, wrong_kind
from motherlode.core.features.normalise import normalise
from motherlode.core.features.sparse import scale_rows
from motherlode.core.features.vocabulary import (
    count_ngrams,
    make_finders,
    merge_counts,
    read_vocabulary,
    select,
    write_vocabulary,
)
from motherlode.core.queries import (
    FloatArray,
    IntArray,
    Queries,
    SparseQueries,
    TextQueries,
    concatenate,
)

VOCABULARY_FILE = "vocabulary.arrow"

# A single text of up to so many characters is done in plain Python, before NumPy has been called
# often enough to do it.
_FEW_CHARACTERS = 80
# Texts are taken together until they have so many characters: enough to pay for the calls into
# NumPy, few enough to stay in the processor's caches.
_CHUNK_CHARACTERS = 1 << 16
_FIT_CHUNK_CHARACTERS = 1 << 18

Sizes = Annotated[
    tuple[Annotated[int, Field(ge=1, le=16)], Annotated[int, Field(ge=1, le=16)]],
    Field(description="the least and the most, such as (1, 2)"),
]


def _tuple_or_none(value: object) -> object:
    # TOML has neither tuples nor null: an empty list says that there are none.
    return (tuple(value) if isinstance(value, list) else value) or None


OptionalSizes = Annotated[Sizes | None, BeforeValidator(_tuple_or_none)]


@final
class TextFeaturesConfig(BaseModel):
    """Settings of text features.

    Attributes:
        words: Least and most words of an n-gram, or None (`[]` in TOML) for no word n-grams.
        characters: Least and most characters of an n-gram, or None for no such ones.
        min_count: A feature stands in at least so many of the fitted texts.
        max_features: Of more features those in the most texts are kept.
        sublinear: A feature that stands n times in a text counts 1 + ln n, not n.
        max_characters: The rest of a longer text is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text"] = "text"
    words: OptionalSizes = (1, 1)
    characters: OptionalSizes = None
    min_count: int = Field(default=2, ge=1)
    max_features: int = Field(default=300_000, ge=1, le=1 << 29)
    sublinear: bool = True
    max_characters: int = Field(default=20_000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.words is None and self.characters is None:
            raise ValueError("words or characters must be set")
        for name, sizes in (("words", self.words), ("characters", self.characters)):
            if sizes is not None and sizes[0] > sizes[1]:
                raise ValueError(f"{name}: the least must not be above the most, got {sizes}")
        return self


@final
class TextFeaturizer(Featurizer):
    """Rows of tf-idf weights scaled to length 1; a text without a known n-gram has an empty row.

    Texts are normalised first (see `normalise`). Sparse queries are taken for such rows and pass.

    Attributes:
        vocabulary: The n-gram of each feature id; a character n-gram has `#` before it.
        idf: float32 [F], ln((1 + texts) / (1 + texts that have the feature)) + 1.
    """

    kind: ClassVar[str] = "text"

    def __init__(
        self, config: TextFeaturesConfig, vocabulary: Sequence[str], idf: FloatArray
    ) -> None:
        self._config = config
        self.vocabulary = vocabulary
        self.idf = idf
        self._finders = make_finders(vocabulary, config.words, config.characters)
        # A table, as NumPy's logarithm may round differently at different places of an array.
        # No n-gram stands more often in a text than it has characters, but for the space before
        # and behind each word.
        counts = np.arange(config.max_characters + 2)
        weights = 1.0 + np.log(np.maximum(counts, 1)) if config.sublinear else counts
        self._count_weights = weights.astype(np.float32)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        config: TextFeaturesConfig,
        label_texts: Sequence[str] = (),
    ) -> Self:
        """The featurizer whose features are the n-grams of these texts.

        Features are numbered by descending number of texts, then by the n-gram.

        Args:
            texts: Of the queries.
            config: Settings.
            label_texts: Texts of labels that are to be found by them. They count like the others,
                and their n-grams are features even below `min_count`: the name that tells a label
                from all others mostly stands in one text. Such an n-gram has the idf of the label
                texts it stands in.

        Raises:
            InvalidInputError: If no n-gram stands in config.min_count texts.
        """
        ngrams, counts, num_texts = _count(chain(texts, label_texts), config, config.min_count)
        if label_texts and config.min_count > 1:
            rare, rare_counts, _ = _count(label_texts, config, 1)
            ngrams, counts = merge_counts(ngrams, counts, rare, rare_counts)
        if not ngrams:
            raise InvalidInputError(
                "texts",
                expected=f"an n-gram that stands in {config.min_count} texts or more",
                actual=f"none in {num_texts} texts",
            )
        vocabulary, counts = select(ngrams, counts, config.max_features)
        idf = np.log((1.0 + num_texts) / (1.0 + counts)) + 1.0
        return cls(config, vocabulary, idf.astype(np.float32))

    @classmethod
    def load(cls, folder: Path, config: TextFeaturesConfig) -> Self:
        """The featurizer that was saved in a folder.

        Raises:
            BundleError: If the vocabulary is missing or damaged.
        """
        return cls(config, *read_vocabulary(folder / VOCABULARY_FILE))

    @property
    @override
    def num_features(self) -> int:
        return len(self.vocabulary)

    @property
    @override
    def config(self) -> TextFeaturesConfig:
        return self._config

    @override
    def transform(self, queries: Queries) -> SparseQueries:
        if isinstance(queries, SparseQueries):
            width = queries.num_features
            check_width("queries.num_features", expected=self.num_features, actual=width)
            return queries
        if not isinstance(queries, TextQueries):
            raise wrong_kind(queries, expected="texts, or sparse features")
        chunks = _chunks(queries.texts, self._config.max_characters, _CHUNK_CHARACTERS)
        parts = [self._features(chunk) for chunk in chunks]
        whole = concatenate(parts or [self._features([])])
        assert isinstance(whole, SparseQueries)
        return whole

    @override
    def save(self, folder: Path) -> None:
        write_config(folder, self)
        write_vocabulary(folder / VOCABULARY_FILE, self.vocabulary, self.idf)

    def _features(self, texts: Sequence[str]) -> SparseQueries:
        if len(texts) == 1 and len(texts[0]) <= _FEW_CHARACTERS:
            return self._features_of_one(texts[0])
        found = [finder.find(texts) for finder in self._finders]
        rows, ids, counts = _count_pairs(
            np.concatenate([rows for rows, _ in found]),
            np.concatenate([ids for _, ids in found]),
            self.num_features,
        )
        indptr = rows.searchsorted(np.arange(len(texts) + 1))
        return self._weighted(indptr, rows, ids, counts)

    def _features_of_one(self, text: str) -> SparseQueries:
        known = Counter(chain.from_iterable(finder.find_one(text) for finder in self._finders))
        ids = sorted(known)
        return self._weighted(
            np.array([0, len(ids)]),
            np.zeros(len(ids), np.int64),
            np.array(ids, np.int64),
            np.array([known[i] for i in ids], np.int64),
        )

    def _weighted(
        self, indptr: IntArray, rows: IntArray, ids: IntArray, counts: IntArray
    ) -> SparseQueries:
        weights = self._count_weights[counts] * self.idf[ids]
        values = scale_rows(rows, weights, len(indptr) - 1)
        return SparseQueries(indptr, ids, values, self.num_features)


def _count(
    texts: Iterable[str], config: TextFeaturesConfig, min_count: int
) -> tuple[list[str], IntArray, int]:
    """As `count_ngrams`, of texts as they come."""
    chunks = _chunks(texts, config.max_characters, _FIT_CHUNK_CHARACTERS)
    return count_ngrams(chunks, config.words, config.characters, min_count)


def map_vocabulary(old: TextFeaturizer, new: TextFeaturizer) -> IntArray:
    """int64 [F_new]: for each new feature its id in the old featurizer, or -1."""
    ids = {feature: i for i, feature in enumerate(old.vocabulary)}
    return np.array([ids.get(feature, -1) for feature in new.vocabulary], np.int64)


def _chunks(
    texts: Iterable[str], max_characters: int, chunk_characters: int
) -> Iterator[list[str]]:
    chunk: list[str] = []
    num_characters = 0
    for text in texts:
        chunk.append(normalise(text, max_characters))
        num_characters += len(chunk[-1]) + 1
        if num_characters >= chunk_characters:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _count_pairs(
    rows: IntArray, ids: IntArray, num_features: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows and ids of the distinct pairs, sorted, and how often each came; all int64."""
    keys = rows * num_features + ids
    keys.sort()
    edge = np.ones(len(keys) + 1, np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=edge[1:-1])
    edges = edge.nonzero()[0]
    rows, ids = np.divmod(keys[edges[:-1]], num_features)
    return rows, ids, edges[1:] - edges[:-1]
