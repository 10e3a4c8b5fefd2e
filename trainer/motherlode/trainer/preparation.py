"""From the files of a data set to what a run learns from and is measured on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from motherlode.core.errors import ConfigError, DataError
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    Featurizer,
    SparseFeaturesConfig,
    SparseFeaturizer,
    TextFeaturesConfig,
    TextFeaturizer,
)
from motherlode.core.labels import LabelTable
from motherlode.core.queries import (
    DenseQueries,
    Features,
    FloatArray,
    Queries,
    SparseQueries,
    TextQueries,
)
from motherlode.core.query_checks import kind_of
from motherlode.core.records.messages import Words
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import (
    Dataset,
    find_file,
    has_file,
    kind_of_features,
    load_dataset,
    load_test_file,
    split_held_out,
)
from motherlode.trainer.loop import LabelledFeatures
from motherlode.trainer.model import feature_width

# Products of larger features with the weights leave the range of float32.
_LARGEST_FEATURE = 1e15

logger = logging.getLogger(__name__)


@final
class Featurized(NamedTuple):
    """What is learned from, as features.

    Attributes:
        featurizer: Fitted on the queries.
        learned_from: The features and labels of those.
        label_features: The featurised texts of all labels; None where they are not used.
    """

    featurizer: Featurizer
    learned_from: LabelledFeatures
    label_features: SparseQueries | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """A data set in the forms that a run needs.

    Attributes:
        whole: All training queries.
        test: The test part, if there is one.
        held_out: Training queries kept for validation; may be empty.
        featurizer: Fitted on the other training queries.
        learned_from: The features and labels of those.
        label_features: The featurised texts of all labels; None where they are not used.
    """

    whole: Dataset
    test: Dataset | None
    held_out: Dataset
    featurizer: Featurizer
    learned_from: LabelledFeatures
    label_features: SparseQueries | None


def prepare(config: TrainConfig, data: Path) -> TrainingData:
    """The data set of a folder, checked, split and featurised.

    Raises:
        DataError: If a file is wrong, or nothing can be learned from it.
        ConfigError: If the features are not of the data's kind, or label texts are asked for and
            there are none.
        InvalidInputError: If no feature stands in enough texts.
    """
    whole = load_dataset(data, "train")
    _check_kind(config, whole)
    test = load_test(data, whole)
    train, held_out = split(whole, config)
    sizes = f"{len(train):,} training queries, {len(held_out):,} held out"
    logger.info("%s: %s, %s labels", data.name, sizes, f"{len(whole.labels):,}")
    featurized = featurize(config, train)
    _check_can_be_learned(data, featurized.learned_from)
    return TrainingData(whole, test, held_out, *featurized)


def featurize(config: TrainConfig, train: Dataset) -> Featurized:
    """Training queries and, where they are used, label texts as features.

    Raises:
        ConfigError: If label texts are asked for and there are none.
        InvalidInputError: If no feature stands in enough texts.
    """
    label_texts = _label_texts(config, train.labels)
    featurizer = new_featurizer(config, train.queries, label_texts)
    learned_from = LabelledFeatures(featurizer.transform(train.queries), train.positives)
    label_features = _label_features(featurizer, label_texts, config.labels.embedding)
    return Featurized(featurizer, learned_from, label_features)


def split(dataset: Dataset, config: TrainConfig) -> tuple[Dataset, Dataset]:
    """What a run learns from, and what it holds out: as many as it asks for, a tenth at most."""
    count = min(config.loop.held_out, len(dataset) // 10)
    if count == 0:
        return dataset, dataset.rows(np.empty(0, np.int64))
    return split_held_out(dataset, count, np.random.default_rng(config.seed))


def _label_texts(config: TrainConfig, labels: LabelTable) -> Sequence[str]:
    """The texts that label embeddings are made of; none where they are free."""
    embedding = config.labels.embedding
    if embedding == "free":
        return ()
    if labels.texts is None:
        raise ConfigError(
            "labels.embedding", expected="'free' for labels without texts", actual=embedding
        )
    return labels.texts


def _label_features(
    featurizer: Featurizer, texts: Sequence[str], embedding: str
) -> SparseQueries | None:
    if not texts:
        return None
    features = featurizer.transform(TextQueries(texts))
    assert isinstance(features, SparseQueries)
    num_empty = int((np.diff(features.indptr) == 0).sum())
    if num_empty == len(texts):
        expected = "'free' for labels whose texts have no feature"
        raise ConfigError("labels.embedding", expected=expected, actual=embedding)
    if num_empty:
        logger.warning(
            "label texts without any feature: %s; what these labels get from their texts is zeros",
            f"{num_empty:,}",
        )
    return features


def _check_can_be_learned(data: Path, learned_from: LabelledFeatures) -> None:
    path = find_file(data, "train")
    if len(learned_from.positives.indices) == 0:
        expected = "a query with a label, beside those held out"
        raise DataError(path, None, "labels", expected=expected, actual=Words("none"))
    if feature_width(learned_from.features) == 0:
        raise DataError(path, None, "features", expected="at least one", actual=Words("none"))
    largest = np.abs(_values(learned_from.features)).max(initial=0.0)
    if largest > _LARGEST_FEATURE:
        expected = f"up to {_LARGEST_FEATURE:.0e} in size, unless they are normalised"
        raise DataError(path, None, "values of features", expected=expected, actual=largest)


def _values(features: Features) -> FloatArray:
    return features.features_BF if isinstance(features, DenseQueries) else features.values


def load_test(data: Path, train: Dataset) -> Dataset | None:
    """The test part of a data set, if there is one.

    Raises:
        DataError: If it is broken, or of another kind or width than the training part.
    """
    if not has_file(data, "test"):
        return None
    queries = train.queries
    return load_test_file(
        find_file(data, "test"),
        labels=train.labels,
        num_features=None if isinstance(queries, TextQueries) else feature_width(queries),
        kinds=[kind_of(queries)],
    )


def new_featurizer(
    config: TrainConfig, queries: Queries, label_texts: Sequence[str] = ()
) -> Featurizer:
    """The featurizer of a run, fitted on its training queries and the label texts it uses."""
    features = config.features
    if isinstance(features, TextFeaturesConfig):
        assert isinstance(queries, TextQueries)
        return TextFeaturizer.fit(queries.texts, features, label_texts)
    if isinstance(features, SparseFeaturesConfig):
        assert isinstance(queries, SparseQueries)
        return SparseFeaturizer(features, queries.num_features)
    assert isinstance(features, DenseFeaturesConfig)
    assert isinstance(queries, DenseQueries)
    return DenseFeaturizer(features, queries.features_BF.shape[1])


def _check_kind(config: TrainConfig, dataset: Dataset) -> None:
    kind = kind_of_features(dataset.queries)
    if config.features.kind != kind:
        raise ConfigError(
            "features.kind", expected=f"{kind!r}, as the data is", actual=config.features.kind
        )
