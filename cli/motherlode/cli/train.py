"""`motherlode train`: learn a model and publish it as a new version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.output import print_json, print_line, print_note, print_table
from motherlode.trainer.config import load_config
from motherlode.trainer.data import kind_of_data
from motherlode.trainer.distributed import joined_group
from motherlode.trainer.progress import SilentDisplay, new_display
from motherlode.trainer.training import (
    TrainingOutcome,
    TrainingRequest,
    train_and_publish,
    train_beside,
)

__all__ = ["train"]

_SHOWN = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100")


def train(  # noqa: PLR0913 - one argument per option of the command
    recipe: str = "default",
    /,
    *,
    data: Path,
    repository: Path,
    model: str,
    set: Annotated[tuple[str, ...], Parameter(negative=())] = (),  # noqa: A002 - the option's name
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    warm_start: str | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    keep: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a model and publish it as a new version.

    A run that was killed leaves a checkpoint; the same command with --resume goes on from there and
    gives the same model as a run that was never killed.

    Started by `torchrun`, its processes train one model together, each with its part of every
    batch: `torchrun --standalone --nproc-per-node 2 -m motherlode.cli.main train ...`.

    Args:
        recipe: Name of a recipe, or a path ending in .toml.
        data: Folder with `train`, and optionally `test` and `labels`, as .jsonl, .jsonl.gz,
            .parquet, .txt or .txt.gz.
        repository: Folder of the published models.
        model: Name to publish under.
        set: One setting of the recipe to change, such as `--set loop.epochs=3`; may be repeated.
        seed: Short for `--set seed=N`.
        warm_start: Start from this version or alias of the same model.
        resume: Go on where a killed run of the same configuration and data stands.
        keep: Versions to keep; older ones that no alias names are removed.
        json: Print the outcome as JSON.
    """
    overrides = [*set, *([] if seed is None else [f"seed={seed}"])]
    request = TrainingRequest(
        config=load_config(recipe, overrides, data_kind=kind_of_data(data)),
        data=data,
        repository=repository,
        model=model,
        warm_start=warm_start,
        resume=resume,
        keep=keep,
    )
    with joined_group() as group:
        if group.rank:
            train_beside(request, SilentDisplay(), group)
            return
        outcome = train_and_publish(request, new_display(), group)
    if json:
        print_json(outcome)
    else:
        _print(outcome)


def _print(outcome: TrainingOutcome) -> None:
    seen = f"{outcome.num_examples:,} examples"
    print_note(f"trained {outcome.train_s:.1f} s on {seen}, {outcome.total_s:.1f} s in all")
    print_line(f"published {outcome.model}@{outcome.version}  digest {outcome.digest[:12]}")
    shown = [name for name in _SHOWN if name in outcome.figures]
    if shown:
        print_table(shown, [[outcome.figures[name] for name in shown]], decimals=2)
