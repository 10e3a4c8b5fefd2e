"""The claims of the papers, tried on real data: each variant with several seeds, tested once.

Usage: python benchmarks/claims.py CLAIM FOLDER --recipe RECIPE [--set KEY=VALUE ...] [--seeds N]
           [--only GROUP ...] [--records FILE] [--plot FILE]
       (a folder holds train, test and labels)

CLAIM is one of:
    snm          Of B candidates the k hardest (Reddi et al., AISTATS 2019) against all of them,
                 which is plain negative sampling, under several losses and proposals.
    glas         The label regularizers at several widths (Guo et al., NeurIPS 2019).
    adversarial  Negatives from a tree fitted to the data (Bamler and Mandt, ICLR 2020) against
                 uniform ones, by frequency, and noise contrastive estimation.
    label_text   Label embeddings that are free, from the label's text, or both.

All variants of a claim see the same queries in the same order for as many steps. Each line is
printed when its runs are done. Seconds are those of the processor in the training loop alone, so
that other work on the machine disturbs them little; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from claim_plots import plot_curves, plot_figures, plot_groups
from machine import print_result
from trials import BUCKETS, GROUPS, Records, Trial

from motherlode.trainer.config import load_config
from motherlode.trainer.data import Dataset, load_dataset
from motherlode.trainer.preparation import load_test

FIGURES = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@10")
CANDIDATES = 4096
KEPT = (1, 16, 256, CANDIDATES)
WIDTHS = (64, 128, 256, 512)
REGULARIZERS = {
    "none": (),
    "spread-out 10": ("regularizer.kind=spread_out", "regularizer.weight=10"),
    "GLaS 10": ("regularizer.kind=glas", "regularizer.weight=10"),
}


@dataclass(frozen=True)
class Variant:
    """One line of the table: a group, a name in it, and overrides of the recipe."""

    group: str
    name: str
    overrides: tuple[str, ...]


Plot = Callable[[Path, list[tuple[str, str, list[Trial]]]], None]


@dataclass(frozen=True)
class Claim:
    """What is compared, and how it is drawn."""

    variants: list[Variant]
    plot: Plot
    evaluations: int = 1


def snm() -> list[Variant]:
    """Losses and proposals times numbers kept."""
    draws = f"negatives.num_candidates={CANDIDATES}"
    groups = {
        "pairwise OWL, uniform": ("loss.kind=pairwise_owl",),
        "pairwise OWL, by frequency": ("loss.kind=pairwise_owl", "negatives.kind=frequency"),
        "decoupled softmax, uniform": ("loss.kind=decoupled_softmax",),
    }
    return [
        Variant(group, f"k = {keep:,}", (*overrides, draws, f"negatives.keep={keep}"))
        for group, overrides in groups.items()
        for keep in KEPT
    ]


def glas() -> list[Variant]:
    """Regularizers times widths."""
    return [
        Variant(name, f"d = {width}", (f"encoder.width={width}", *overrides))
        for name, overrides in REGULARIZERS.items()
        for width in WIDTHS
    ]


def adversarial() -> list[Variant]:
    """Proposals times losses; each query has draws of its own."""
    draws = ("negatives.num_candidates=32", "negatives.keep=32")
    eq_6 = "loss.kind=regularized_negative_sampling"
    tree, nce = "negatives.kind=adversarial", "loss.kind=noise_contrastive"
    uniform = "negatives.shared=false"
    frequency = ("negatives.kind=frequency", "negatives.shared=false")
    candidates = f"negatives.num_candidates={CANDIDATES}"
    variants = [
        Variant("adversarial, eq. (6)", "corrected", (tree, eq_6, "ranker.kind=tree_correction")),
        Variant("adversarial, eq. (6)", "not corrected", (tree, eq_6)),
        Variant("adversarial, NCE", "", (tree, nce)),
        Variant("uniform, eq. (6)", "", (uniform, eq_6)),
        Variant("by frequency, eq. (6)", "not corrected", (*frequency, eq_6)),
        Variant("by frequency, NCE", "", (*frequency, nce)),
    ]
    reference = ("loss.kind=decoupled_softmax", candidates, f"negatives.keep={CANDIDATES}")
    return [
        *(replace(variant, overrides=(*variant.overrides, *draws)) for variant in variants),
        Variant("uniform, shared, decoupled softmax", "", reference),
    ]


def label_text() -> list[Variant]:
    """What label embeddings are made of."""
    parts = {
        "free": ("labels.embedding=free",),
        "text, encoder of queries": ("labels.embedding=text", "labels.text_encoder=shared"),
        "text, own encoder": ("labels.embedding=text", "labels.text_encoder=own"),
        "sum, encoder of queries": ("labels.embedding=sum", "labels.text_encoder=shared"),
        "sum, own encoder": ("labels.embedding=sum", "labels.text_encoder=own"),
    }
    return [Variant(name, "", overrides) for name, overrides in parts.items()]


CLAIMS = {
    "snm": Claim(snm(), plot_figures),
    "glas": Claim(glas(), plot_figures),
    "adversarial": Claim(adversarial(), plot_curves, evaluations=12),
    "label_text": Claim(label_text(), plot_groups),
}


def main() -> None:
    """Run a claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", nargs="*", default=[], help="overrides for all variants")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="groups to run; by default all")
    parser.add_argument("--records", type=Path, help="where trials are kept and found again")
    parser.add_argument("--plot", type=Path, help="where to draw the claim")
    options = parser.parse_args()
    claim, records = CLAIMS[options.claim], Records(options.records)
    train = load_dataset(options.data, "train")
    test = load_test(options.data, train)
    assert test is not None, "the data needs a test part"
    results = []
    for variant in claim.variants:
        if not options.only or variant.group in options.only:
            evaluations = f"loop.evaluations={claim.evaluations}"
            overrides = (evaluations, *options.set, *variant.overrides)
            trials = seeds(options.recipe, overrides, options.seeds, train, test, records)
            results.append((variant.group, variant.name, trials))
            print(*row(*results[-1]), flush=True)
    title = f"{options.claim} on {options.data.name}, {options.seeds} seeds"
    print_result(title, columns_of(results[0][2][0]), [row(*result) for result in results])
    if options.plot:
        claim.plot(options.plot, results)


def seeds(
    recipe: str,
    overrides: Sequence[str],
    number: int,
    train: Dataset,
    test: Dataset,
    records: Records,
) -> list[Trial]:
    """The trials of each seed."""
    fixed = ("loop.held_out=0", "ranker.kind=none", *overrides)
    configs = [load_config(recipe, (f"seed={seed}", *fixed)) for seed in range(number)]
    return [records.trial(config, train, test) for config in configs]


def columns_of(trial: Trial) -> list[str]:
    """Names of the columns."""
    groups = [f"P@1, {name} training queries" for name in GROUPS if name in trial.groups]
    buckets = [f"R@10 of labels with {name}" for name in BUCKETS if name in trial.recalls]
    return ["", "", *FIGURES, "P@1 on training queries", *groups, *buckets, "processor s"]


def row(group: str, name: str, trials: Sequence[Trial]) -> list[object]:
    """Means and standard deviations over the seeds."""
    columns = [[trial.figures[figure] for trial in trials] for figure in FIGURES]
    columns.append([trial.seen_figures["P@1"] for trial in trials])
    columns.extend([trial.groups[key] for trial in trials] for key in trials[0].groups)
    columns.extend([trial.recalls[key] for trial in trials] for key in trials[0].recalls)
    columns.append([trial.cpu_s for trial in trials])
    return [group, name, *map(spread, columns)]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
