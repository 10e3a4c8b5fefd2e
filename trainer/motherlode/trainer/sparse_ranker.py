"""The making of a sparse linear ranker: classifiers, and how their margins join the scores."""

from __future__ import annotations

import logging

import numpy as np

from motherlode.core.queries import SparseQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import JOINED, SparseLinear, SparseLinearConfig
from motherlode.trainer.answers import answers
from motherlode.trainer.classifiers import fit_classifiers
from motherlode.trainer.data import Dataset
from motherlode.trainer.hits import Judged, true_hits
from motherlode.trainer.joining import fit_join
from motherlode.trainer.loop import LabelledFeatures
from motherlode.trainer.ranker import SparseRankerConfig

# Where nothing can be fitted, hits stay in the order of the index.
_SCORE_ALONE = (1.0, *[0.0] * (len(JOINED) - 1))

logger = logging.getLogger(__name__)


def fit_sparse_linear(
    config: SparseRankerConfig,
    path: QueryPath,
    learned_from: LabelledFeatures,
    held_out: Dataset,
) -> SparseLinear:
    """A ranker of the hits of a trained model.

    The classifiers learn from the training queries, whose scores are too good to learn from how far
    scores can be trusted; how the two are joined is fitted to queries that the model has not seen.

    Args:
        config: How.
        path: The trained model, without a ranker.
        learned_from: What it was trained on, sparse.
        held_out: Queries that it was not trained on.
    """
    queries, positives = learned_from.features, learned_from.positives
    assert isinstance(queries, SparseQueries), "the configuration was checked"
    num_labels = path.index.num_labels
    hits = answers(path, queries, config.negatives)
    weights = fit_classifiers(config, queries, positives, hits, num_labels)
    alone = SparseLinearConfig(shortlist=config.shortlist, join=_SCORE_ALONE)
    ranker = SparseLinear(alone, weights, positives.counts(num_labels))
    return SparseLinear(_joined(ranker, path, held_out), weights, ranker.frequencies_L)


def _joined(ranker: SparseLinear, path: QueryPath, held_out: Dataset) -> SparseLinearConfig:
    """The configuration with the weights of the join."""
    features = path.featurizer.transform(held_out.queries)
    shortlist = answers(path, features, ranker.config.shortlist)
    judged = Judged.of(shortlist, held_out.positives, held_out.num_true)
    is_true_N = np.zeros(len(shortlist.labels), np.bool_)
    hits = true_hits(judged, ranker.num_labels)
    is_true_N[shortlist.offsets[hits.rows] + hits.ranks] = True
    join = fit_join(ranker.inputs(shortlist, features), is_true_N, shortlist.counts)
    if join is None:
        logger.warning(
            "no held-out query has both a true label and another among its hits: the classifiers "
            "have no part in the ranking; hold out more with loop.held_out"
        )
        return ranker.config
    return ranker.config.model_copy(update={"join": tuple(join.tolist())})
