"""Queries to features, by the same code and files in training, scoring and serving."""

from motherlode.core.features.dense import DenseFeaturesConfig, DenseFeaturizer
from motherlode.core.features.featurizer import Featurizer
from motherlode.core.features.kinds import FeaturesConfig, load_featurizer
from motherlode.core.features.sparse import SparseFeaturesConfig, SparseFeaturizer
from motherlode.core.features.text import TextFeaturesConfig, TextFeaturizer, map_vocabulary

__all__ = [
    "DenseFeaturesConfig",
    "DenseFeaturizer",
    "FeaturesConfig",
    "Featurizer",
    "SparseFeaturesConfig",
    "SparseFeaturizer",
    "TextFeaturesConfig",
    "TextFeaturizer",
    "load_featurizer",
    "map_vocabulary",
]
