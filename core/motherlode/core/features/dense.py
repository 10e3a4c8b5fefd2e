"""Queries that come as dense features."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from motherlode.core.features.featurizer import Featurizer, check_width, write_config, wrong_kind
from motherlode.core.queries import DenseQueries, Queries


@final
class DenseFeaturesConfig(BaseModel):
    """Settings of ready dense features: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dense"] = "dense"


@final
class DenseFeaturizer(Featurizer):
    """Dense features as they come."""

    kind: ClassVar[str] = "dense"

    def __init__(self, config: DenseFeaturesConfig, num_features: int) -> None:
        self._config = config
        self._num_features = num_features

    @property
    @override
    def num_features(self) -> int:
        return self._num_features

    @property
    @override
    def config(self) -> DenseFeaturesConfig:
        return self._config

    @override
    def transform(self, queries: Queries) -> DenseQueries:
        if not isinstance(queries, DenseQueries):
            raise wrong_kind(queries, expected="dense features")
        width = queries.features_BF.shape[1]
        check_width("queries.features.shape", expected=self._num_features, actual=width)
        return queries

    @override
    def save(self, folder: Path) -> None:
        write_config(folder, self)
