"""`motherlode evaluate`: measure a published model on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from motherlode.cli.output import print_json, print_note, print_table
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.trainer.answers import answers
from motherlode.trainer.data import Dataset, load_test_file
from motherlode.trainer.evaluation import DEFAULT_KS, Evaluation, PropensityConfig
from motherlode.trainer.publishing import evaluate_path

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
    dataset = load_test_file(
        input,
        labels=retriever.labels,
        num_features=retriever.num_features,
        kinds=retriever.query_kinds,
    )
    _note_unknown_labels(dataset)
    evaluation = _evaluate(retriever, dataset)
    if json:
        print_json(evaluation.figures)
        return
    names = sorted({figure.partition("@")[0] for figure in evaluation.figures})
    ks = sorted({int(figure.partition("@")[2]) for figure in evaluation.figures})
    rows = [[k, *(evaluation.figures.get(f"{figure}@{k}") for figure in names)] for k in ks]
    title = f"{retriever.model}@{retriever.version} on {evaluation.num_queries:,} queries, per cent"
    print_table(["k", *names], rows, title=title, decimals=2)


def _note_unknown_labels(dataset: Dataset) -> None:
    num_without = int((np.diff(dataset.positives.indptr) == 0).sum())
    if num_without:
        print_note(
            f"Note: {num_without:,} of {len(dataset):,} queries have no label that the model knows."
        )


def _evaluate(retriever: Retriever, dataset: Dataset) -> Evaluation:
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
