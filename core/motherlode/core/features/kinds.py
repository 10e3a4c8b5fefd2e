"""The kinds of featurizers, by the `kind` of their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.documents import read_document
from motherlode.core.errors import BundleError
from motherlode.core.features.dense import DenseFeaturesConfig, DenseFeaturizer
from motherlode.core.features.featurizer import CONFIG_FILE, Featurizer
from motherlode.core.features.sparse import SparseFeaturesConfig, SparseFeaturizer
from motherlode.core.features.text import VOCABULARY_FILE, TextFeaturesConfig, TextFeaturizer

FeaturesConfig = Annotated[
    TextFeaturesConfig | SparseFeaturesConfig | DenseFeaturesConfig, Field(discriminator="kind")
]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    num_features: int = Field(ge=1)
    config: FeaturesConfig


def load_featurizer(folder: Path) -> Featurizer:
    """The featurizer that was saved in a folder.

    Raises:
        BundleError: If a file is missing, damaged, or does not fit the others.
    """
    document = read_document(_Document, folder / CONFIG_FILE)
    config = document.config
    if isinstance(config, SparseFeaturesConfig):
        return SparseFeaturizer(config, document.num_features)
    if isinstance(config, DenseFeaturesConfig):
        return DenseFeaturizer(config, document.num_features)
    text = TextFeaturizer.load(folder, config)
    if text.num_features != document.num_features:
        reason = f"expected {document.num_features} features, got {text.num_features}"
        raise BundleError(folder / VOCABULARY_FILE, reason)
    return text
