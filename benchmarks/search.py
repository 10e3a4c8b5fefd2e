"""Finds the settings of a recipe on held-out training queries; the test part is never read.

Starts at a recipe and changes one setting at a time, keeping the best, until nothing is better.

Usage: python benchmarks/search.py FOLDER --recipe RECIPE --try AXIS ...
       [--set KEY=VALUE ...] [--queries N] [--held-out N] [--rounds N] [--records FILE]
       (a folder holds train and labels)

A `--try` is an axis: its values are parted by `|`, and settings that belong together by `;`:
    --try 'labels.scale=10|20' --try 'loss.kind=pairwise_owl;negatives.keep=1|loss.kind=softmax'
What is maximised is P@1 + P@5 + R@10, of the whole with its ranker, if the recipe has one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from machine import print_result
from trials import Records, Trial, sample

from motherlode.trainer.config import load_config
from motherlode.trainer.data import Dataset, kind_of_features, load_dataset, split_held_out

MAXIMISED = ("P@1", "P@5", "R@10")
SHOWN = ("P@1", "P@3", "P@5", "PSP@5", "R@10")


def main() -> None:
    """Search, and print each trial and the best settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--try", action="append", default=[], dest="axes", metavar="AXIS")
    parser.add_argument("--set", nargs="*", default=[], help="what all trials have")
    parser.add_argument("--queries", type=int, help="training queries to learn from; default all")
    parser.add_argument("--held-out", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=1, help="times to go through all axes")
    parser.add_argument("--records", type=Path, help="where trials are kept and found again")
    options = parser.parse_args()
    whole = load_dataset(options.data, "train")
    train, held_out = split_held_out(whole, options.held_out, np.random.default_rng(1))
    if options.queries:
        train = train.rows(sample(len(train), options.queries))
    search = Search(options.recipe, tuple(options.set), train, held_out, Records(options.records))
    search.start()
    for _ in range(options.rounds):
        for axis in options.axes:
            search.improve(values_of(axis))
    columns = ["settings", *SHOWN, "P@1 on training queries", "processor s"]
    print_result(f"search on {options.data.name}, held-out queries", columns, search.rows)
    print("\nbest:", *(f"{key}={text}" for key, text in search.best.items()))


class Search:
    """The best settings so far, and a line of each trial."""

    def __init__(
        self,
        recipe: str,
        common: tuple[str, ...],
        train: Dataset,
        held_out: Dataset,
        records: Records,
    ) -> None:
        self._recipe, self._common = recipe, common
        self._train, self._held_out = train, held_out
        self._records = records
        self.best: dict[str, str] = {}
        self.rows: list[list[object]] = []

    def start(self) -> None:
        """Try the recipe as it is."""
        self._score = self._try({})

    def improve(self, values: list[dict[str, str]]) -> None:
        """Try each value of an axis with the best of all others."""
        for value in values:
            settings = self.best | value
            if settings != self.best and (score := self._try(settings)) > self._score:
                self.best, self._score = settings, score

    def _try(self, settings: dict[str, str]) -> float:
        fixed = ("loop.evaluations=1", *self._common)
        overrides = [f"{key}={text}" for key, text in settings.items()]
        kind = kind_of_features(self._train.queries)
        config = load_config(self._recipe, (*fixed, *overrides), data_kind=kind)
        if config.ranker.kind != "sparse_linear":
            # Nothing else needs queries of its own.
            loop = config.loop.model_copy(update={"held_out": 0})
            config = config.model_copy(update={"loop": loop})
        trial = self._records.trial(config, self._train, self._held_out)
        self.rows.append(_row(" ".join(overrides) or "as it is", trial))
        print(*self.rows[-1], flush=True)
        return sum(trial.figures[name] for name in MAXIMISED)


def values_of(axis: str) -> list[dict[str, str]]:
    """The settings of each value; one without a key has that of the first."""
    key = axis.partition("=")[0]
    values = [value if "=" in value else f"{key}={value}" for value in axis.split("|")]
    return [dict(setting.split("=", 1) for setting in value.split(";")) for value in values]


def _row(name: str, trial: Trial) -> list[object]:
    figures = [round(trial.figures[figure], 2) for figure in SHOWN]
    return [name, *figures, round(trial.seen_figures["P@1"], 1), round(trial.cpu_s, 1)]


if __name__ == "__main__":
    main()
