"""Quality and time of the recipes on real data: trained, published and evaluated as a user would.

Usage: python benchmarks/quality.py RECIPE=FOLDER [RECIPE=FOLDER ...]
       (a folder holds train, test and labels; `geonames` without a folder makes its own data)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from machine import print_result

from motherlode.trainer.config import load_config
from motherlode.trainer.data import make_geonames
from motherlode.trainer.progress import new_display
from motherlode.trainer.training import TrainingRequest, train_and_publish

FIGURES = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100")


def main() -> None:
    """Train each recipe on its data and print the test figures."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for argument in sys.argv[1:] or ["geonames"]:
            recipe, _, folder = argument.partition("=")
            data = Path(folder or scratch, "" if folder else "geonames")
            if not folder:
                make_geonames("cities15000", data)
            rows.append(measure(recipe, data, Path(scratch) / "repository"))
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
