"""Another index for a published model, chosen by what it was measured to reach.

Shapes: B queries, L labels in all, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from motherlode.core.bundle import Bundle, BundleDraft, read_bundle
from motherlode.core.errors import ConfigError
from motherlode.core.index import IndexConfig, build_index, set_index_threads
from motherlode.core.index.grid import Sweep, sweeps_of
from motherlode.core.index.targets import Target, parse_targets
from motherlode.core.index.tuning import (
    MIN_QUERIES,
    Measured,
    Measurement,
    choose,
    closest,
    pareto_front,
)
from motherlode.core.queries import FloatArray, concatenate
from motherlode.core.records import read_records
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.trainer.data.rows import take_queries
from motherlode.trainer.revision import Revision, revise, seed_of
from motherlode.trainer.tuning_report import TuningContent, render_tuning_report

_READ_BATCH = 4096
_MOST_QUERIES = 1000
# The depth of recall that every bundle says of its index.
_USUAL_K = 10


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRequest:
    """What to reach, for which model.

    Attributes:
        repository: Folder of the published models.
        model: Name of the model.
        version: Number or alias of the version to tune, or None for the newest.
        targets: Such as `recall@10>=0.99`; see `parse_targets`.
        queries: File of queries to measure with; None takes the sample that the bundle keeps.
        families: Families to try; None takes all.
        num_threads: Threads of one search, as the server would have.
        publish: Whether to publish the choice.
    """

    repository: Path
    model: str
    version: int | str | None
    targets: tuple[str, ...]
    queries: Path | None = None
    families: tuple[str, ...] | None = None
    num_threads: int = 1
    publish: bool = True


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOutcome:
    """What came of it.

    Attributes:
        parent: Number of the version that was tuned.
        version: Number of the new version; None if nothing was published.
        targets: What was to be reached.
        num_queries: Queries that it was measured with.
        num_hits: Hits that each search was asked for.
        num_threads: As in the request.
        settings: All that was measured, in the order of the grid.
        front: Those of them that no other beats.
        chosen: The cheapest that meets all targets, or None.
        best: That, or else what misses the targets by least.
    """

    parent: int
    version: int | None
    targets: tuple[Target, ...]
    num_queries: int
    num_hits: int
    num_threads: int
    settings: tuple[Measured, ...]
    front: tuple[Measured, ...]
    chosen: Measured | None
    best: Measured

    def document(self) -> dict[str, Any]:
        """All but the versions, as JSON values."""
        return {
            "targets": [target.text for target in self.targets],
            "num_queries": self.num_queries,
            "num_hits": self.num_hits,
            "num_threads": self.num_threads,
            "settings": [self.row(setting) for setting in self.settings],
        }

    def row(self, setting: Measured) -> dict[str, Any]:
        """One setting as JSON values: recall as a share, seconds and bytes."""
        return {
            "family": setting.family,
            "config": setting.config.model_dump(mode="json"),
            **{f"recall@{k}": recall for k, recall in setting.recalls.items()},
            **{f"recall@{k}_error": error for k, error in setting.recall_errors.items()},
            "p50_s": setting.p50_s,
            "p99_s": setting.p99_s,
            "queries_per_s": setting.queries_per_s,
            "memory_bytes": setting.memory_bytes,
            "build_s": setting.build_s,
            "is_on_front": setting in self.front,
            "is_chosen": setting is self.chosen,
        }


def tune_index(
    request: TuningRequest,
    *,
    on_built: Callable[[Sweep, IndexConfig, float], object] = lambda *_: None,
) -> TuningOutcome:
    """Measures a grid of index settings, and publishes a version with the cheapest that will do.

    Encoder, labels, features and ranker of the new version are those of the old one. Its evaluation
    says what was measured here; what the old one says of hits need not hold with another index.
    Nothing is published where no setting meets the targets.

    Args:
        request: What to reach.
        on_built: Called after each build with the seconds it took.

    Raises:
        NotFoundError: If there is no such model or version.
        ConfigError: If a target or a family is wrong, or there are too few queries.
        DataError: If the file of queries is missing or broken.
        BundleError: If a bundle cannot be read or written.
    """
    repository = Repository(request.repository)
    number = repository.resolve(request.model, request.version)
    sweeps = sweeps_of(request.families)
    num_labels = repository.manifest(request.model, number).dimensions.num_labels
    targets = parse_targets(request.targets, num_labels=num_labels)
    parent = read_bundle(repository.path_of(request.model, number))
    retriever = Retriever(parent, model=request.model, version=number)
    retriever.check_golden()
    set_index_threads(request.num_threads)
    measurement = _measurement(parent, retriever, request.queries, targets)
    settings = tuple(measurement.run(sweeps, targets, on_built=on_built))
    outcome = _outcome(request, number, targets, measurement, settings)
    if outcome.chosen is None or not request.publish:
        return outcome
    draft = _draft(request.model, parent, outcome, outcome.chosen)
    return replace(outcome, version=repository.publish(request.model, draft))


def _outcome(
    request: TuningRequest,
    number: int,
    targets: tuple[Target, ...],
    measurement: Measurement,
    settings: tuple[Measured, ...],
) -> TuningOutcome:
    chosen = choose(settings, targets)
    return TuningOutcome(
        parent=number,
        version=None,
        targets=targets,
        num_queries=len(measurement.queries_BD),
        num_hits=measurement.num_hits,
        num_threads=request.num_threads,
        settings=settings,
        front=tuple(pareto_front(settings)),
        chosen=chosen,
        best=closest(settings, targets) if chosen is None else chosen,
    )


def _measurement(
    parent: Bundle, retriever: Retriever, file: Path | None, targets: tuple[Target, ...]
) -> Measurement:
    num_labels = len(parent.labels)
    ks = {target.k for target in targets if target.k is not None} | {min(_USUAL_K, num_labels)}
    queries_BD = _queries(parent, retriever, file)
    # Latency may be measured on the first of them alone.
    order_B = np.random.default_rng(seed_of(parent)).permutation(len(queries_BD))
    return Measurement(
        labels_LD=parent.labels_LD,
        queries_BD=queries_BD[order_B],
        ks=tuple(sorted(ks)),
        num_hits=retriever.path.num_hits(max(ks)),
        seed=seed_of(parent),
        other_bytes=parent.manifest.memory.ram_bytes - parent.index.predicted_bytes,
    )


def _queries(parent: Bundle, retriever: Retriever, file: Path | None) -> FloatArray:
    """float32 [B, D]; B is at least `MIN_QUERIES`."""
    if file is not None:
        queries_BD = _read_queries(retriever, file)
        asked = f"at least {MIN_QUERIES} queries with a feature that the model knows in {file.name}"
    else:
        sample_BD = parent.query_sample()
        queries_BD = np.empty((0, retriever.width), np.float32) if sample_BD is None else sample_BD
        asked = f"a file of at least {MIN_QUERIES} queries, since the bundle keeps too few"
    if len(queries_BD) < MIN_QUERIES:
        raise ConfigError("queries", expected=asked, actual=len(queries_BD))
    return queries_BD


def _read_queries(retriever: Retriever, file: Path) -> FloatArray:
    """float32 [B, D]: embeddings of up to `_MOST_QUERIES` of a file's queries, evenly spread."""
    read = partial(read_records, batch_size=_READ_BATCH, num_features=retriever.num_features)
    batches = [batch.queries for batch in read(file, kinds=retriever.query_kinds)]
    if not batches:
        return np.empty((0, retriever.width), np.float32)
    queries = concatenate(batches)
    rows = np.linspace(0, len(queries) - 1, min(_MOST_QUERIES, len(queries))).astype(np.int64)
    return retriever.path.encode_known(take_queries(queries, rows))  # type: ignore[arg-type]


def _draft(model: str, parent: Bundle, outcome: TuningOutcome, chosen: Measured) -> BundleDraft:
    old = parent.manifest.evaluation
    kept: dict[str, Any] = {name: old[name] for name in ("num_train", "propensity") if name in old}
    content = TuningContent(
        model=model,
        parent=outcome.parent,
        targets=outcome.targets,
        num_queries=outcome.num_queries,
        num_hits=outcome.num_hits,
        num_threads=outcome.num_threads,
        settings=outcome.settings,
        front=outcome.front,
        chosen=chosen,
    )
    return revise(
        parent,
        Revision(
            kind="index_tuned_from",
            labels=parent.labels,
            labels_LD=parent.labels_LD,
            # It comes out as it was measured, bit by bit.
            index=build_index(chosen.config, parent.labels_LD, seed=seed_of(parent)),
            index_recall={f"R@{k}": recall for k, recall in chosen.recalls.items()},
            ranker=parent.ranker,
            training_state=parent.training_state(),
            evaluation={**kept, "tuning": outcome.document()},
            report_html=render_tuning_report(content),
        ),
    )
