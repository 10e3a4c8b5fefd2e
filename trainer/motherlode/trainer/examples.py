"""Telling queries for people to look at: where a model is surely right, and where surely wrong.

Shapes: B queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from motherlode.core.labels import LabelTable
from motherlode.core.queries import IntArray
from motherlode.core.topk import TopK
from motherlode.trainer.hits import Judged, Positives, true_hits

_NUM_HITS = 5
_MAX_TRUE_LABELS = 6
_MAX_CHARACTERS = 280
_CHUNK = 2048
# Past every place of a ranking.
_NEVER = np.iinfo(np.int64).max


@final
@dataclass(frozen=True, slots=True)
class Hit:
    """One label of an answer.

    Attributes:
        label: Its text, or its key where it has none.
        score: Higher is better.
        is_true: Whether it is a true label of the query.
    """

    label: str
    score: float
    is_true: bool


@final
@dataclass(frozen=True, slots=True)
class Example:
    """A query with its truth and its answer.

    Attributes:
        query: The text, its end cut off if long.
        true_labels: The first few of the true labels that are in the label table.
        num_true: All true labels.
        hits: The first few hits, best first.
        num_hits: All hits.
        best_rank: Place of the first true hit, from 1; None if no hit is true.
    """

    query: str
    true_labels: tuple[str, ...]
    num_true: int
    hits: tuple[Hit, ...]
    num_hits: int
    best_rank: int | None


@final
@dataclass(frozen=True, slots=True)
class Examples:
    """Both kinds, most confident first.

    Attributes:
        right: Queries whose first hit is true.
        wrong: Queries whose first hit is not.
    """

    right: tuple[Example, ...]
    wrong: tuple[Example, ...]


def pick_examples(
    texts: Sequence[str],
    top: TopK,
    positives: Positives,
    num_true: IntArray,
    labels: LabelTable,
    *,
    count: int = 12,
) -> Examples:
    """Up to `count` examples of each kind; the same input gives the same examples.

    The score of the first hit is the confidence. Wrong examples are the most confident ones; right
    ones are spread over the most confident quarter, for a dozen queries that hardly differ from a
    label's text show little. No label comes first in two examples of a kind. Queries without any
    hit or true label are left out.

    Args:
        texts: The queries, in words.
        top: Their answers.
        positives: True labels that are in the table.
        num_true: int64 [B], all true labels.
        labels: The label table.
        count: Most examples of a kind.
    """
    judged = Judged.of(top, positives, num_true)
    best_ranks = _best_ranks(judged, len(labels))
    confident = _most_confident_first(judged)
    is_right = best_ranks[confident] == 0
    right, wrong = confident[is_right], confident[~is_right]
    stride = max(1, len(right) // 4 // count)
    # The others fill up where the spread ones have too few labels.
    right = np.concatenate([right[::stride], right])

    def shown(rows: IntArray) -> tuple[Example, ...]:
        picked = _one_a_label(rows, top, count)
        examples = [
            _example(judged, row, texts[row], int(best_ranks[row]), labels) for row in picked
        ]
        return tuple(sorted(examples, key=lambda example: -example.hits[0].score))

    return Examples(right=shown(right), wrong=shown(wrong))


def _best_ranks(judged: Judged, num_labels: int) -> IntArray:
    """int64 [B]: place of the first true hit, from 0; _NEVER where there is none."""
    ranks = [np.empty(0, np.int64)]
    for chunk in judged.chunks(_CHUNK):
        hits = true_hits(chunk, num_labels)
        rows, firsts = np.unique(hits.rows, return_index=True)
        ranks.append(np.full(len(chunk.top), _NEVER))
        ranks[-1][rows] = hits.ranks[firsts]
    return np.concatenate(ranks)


def _most_confident_first(judged: Judged) -> IntArray:
    """The queries that have a hit and a true label, by falling score of the first hit."""
    top = judged.top
    rows = np.flatnonzero((top.counts > 0) & (judged.num_true > 0))
    return rows[np.argsort(-top.scores[top.offsets[rows]], kind="stable")]


def _one_a_label(rows: IntArray, top: TopK, count: int) -> list[int]:
    """The first `count` rows whose first hits all differ."""
    picked: dict[int, int] = {}
    for row, label in zip(rows.tolist(), top.labels[top.offsets[rows]].tolist(), strict=True):
        if len(picked) == count:
            break
        picked.setdefault(label, row)
    return list(picked.values())


def _example(judged: Judged, row: int, text: str, best_rank: int, labels: LabelTable) -> Example:
    true = judged.indices[judged.indptr[row] : judged.indptr[row + 1]]
    hits, scores = judged.top.row(row)
    texts = labels.texts_of(hits[:_NUM_HITS])
    answer = zip(texts, scores.tolist(), np.isin(hits, true).tolist(), strict=False)
    return Example(
        query=_shortened(text),
        true_labels=tuple(map(_shortened, labels.texts_of(true[:_MAX_TRUE_LABELS]))),
        num_true=int(judged.num_true[row]),
        hits=tuple(Hit(_shortened(label), score, is_true) for label, score, is_true in answer),
        num_hits=len(hits),
        best_rank=None if best_rank == _NEVER else best_rank + 1,
    )


def _shortened(text: str) -> str:
    text = " ".join(text[: 4 * _MAX_CHARACTERS].split())
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1].rstrip() + "…"
