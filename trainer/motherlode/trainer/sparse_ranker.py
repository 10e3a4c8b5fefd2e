"""The making of a sparse linear ranker: classifiers, and how their margins join the scores."""

from __future__ import annotations

import logging

import numpy as np

from motherlode.core.queries import SparseQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import (
    JOINED,
    LabelTexts,
    Neighbors,
    NeighborsConfig,
    SparseLinear,
    SparseLinearConfig,
    joined_terms,
)
from motherlode.trainer.answers import answers
from motherlode.trainer.classifiers import fit_classifiers
from motherlode.trainer.data import Dataset
from motherlode.trainer.hits import Judged, true_hits
from motherlode.trainer.joining import Join, fit_join
from motherlode.trainer.loop import LabelledFeatures
from motherlode.trainer.preparation import TrainingData
from motherlode.trainer.ranker import SparseRankerConfig

# Where nothing can be fitted, hits stay in the order of the index.
_SCORE_ALONE = (1.0, *[0.0] * (len(JOINED) - 1))
# More hits take longer and more memory, and change nothing.
_MOST_HITS = 400_000
_FEWEST_QUERIES = 100

logger = logging.getLogger(__name__)


def fit_sparse_linear(
    config: SparseRankerConfig, path: QueryPath, data: TrainingData, *, seed: int
) -> SparseLinear:
    """A ranker of the hits of a trained model.

    The classifiers learn from the training queries, whose scores are too good to learn from how far
    scores can be trusted; how the two are joined is fitted to queries that the model has not seen.

    Args:
        config: How.
        path: The trained model, without a ranker.
        data: What it was trained on, sparse, and the queries that it was not.
        seed: Of the join.
    """
    queries, positives = data.learned_from.features, data.learned_from.positives
    assert isinstance(queries, SparseQueries), "the configuration was checked"
    num_labels = path.index.num_labels
    hits = answers(path, queries, config.negatives)
    weights = fit_classifiers(config, queries, positives, hits, num_labels)
    texts = data.label_features
    neighbors = _neighbors(config.neighbors, path, data.learned_from, seed)
    ranker = SparseLinear(
        SparseLinearConfig(
            shortlist=config.shortlist,
            join=_SCORE_ALONE,
            neighbors=None if neighbors is None else neighbors.config,
        ),
        weights,
        positives.counts(num_labels),
        None if texts is None else LabelTexts.of(texts),
        neighbors,
    )
    most = max(_MOST_HITS // ranker.shortlist_for(1), _FEWEST_QUERIES)
    join = _fitted_join(ranker, path, _some(data.held_out, most), seed)
    if join is None:
        logger.warning(
            "no held-out query has both a true label and another among its hits: the classifiers "
            "have no part in the ranking; hold out more with loop.held_out"
        )
        return ranker.with_config(ranker.config.model_copy(update={"neighbors": None}))
    update = {"join": join.weights, "hidden": join.hidden}
    return ranker.with_config(ranker.config.model_copy(update=update))


def _neighbors(
    count: int, path: QueryPath, learned_from: LabelledFeatures, seed: int
) -> Neighbors | None:
    if count == 0:
        return None
    embeddings_TD = path.encoder.encode(learned_from.features)
    positives, num_labels = learned_from.positives, path.index.num_labels
    rows = positives.indptr, positives.indices
    config = NeighborsConfig(count=count)
    return Neighbors.build(config, embeddings_TD, *rows, num_labels, seed=seed)


def _some(held_out: Dataset, most: int) -> Dataset:
    """So many queries at most, evenly from all."""
    if len(held_out) <= most:
        return held_out
    return held_out.rows(np.linspace(0, len(held_out) - 1, most).astype(np.int64))


def _fitted_join(
    ranker: SparseLinear, path: QueryPath, held_out: Dataset, seed: int
) -> Join | None:
    features = path.featurizer.transform(held_out.queries)
    shortlist = answers(path, features, ranker.config.shortlist)
    judged = Judged.of(shortlist, held_out.positives, held_out.num_true)
    is_true_N = np.zeros(len(shortlist.labels), np.bool_)
    hits = true_hits(judged, ranker.num_labels)
    is_true_N[shortlist.offsets[hits.rows] + hits.ranks] = True
    inputs_IN = ranker.inputs(shortlist, features, path.encoder.encode(features))
    return fit_join(joined_terms(inputs_IN), inputs_IN, is_true_N, shortlist.counts, seed=seed)
