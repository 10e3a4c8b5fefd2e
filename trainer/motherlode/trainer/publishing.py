"""From a trained model to a published bundle: index, golden queries, evaluation, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from motherlode.core.bundle import BundleDraft
from motherlode.core.golden import MAX_QUERIES
from motherlode.core.index import measure_recall
from motherlode.core.queries import FloatArray, IntArray, Queries, TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.topk import TopK
from motherlode.trainer.answers import answers
from motherlode.trainer.charts import HeldOutPoint, LossPoint
from motherlode.trainer.checkpoint import Progress
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import Dataset
from motherlode.trainer.evaluation import DEFAULT_KS, Evaluation, PropensityConfig, evaluate
from motherlode.trainer.examples import pick_examples
from motherlode.trainer.label_text import has_own_text_encoder
from motherlode.trainer.model import Model
from motherlode.trainer.report import ReportContent, render_report

_RECALL_QUERIES = 1000
_RECALL_K = 10
_GOLDEN_K = 10


@final
@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What a run leaves to be published.

    Attributes:
        name: Of the model.
        config: Of the run.
        model: The learned state.
        path: Its way from a query to hits, with all stages.
        labels_LD: float32 [L, D], what the path's index was built over.
        train: The training data, with its labels.
        held_out: Training queries that it was not trained on; may be empty.
        test: What quality is measured on, or None.
        tested_on: What that is, in the plural, such as `test queries`.
        progress: Course of the run.
        parents: Bundles it started from.
    """

    name: str
    config: TrainConfig
    model: Model
    path: QueryPath
    labels_LD: FloatArray
    train: Dataset
    held_out: Dataset
    test: Dataset | None
    tested_on: str
    progress: Progress
    parents: dict[str, str]


def evaluate_path(
    top: TopK,
    dataset: Dataset,
    frequencies: IntArray,
    num_train: int,
    propensity: PropensityConfig,
) -> Evaluation:
    """Quality of the answers to a data set; `ks` beyond the number of labels are left out."""
    ks = [k for k in DEFAULT_KS if k <= len(frequencies)]
    return evaluate(
        top,
        dataset.positives,
        dataset.num_true,
        frequencies,
        num_train,
        ks=ks,
        propensity=propensity,
    )


def make_draft(trained: TrainedModel, dataset_name: str) -> BundleDraft:
    """Everything that the bundle will hold.

    Args:
        trained: What to publish.
        dataset_name: For the report.
    """
    config, model = trained.config, trained.model
    path, labels_LD = trained.path, trained.labels_LD
    asked = trained.test if trained.test is not None else trained.train
    queries_BD = path.encode(_spread(asked, _RECALL_QUERIES).queries)
    k = min(_RECALL_K, len(labels_LD))
    recall = {f"R@{k}": measure_recall(path.index, labels_LD, queries_BD, k)}
    evaluation, report = _judge(trained, dataset_name, recall)
    return BundleDraft(
        featurizer=path.featurizer,
        encoder=path.encoder,
        labels=trained.train.labels,
        labels_LD=labels_LD,
        index=path.index,
        golden=path.take_golden(
            _spread(asked, MAX_QUERIES).queries, min(_GOLDEN_K, len(labels_LD))
        ),
        evaluation=evaluation,
        report_html=report,
        index_recall=recall,
        score_meaning=score_meaning(config),
        config=config.model_dump(mode="json"),
        config_digest=config.digest(),
        data_digest=trained.train.digest,
        parents=trained.parents,
        training_state=_training_state(model),
        ranker=path.ranker,
        label_encoder=model.text.encoder if has_own_text_encoder(config) and model.text else None,
        query_sample_BD=_query_sample(trained),
    )


def _query_sample(trained: TrainedModel) -> FloatArray | None:
    """float32 [B, D]; None where there are only queries that the model learned from."""
    unseen = trained.held_out if len(trained.held_out) else trained.test
    if unseen is None:
        return None
    known_BD = trained.path.encode_known(_spread(unseen, _RECALL_QUERIES).queries)
    return known_BD if len(known_BD) else None


def _training_state(model: Model) -> dict[str, FloatArray]:
    tables = model.tables()
    state = {name: table.accumulators_R.numpy() for name, table in tables.items()}
    if model.text is not None and model.labels is not None:
        state["labels.lengths"] = model.lengths_of_sums()
    return state


def score_meaning(config: TrainConfig) -> str:
    """What a score of the index is, in a few words; a ranker says itself what it makes of it."""
    if config.labels.normalize and config.encoder.head.normalize:
        return "cosine of query and label embedding, -1 to 1"
    return "inner product of query and label embedding"


def _judge(
    trained: TrainedModel, dataset_name: str, recall: dict[str, float]
) -> tuple[dict[str, Any], str | None]:
    if trained.test is None:
        return {}, None
    test, labels = trained.test, trained.train.labels
    top = answers(trained.path, test.queries, min(max(DEFAULT_KS), len(labels)))
    evaluation = evaluate_path(
        top, test, labels.frequencies, len(trained.train.queries), trained.config.propensity
    )
    report = render_report(
        ReportContent(
            model=trained.name,
            dataset=dataset_name,
            evaluation=evaluation,
            evaluated_on=trained.tested_on,
            losses=[LossPoint(p.examples, p.loss) for p in trained.progress.points],
            held_out=[
                HeldOutPoint(p.examples, p.figures["P@1"], p.figures["R@10"])
                for p in trained.progress.points
                if p.figures
            ],
            examples=pick_examples(
                query_names(test.queries), top, test.positives, test.num_true, labels
            ),
            facts=_facts(trained),
            index=trained.config.index.model_dump(mode="json"),
            index_recall=recall,
            digests={"configuration": trained.config.digest(), "data": trained.train.digest},
            config=trained.config.model_dump(mode="json"),
        )
    )
    return evaluation.as_dict(), report


def query_names(queries: Queries) -> list[str]:
    """What to show of each query: its text, or its number."""
    if isinstance(queries, TextQueries):
        return list(queries.texts)
    return [f"query {row}" for row in range(len(queries))]


def _facts(trained: TrainedModel) -> dict[str, object]:
    model = trained.model
    tables = [table.weights_RD for table in model.tables().values()]
    head = sum(weight.numel() for weight in model.encoder.head.parameters())
    return {
        "Labels": model.num_labels,
        "Features": model.encoder.num_features,
        "Embedding width": model.encoder.width,
        "Parameters": sum(table.numel() for table in tables) + head,
        "Training queries": len(trained.train.queries),
        "Steps": trained.progress.step,
    }


def _spread(dataset: Dataset, count: int) -> Dataset:
    """Up to `count` rows, evenly spread."""
    size = len(dataset.queries)
    return dataset.rows(np.unique(np.linspace(0, size - 1, min(count, size)).astype(np.int64)))
