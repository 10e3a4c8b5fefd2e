"""Quality and time of the recipes on real data: trained, published and evaluated as a user would.

Usage: python benchmarks/quality.py [--repository FOLDER] RECIPE=FOLDER [RECIPE=FOLDER ...]
       (a folder holds train, test and labels)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from machine import print_result

from motherlode.trainer.config import load_config
from motherlode.trainer.progress import new_display
from motherlode.trainer.training import TrainingRequest, train_and_publish

FIGURES = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100")


def main() -> None:
    """Train each recipe on its data and print the test figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, help="where to publish; by default nowhere")
    parser.add_argument("recipes", nargs="+", metavar="RECIPE=FOLDER")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        repository = options.repository or Path(scratch)
        pairs = [argument.partition("=") for argument in options.recipes]
        rows = [measure(recipe, Path(folder), repository) for recipe, _, folder in pairs]
    print_result("quality", ["recipe", *FIGURES, "training s", "whole run s"], rows)


def measure(recipe: str, data: Path, repository: Path) -> list[object]:
    """One row of the table."""
    request = TrainingRequest(
        config=load_config(recipe), data=data, repository=repository, model=recipe
    )
    outcome = train_and_publish(request, new_display())
    figures = [round(outcome.figures[name], 2) for name in FIGURES]
    return [recipe, *figures, round(outcome.train_s, 1), round(outcome.total_s, 1)]


if __name__ == "__main__":
    main()
