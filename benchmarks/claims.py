"""The claims of the papers, tried on real data: each variant with several seeds, tested once.

Usage: python benchmarks/claims.py CLAIM FOLDER [--recipe RECIPE] [--set KEY=VALUE ...] [--seeds N]
           [--only GROUP ...] [--plot FILE]
       (a folder holds train, test and labels)

CLAIM is one of:
    snm     Of B candidates the k hardest (Reddi et al., AISTATS 2019) against all of them, which is
            plain negative sampling, under three losses.
    glas    The label regularizers at several widths (Guo et al., NeurIPS 2019).

All variants of a claim see the same queries in the same order for as many steps. Each line is
printed when its runs are done; times are of the training loop alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from machine import print_result

from motherlode.core.index import ExactConfig, build_index
from motherlode.core.queries import IntArray
from motherlode.core.retriever import QueryPath
from motherlode.trainer.config import TrainConfig, load_config
from motherlode.trainer.data import Dataset, load_dataset
from motherlode.trainer.evaluation import evaluate
from motherlode.trainer.loop import LabelledFeatures, TrainingLoop, Validation
from motherlode.trainer.model import new_model
from motherlode.trainer.preparation import load_test, new_featurizer
from motherlode.trainer.progress import new_display

FIGURES = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@10")
CANDIDATES = 4096
KEPT = (1, 16, 256, CANDIDATES)
LOSSES = ("loss.kind=pairwise_owl", "loss.kind=pointwise_owl", "loss.kind=decoupled_softmax")
WIDTHS = (64, 128, 256, 512)
REGULARIZERS = {
    "none": (),
    "spread_out 10": ("regularizer.kind=spread_out", "regularizer.weight=10"),
    "glas 10": ("regularizer.kind=glas", "regularizer.weight=10"),
    "glas 100": ("regularizer.kind=glas", "regularizer.weight=100"),
}


@dataclass(frozen=True)
class Variant:
    """One line of the table: a group, a name in it, and overrides of the recipe."""

    group: str
    name: str
    overrides: tuple[str, ...]


def snm() -> list[Variant]:
    """Losses times numbers kept."""
    draws = f"negatives.num_candidates={CANDIDATES}"
    return [
        Variant(loss.partition("=")[2], f"k = {keep}", (loss, draws, f"negatives.keep={keep}"))
        for loss in LOSSES
        for keep in KEPT
    ]


def glas() -> list[Variant]:
    """Widths times regularizers."""
    return [
        Variant(f"d = {width}", name, (f"encoder.width={width}", *overrides))
        for width in WIDTHS
        for name, overrides in REGULARIZERS.items()
    ]


CLAIMS = {"snm": snm, "glas": glas}


def main() -> None:
    """Run a claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="debian")
    parser.add_argument("--set", nargs="*", default=[], help="overrides for all variants")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="groups to run; by default all")
    parser.add_argument("--plot", type=Path, help="where to draw P@1 and R@10")
    options = parser.parse_args()
    train = load_dataset(options.data, "train")
    test = load_test(options.data, train)
    assert test is not None, "the data needs a test part"
    variants = [v for v in CLAIMS[options.claim]() if not options.only or v.group in options.only]
    results = [
        run_variant(variant, options.recipe, options.set, train, test, options.seeds)
        for variant in variants
    ]
    columns = ["variant", "", *FIGURES, "train P@1", "training s"]
    rows = [
        [v.group, v.name, *map(spread, zip(*runs, strict=True))]
        for v, runs in zip(variants, results, strict=True)
    ]
    print_result(f"{options.claim} on {options.data.name}, {options.seeds} seeds", columns, rows)
    if options.plot:
        plot(options.plot, variants, results)


def run_variant(
    variant: Variant,
    recipe: str,
    common: Sequence[str],
    train: Dataset,
    test: Dataset,
    num_seeds: int,
) -> list[list[float]]:
    """The figures of each seed."""
    runs = []
    for seed in range(num_seeds):
        fixed = (f"seed={seed}", "loop.held_out=0", "loop.evaluations=1")
        config = load_config(recipe, (*fixed, *common, *variant.overrides))
        runs.append(run(config, train, test))
    print(variant.group, variant.name, *map(spread, zip(*runs, strict=True)), flush=True)
    return runs


def run(config: TrainConfig, train: Dataset, test: Dataset) -> list[float]:
    """Test figures, P@1 on training queries, seconds of training."""
    featurizer = new_featurizer(config, train.queries)
    examples = LabelledFeatures(featurizer.transform(train.queries), train.positives)
    model = new_model(config, examples.features, train.positives, len(train.labels))
    nobody = Validation(featurizer, train.rows(np.empty(0, np.int64)))
    loop = TrainingLoop(config, model, examples, nobody, checkpoints=None, display=new_display())
    started = time.monotonic()
    loop.run()
    train_s = time.monotonic() - started
    labels_LD = model.label_embeddings()
    path = QueryPath(
        featurizer, model.frozen_encoder(), build_index(ExactConfig(), labels_LD, seed=0)
    )
    figures = figures_on(path, test, len(train))
    seen = figures_on(path, train.rows(sample(len(train), len(test))), len(train))
    return [*(figures[name] for name in FIGURES), seen["P@1"], train_s]


def figures_on(path: QueryPath, part: Dataset, num_train: int) -> dict[str, float]:
    """Quality by exact search, per cent."""
    result = evaluate(
        path.top_k(part.queries, 10),
        part.positives,
        part.num_true,
        part.labels.frequencies,
        num_train=num_train,
        ks=(1, 3, 5, 10),
    )
    return result.figures


def sample(size: int, number: int) -> IntArray:
    """The numbers of some rows, always the same."""
    return np.sort(np.random.default_rng(0).choice(size, min(number, size), replace=False))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def plot(path: Path, variants: Sequence[Variant], results: Sequence[list[list[float]]]) -> None:
    """P@1 and R@10 of each variant, a line for each group; bars are one standard deviation."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("P@1", "R@10"), strict=True):
        place = FIGURES.index(name)
        for group in dict.fromkeys(variant.group for variant in variants):
            chosen = [(v, r) for v, r in zip(variants, results, strict=True) if v.group == group]
            values = [[run[place] for run in runs] for _, runs in chosen]
            axis.errorbar(
                [variant.name for variant, _ in chosen],
                [statistics.mean(v) for v in values],
                [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values],
                marker="o",
                capsize=3,
                label=group,
            )
        axis.set_title(f"{name}, per cent")
        axis.tick_params(axis="x", rotation=30)
        axis.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
