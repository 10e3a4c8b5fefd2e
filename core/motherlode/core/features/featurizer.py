"""What turns queries into features, the same way in training, scoring and serving."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from motherlode.core.errors import InvalidQueryError
from motherlode.core.queries import Features, Queries

CONFIG_FILE = "config.json"


class Featurizer(ABC):
    """Queries to features; safe to use from several threads.

    A query's features have the same bits alone and in any batch.

    Attributes:
        kind: `text`, `sparse` or `dense`: what a query is made of.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def num_features(self) -> int:
        """F: sparse feature ids are below it, dense features have this width."""

    @property
    @abstractmethod
    def config(self) -> BaseModel:
        """The settings, one of FeaturesConfig."""

    @abstractmethod
    def transform(self, queries: Queries) -> Features:
        """The features of each query, in order.

        Raises:
            InvalidQueryError: If queries of this kind or width cannot be turned into features.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the featurizer into a folder, made if missing; the same one gives the same bytes.

        Raises:
            OSError: If a file cannot be written.
        """


def write_config(folder: Path, featurizer: Featurizer) -> None:
    """Writes what load_featurizer reads first."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "num_features": featurizer.num_features,
        "config": featurizer.config.model_dump(mode="json"),
    }
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def check_width(field: str, *, expected: int, actual: int) -> None:
    """Refuses features of another width.

    Raises:
        InvalidQueryError: If the widths differ.
    """
    if expected != actual:
        raise InvalidQueryError(field, expected=f"{expected} features", actual=actual)


def wrong_kind(queries: Queries, *, expected: str) -> InvalidQueryError:
    """The error for queries that a featurizer does not take."""
    return InvalidQueryError("queries", expected=expected, actual=type(queries).__name__)
