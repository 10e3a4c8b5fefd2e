"""One training for a benchmark: trained by a configuration, measured, kept in a file of records.

A record is found again by configuration, data and part, so that a benchmark that was cut off goes
on where it stood, and a table or plot can be made anew without training.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import final

import numpy as np
from typing_extensions import override

from motherlode.core.index import ExactConfig, build_index
from motherlode.core.queries import IntArray
from motherlode.core.query_path import QueryPath
from motherlode.core.topk import TopK
from motherlode.trainer.checkpoint import Point
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import Dataset
from motherlode.trainer.evaluation import evaluate
from motherlode.trainer.hits import Judged, true_hits
from motherlode.trainer.loop import TrainingLoop, Validation
from motherlode.trainer.model import new_model
from motherlode.trainer.preparation import Featurized, TrainingData, featurize, split
from motherlode.trainer.progress import RunDisplay
from motherlode.trainer.ranker import SparseRankerConfig
from motherlode.trainer.sparse_ranker import fit_sparse_linear

KS = (1, 3, 5, 10)
# Training queries of the best known true label of a query, first and last inclusive.
GROUPS = {"0": (0, 0), "1": (1, 1), "2-5": (2, 5), "more": (6, np.inf)}
# Training queries of a label, likewise: tail, torso and head.
BUCKETS = {"1-5": (1, 5), "6-50": (6, 50), "over 50": (51, np.inf)}
# Queries looked at along a run.
_MOST_ALONG_THE_WAY = 2000


@final
@dataclass(frozen=True)
class Trial:
    """What one training gave.

    Attributes:
        figures: Quality on the part it was measured on, by exact search, per cent.
        seen_figures: Likewise on training queries, at most as many.
        groups: P@1 of the queries whose most frequent true label has so many training queries.
        recalls: Share of the true labels with so many training queries that are among the first
            10, per cent.
        curve: Processor seconds of the training so far, P@1 and R@10 of some of the part.
        cpu_s: Processor seconds of the training loop, with what it fits beforehand and without
            validations. Other work on the machine moves them far less than it moves the clock.
        wall_s: Seconds on the clock of the same.
    """

    figures: dict[str, float]
    seen_figures: dict[str, float]
    groups: dict[str, float]
    recalls: dict[str, float]
    curve: list[tuple[float, float, float]]
    cpu_s: float
    wall_s: float


@final
@dataclass
class Records:
    """Trials in a file of JSON lines; `path` None keeps them nowhere."""

    path: Path | None
    _trials: dict[str, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            for line in self.path.read_text("utf8").splitlines():
                document = json.loads(line)
                self._trials[document["key"]] = Trial(**document["trial"])

    def trial(self, config: TrainConfig, train: Dataset, part: Dataset) -> Trial:
        """The trial of a configuration, run if it is not on record."""
        key = f"{config.digest()} {train.digest} {part.digest}"
        if key not in self._trials:
            self._trials[key] = run_trial(config, train, part)
            if self.path is not None:
                line = {"key": key, "trial": asdict(self._trials[key])}
                with self.path.open("a", encoding="utf8") as file:
                    file.write(json.dumps(line) + "\n")
        return self._trials[key]


@final
class Clock(RunDisplay):
    """Shows nothing, and counts the seconds of training alone, from when it is made."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.points: list[tuple[float, float, float]] = []
        self._restart()

    @override
    def start(self, step: int, num_steps: int) -> None:
        self._count()

    @override
    def step(self, loss: float, num_examples: int) -> None:
        self._count()

    @override
    def point(self, point: Point) -> None:
        self.points.append((self.cpu_s, point.figures["P@1"], point.figures["R@10"]))
        self._restart()

    @override
    def stop(self) -> None:
        """Nothing is left to do."""

    def _count(self) -> None:
        self.cpu_s += time.process_time() - self._cpu_s
        self.wall_s += time.perf_counter() - self._wall_s
        self._restart()

    def _restart(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()


def run_trial(config: TrainConfig, train: Dataset, part: Dataset) -> Trial:
    """Train on one data set, measure on another; nothing is chosen by what is measured.

    A sparse linear ranker is fitted to what the configuration holds out of the first.
    """
    train, held_out = split(train, config)
    featurizer, examples, texts = _featurized(config, train)
    num_labels = len(train.labels)
    model = new_model(config, examples.features, train.positives, num_labels, label_features=texts)
    some = part.rows(sample(len(part), _MOST_ALONG_THE_WAY))
    validation = Validation(featurizer, some)
    clock = Clock()
    loop = TrainingLoop(config, model, examples, validation, checkpoints=None, display=clock)
    loop.run()
    index = build_index(ExactConfig(), model.label_embeddings(), seed=0)
    path = QueryPath(featurizer, model.frozen_encoder(), index, loop.correction)
    if isinstance(config.ranker, SparseRankerConfig):
        data = TrainingData(train, None, held_out, featurizer, examples, texts)
        path = replace(path, ranker=fit_sparse_linear(config.ranker, path, data, seed=config.seed))
    top = path.top_k(part.queries, max(KS))
    seen = train.rows(sample(len(train), len(some)))
    return Trial(
        figures_of(top, part, len(train)),
        figures_of(path.top_k(seen.queries, max(KS)), seen, len(train)),
        precision_by_group(top, part, train.positives.counts(num_labels)),
        recall_by_bucket(top, part, train.positives.counts(num_labels)),
        clock.points,
        round(clock.cpu_s, 2),
        round(clock.wall_s, 2),
    )


_last: dict[str, Featurized] = {}


def _featurized(config: TrainConfig, train: Dataset) -> Featurized:
    """Those of the last trial where they are the same: most variants differ in other things."""
    key = f"{config.features} {config.labels.embedding == 'free'} {train.digest}"
    if key not in _last:
        _last.clear()
        _last[key] = featurize(config, train)
    return _last[key]


def figures_of(top: TopK, part: Dataset, num_train: int) -> dict[str, float]:
    """Quality of answers, per cent."""
    frequencies = part.labels.frequencies
    result = evaluate(top, part.positives, part.num_true, frequencies, num_train=num_train, ks=KS)
    return {name: round(value, 3) for name, value in result.figures.items()}


def precision_by_group(top: TopK, part: Dataset, counts_L: IntArray) -> dict[str, float]:
    """P@1 of queries by the training queries of their most frequent true label, per cent."""
    judged = Judged.of(top, part.positives, part.num_true)
    hits = true_hits(judged, len(counts_L))
    is_hit, most = np.zeros(len(part), np.bool_), np.zeros(len(part), np.int64)
    is_hit[hits.rows[hits.ranks == 0]] = True
    rows, labels = judged.true_pairs()
    np.maximum.at(most, rows, counts_L[labels])
    groups = {}
    for name, (low, high) in GROUPS.items():
        chosen = (low <= most) & (most <= high)
        if chosen.any():
            groups[name] = round(100 * float(is_hit[chosen].mean()), 3)
    return groups


def recall_by_bucket(top: TopK, part: Dataset, counts_L: IntArray) -> dict[str, float]:
    """R@10 over all pairs of a query and a true label, by the label's training queries."""
    judged = Judged.of(top, part.positives, part.num_true)
    hits = true_hits(judged, len(counts_L))
    counts = counts_L[judged.true_pairs()[1]]
    found = counts_L[hits.labels[hits.ranks < 10]]
    recalls = {}
    for name, (low, high) in BUCKETS.items():
        if all_true := int(((low <= counts) & (counts <= high)).sum()):
            num_found = int(((low <= found) & (found <= high)).sum())
            recalls[name] = round(100 * num_found / all_true, 3)
    return recalls


def sample(size: int, number: int) -> IntArray:
    """The numbers of some rows, always the same."""
    return np.sort(np.random.default_rng(0).choice(size, min(number, size), replace=False))
