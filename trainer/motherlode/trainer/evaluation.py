"""How good a ranking is, against the true labels: P@k, nDCG@k, PSP@k, PSnDCG@k and R@k.

Figures are in per cent. P, nDCG and R are means over queries; a query without any true label counts
as 0 in them, and adds nothing to PSP and PSnDCG, which divide one sum over all queries by another.
A query with fewer hits than k counts the missing hits as misses.

A true label that the label table lacks can never be a hit. It counts among the query's true labels,
hence in the denominators of nDCG and R, and in the best possible PSP and PSnDCG, there as a label
without training query. So a table that leaves such labels out changes no figure of a ranking.

Shapes: B queries, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from motherlode.core.queries import IntArray
from motherlode.core.topk import TopK
from motherlode.trainer.hits import (
    Judged,
    Positives,
    RankedPairs,
    Reals,
    ideal_ranking,
    inverse_propensities,
    true_hits,
)

DEFAULT_KS = (1, 3, 5, 10, 100)
# Training queries of a label, first and last inclusive; None is without end.
BUCKETS: tuple[tuple[int, int | None], ...] = (
    (0, 0),
    (1, 1),
    (2, 5),
    (6, 20),
    (21, 100),
    (101, None),
)
_BUCKET_STARTS = np.array([first for first, _ in BUCKETS])
_BUCKET_PRECISION_K = 5
_BUCKET_RECALL_K = 10
# Queries looked at together: bounds the memory, and what is searched stays in the cache.
_CHUNK = 2048


@final
class PropensityConfig(BaseModel):
    """Constants A and B of the propensities, see `hits.inverse_propensities`.

    Attributes:
        a: Exponent, at most 10; the smaller, the more alike all labels weigh.
        b: Offset of the label frequencies, in training queries, 1e-6 to 1e6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: float = Field(default=0.55, gt=0, le=10, allow_inf_nan=False)
    b: float = Field(default=1.5, ge=1e-6, le=1e6, allow_inf_nan=False)


