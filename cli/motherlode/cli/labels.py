"""`motherlode labels`: change the labels of a published model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from motherlode.cli.output import print_json, print_line
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.trainer.label_addition import add_labels

__all__ = ["app"]

app = App(name="labels", help="Change the labels of a published model.")


@app.command
def add(
    *,
    repository: Path,
    model: str,
    input_: Annotated[Path, Parameter("--input")],
    json_output: Annotated[bool, Parameter("--json", negative=())] = False,
) -> None:
    """Publish a version with more labels, which are found by their texts at once.

    Nothing is trained: the model's encoder of label texts, or else of queries, gives each new label
    its embedding. Train again, with `--warm-start`, once there are queries for them. Sparse
    linear classifiers leave new labels to their scores. A model with a label tree as its ranker
    cannot have more labels without training.

    Args:
        repository: Folder of the repository.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; MODEL alone means its newest version.
        input_: File of labels: JSONL or Parquet with `id` and `text`.
        json_output: Print one JSON document.
    """
    name, reference = parse_model_ref(model)
    version, num_added = add_labels(Repository(repository), name, reference, input_)
    if json_output:
        print_json({"model": name, "version": version, "labels_added": num_added})
        return
    print_line(f"published {name}@{version} with {num_added:,} more labels")
