"""`motherlode evaluate`: measure a published model on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from motherlode.cli.output import print_json, print_table
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.trainer.data import load_test_file
from motherlode.trainer.evaluation import DEFAULT_KS, Evaluation, PropensityConfig
from motherlode.trainer.publishing import answers, evaluate_path

__all__ = ["evaluate"]


def evaluate(
    *,
    repository: Path,
    model: str,
    input: Path,  # noqa: A002 - the option is called --input
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a published model on labelled data.

    Args:
        repository: Folder of the published models.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; without a version the newest.
        input: Queries with labels: .jsonl, .jsonl.gz, .parquet, .txt or .txt.gz.
        json: Print the figures as one JSON object, such as {"P@1": 57.8}.
    """
    name, version = parse_model_ref(model)
    retriever = Retriever.load(Repository(repository), name, version)
    evaluation = _evaluate(retriever, input)
    if json:
        print_json(evaluation.figures)
        return
    names = sorted({figure.partition("@")[0] for figure in evaluation.figures})
    ks = sorted({int(figure.partition("@")[2]) for figure in evaluation.figures})
    rows = [[k, *(evaluation.figures.get(f"{figure}@{k}") for figure in names)] for k in ks]
    title = f"{retriever.model}@{retriever.version} on {evaluation.num_queries:,} queries, per cent"
    print_table(["k", *names], rows, title=title, decimals=2)


def _evaluate(retriever: Retriever, path: Path) -> Evaluation:
    is_sparse = "sparse" in retriever.query_kinds and "text" not in retriever.query_kinds
    num_features = retriever.num_features if is_sparse else None
    dataset = load_test_file(path, labels=retriever.labels, num_features=num_features)
    top = answers(retriever, dataset.queries, min(max(DEFAULT_KS), len(retriever.labels)))
    measured = retriever.manifest.evaluation
    frequencies = retriever.labels.frequencies
    return evaluate_path(
        top,
        dataset,
        frequencies,
        # A model published without an evaluation does not say how many queries it learned from.
        measured.get("num_train", int(frequencies.sum())),
        PropensityConfig.model_validate(measured.get("propensity", {})),
    )