@final
@dataclass(frozen=True, slots=True)
class Bucket:
    """Quality for the labels of one range of training frequencies.

    Attributes:
        first: Fewest training queries of a label in the bucket.
        last: Most of them, inclusive; None is without end.
        num_labels: Labels of the table in the bucket.
        num_pairs: True pairs of query and label that were evaluated; the bucket of labels without
            training query also has the pairs whose label the table lacks.
        num_queries: Queries with one true label or more in the bucket.
        recall: R@10, the share of num_pairs found among the first 10 hits, in per cent; 0 without
            pairs. Unlike the overall R@10 each pair counts alike, not each query.
        precision: The part of the overall P@5 that labels of the bucket bring, in per cent; the
            parts of all buckets add up to P@5.
    """

    first: int
    last: int | None
    num_labels: int
    num_pairs: int
    num_queries: int
    recall: float
    precision: float

    def as_dict(self) -> dict[str, Any]:
        """The bucket under the names that `evaluation.json` uses."""
        return {
            "from": self.first,
            "to": self.last,
            "num_labels": self.num_labels,
            "num_pairs": self.num_pairs,
            "num_queries": self.num_queries,
            f"R@{_BUCKET_RECALL_K}": self.recall,
            f"P@{_BUCKET_PRECISION_K}": self.precision,
        }


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one set of queries.

    Attributes:
        figures: Per cent under names such as `P@1`, `nDCG@5`, `PSP@3`, `PSnDCG@5`, `R@10`.
        buckets: Quality by frequency of the label in training, rarest first.
        num_queries: Queries evaluated.
        num_unlabelled: Those of them without any true label.
        num_train: Training queries, the N of the propensities.
        propensity: Constants of the propensities.
    """

    figures: dict[str, float]
    buckets: tuple[Bucket, ...]
    num_queries: int
    num_unlabelled: int
    num_train: int
    propensity: PropensityConfig

    def as_dict(self) -> dict[str, Any]:
        """What `evaluation.json` holds: numbers, strings, lists and dicts alone."""
        return {
            "figures": dict(self.figures),
            "buckets": [bucket.as_dict() for bucket in self.buckets],
            "num_queries": self.num_queries,
            "num_unlabelled": self.num_unlabelled,
            "num_train": self.num_train,
            "propensity": self.propensity.model_dump(),
        }


@final
class Evaluator:
    """Adds up batches one after another, so that no answer need be kept; see `evaluate`."""

    def __init__(
        self,
        frequencies: IntArray,
        num_train: int,
        *,
        ks: Sequence[int] = DEFAULT_KS,
        propensity: PropensityConfig | None = None,
    ) -> None:
        if not ks or min(ks) < 1:
            raise ValueError(f"ks must be one number or more, each at least 1, got {list(ks)}")
        self._ks = np.array(sorted(set(ks)), np.int64)
        self._num_train = num_train
        self._propensity = propensity or PropensityConfig()
        # The last entry stands for every label that the table lacks.
        seen = np.append(frequencies, 0)
        self._weights = inverse_propensities(
            seen, num_train, self._propensity.a, self._propensity.b
        )
        self._bucket_of = np.searchsorted(_BUCKET_STARTS, seen, side="right") - 1
        self._sums: dict[str, Reals] = {}
        self._counts: dict[str, IntArray] = {}
        self._num_queries = 0
        self._num_unlabelled = 0

    def add(self, top: TopK, positives: Positives, num_true: IntArray) -> None:
        """Count the answers to some more queries.

        Args:
            top: Answers, as many as queries.
            positives: True labels that are in the table.
            num_true: int64 [B], all true labels, those that the table lacks included.

        Raises:
            ValueError: If the three are not of one length, or num_true is below the positives.
        """
        for chunk in Judged.of(top, positives, num_true).chunks(_CHUNK):
            self._add_chunk(chunk)
        self._num_queries += len(top)
        self._num_unlabelled += int(np.count_nonzero(num_true == 0))

    def result(self) -> Evaluation:
        """The figures of everything added so far.

        Raises:
            ValueError: If no query was added.
        """
        if self._num_queries == 0:
            raise ValueError("an evaluation needs one query or more")
        return Evaluation(
            figures=self._figures(),
            buckets=self._finished_buckets(),
            num_queries=self._num_queries,
            num_unlabelled=self._num_unlabelled,
            num_train=self._num_train,
            propensity=self._propensity,
        )

    def _add_chunk(self, chunk: Judged) -> None:
        hits = true_hits(chunk, len(self._weights) - 1)
        ideal = ideal_ranking(chunk, self._weights)
        self._add_figures(hits, ideal, chunk.num_true)
        self._add_buckets(hits, ideal)

    def _add_figures(self, hits: RankedPairs, ideal: RankedPairs, num_true: IntArray) -> None:
        ks = self._ks
        ones, shares = np.ones(len(hits.rows)), 1.0 / num_true[hits.rows]
        weights, best = self._weights[hits.labels], self._weights[ideal.labels]
        self._add_sum("P", hits.sums_at(ones, ks) / ks)
        self._add_sum("nDCG", hits.discounted_sums_at(ones, num_true, ks))
        self._add_sum("PSP", hits.sums_at(weights, ks) / ks)
        self._add_sum("best PSP", ideal.sums_at(best, ks) / ks)
        self._add_sum("PSnDCG", hits.discounted_sums_at(weights, num_true, ks))
        self._add_sum("best PSnDCG", ideal.discounted_sums_at(best, num_true, ks))
        self._add_sum("R", hits.sums_at(shares, ks))

    def _add_sum(self, name: str, sums: Reals) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + sums

    def _add_buckets(self, hits: RankedPairs, ideal: RankedPairs) -> None:
        hit_buckets, true_buckets = self._bucket_of[hits.labels], self._bucket_of[ideal.labels]
        one_a_query = np.unique(ideal.rows * len(BUCKETS) + true_buckets) % len(BUCKETS)
        self._add_count("precise", hit_buckets[hits.ranks < _BUCKET_PRECISION_K])
        self._add_count("recalled", hit_buckets[hits.ranks < _BUCKET_RECALL_K])
        self._add_count("pairs", true_buckets)
        self._add_count("queries", one_a_query)

    def _add_count(self, name: str, buckets: IntArray) -> None:
        counts = np.bincount(buckets, minlength=len(BUCKETS))
        self._counts[name] = self._counts.get(name, 0) + counts

    def _figures(self) -> dict[str, float]:
        queries = np.full(len(self._ks), float(self._num_queries))
        best = {"PSP": self._sums["best PSP"], "PSnDCG": self._sums["best PSnDCG"]}
        return {
            f"{name}@{k}": _per_cent(self._sums[name][i], best.get(name, queries)[i])
            for name in ("P", "nDCG", "PSP", "PSnDCG", "R")
            for i, k in enumerate(self._ks.tolist())
        }

    def _finished_buckets(self) -> tuple[Bucket, ...]:
        num_labels = np.bincount(self._bucket_of[:-1], minlength=len(BUCKETS)).tolist()
        counts = {name: values.tolist() for name, values in self._counts.items()}
        places = self._num_queries * _BUCKET_PRECISION_K
        return tuple(
            Bucket(
                first=first,
                last=last,
                num_labels=num_labels[i],
                num_pairs=counts["pairs"][i],
                num_queries=counts["queries"][i],
                recall=_per_cent(counts["recalled"][i], counts["pairs"][i]),
                precision=_per_cent(counts["precise"][i], places),
            )
            for i, (first, last) in enumerate(BUCKETS)
        )


def evaluate(
    top: TopK,
    positives: Positives,
    num_true: IntArray,
    frequencies: IntArray,
    num_train: int,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    propensity: PropensityConfig | None = None,
) -> Evaluation:
    """Figures of a ranking.

    With r_i = 1 where hit i is true, q_i the inverse propensity of its label, n true labels:

    - P@k = (r_1 + ... + r_k) / k, and R@k = (r_1 + ... + r_k) / n.
    - nDCG@k = DCG@k, the sum of r_i / log2(i + 1), divided by that of min(k, n) true hits
      (Järvelin and Kekäläinen, TOIS 2002).
    - PSP@k = the sum over queries of (q_1 r_1 + ... + q_k r_k) / k, divided by the same sum of the
      best possible ranking; PSnDCG@k likewise of q_i r_i / log2(i + 1) under nDCG's denominator
      (Jain, Prabhu and Varma, KDD 2016; normalised as in the Extreme Classification Repository,
      Bhatia et al., http://manikvarma.org/downloads/XC/XMLRepository.html).

    Args:
        top: Answers, as many as queries; ask for no fewer hits than the greatest of `ks`.
        positives: True labels that are in the table.
        num_true: int64 [B], all true labels, those that the table lacks included.
        frequencies: int64 [L], training queries of each label.
        num_train: Training queries.
        ks: Depths, in any order.
        propensity: Constants of the propensities; None takes the defaults.

    Raises:
        ValueError: If there is no query, lengths differ, num_true is below the positives, or a
            depth is below 1.
    """
    evaluator = Evaluator(frequencies, num_train, ks=ks, propensity=propensity)
    evaluator.add(top, positives, num_true)
    return evaluator.result()


def _per_cent(part: float, whole: float) -> float:
    return 100.0 * float(part) / float(whole) if whole else 0.0
