"""Speed of text features: fitting, batches, one query at a time, and loading.

Run `python benchmarks/features.py [DATA_FOLDER]`; the folder holds a train.jsonl.gz with a `text`
in each line. Without one, names that look like those of places are made up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from machine import machine

from motherlode.core.features import TextFeaturesConfig, TextFeaturizer, load_featurizer
from motherlode.core.queries import TextQueries

CONFIGS = {
    "characters 2-4": TextFeaturesConfig(words=None, characters=(2, 4)),
    "words": TextFeaturesConfig(words=(1, 1)),
}
NUM_MADE = 330_000
BATCHES = (64, 1024)
QUERIES_PER_ROUND = 4096
ROUNDS = 7

T = TypeVar("T")


def main() -> None:
    """Prints the machine, a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="with a train.jsonl.gz")
    folder = parser.parse_args().folder
    texts = read_texts(folder) if folder else make_names(np.random.default_rng(0), NUM_MADE)
    about = machine() | {
        "texts": len(texts),
        "mean_characters": round(statistics.fmean(map(len, texts)), 1),
        "ascii_share": round(sum(map(str.isascii, texts)) / len(texts), 3),
    }
    for name, value in about.items():
        print(f"{name:16} {value}")
    results = {name: measure(texts, config) for name, config in CONFIGS.items()}
    print_table(results)
    print(json.dumps({"machine": about, "results": results}))


def read_texts(folder: Path) -> list[str]:
    """The texts of a data folder's training part."""
    with gzip.open(folder / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def make_names(generator: np.random.Generator, count: int) -> list[str]:
    """Names of one to three words from four alphabets, of about 13 characters."""
    alphabets = ["abcdefghijklmnopqrstuvwxyz", "aàbcdéèfghıîklmñoöprsştüuvyzž"]
    alphabets += ["абвгдежзийклмнопрстуфхцчшщыьэюя", "京都東西南北山川田中大小村町市島"]
    words = [_make_words(generator, a, 20_000) for a in alphabets]
    names = []
    for script in generator.choice(4, count, p=[0.55, 0.2, 0.15, 0.1]):
        size = generator.integers(1, 4)
        # The product of two uniform numbers makes some words common, as in real names.
        picks = (generator.random(size) * generator.random(size) * 20_000).astype(int)
        names.append(" ".join(words[script][i] for i in picks).title())
    return names


def _make_words(generator: np.random.Generator, alphabet: str, count: int) -> list[str]:
    letters = np.array(list(alphabet))
    weights = 1.0 / np.arange(1, len(letters) + 1)
    picks = generator.choice(letters, (count, 10), p=weights / weights.sum())
    return ["".join(p[:n]) for p, n in zip(picks, generator.integers(3, 10, count), strict=True)]


def measure(texts: list[str], config: TextFeaturesConfig) -> dict[str, float]:
    """Wall times. Of repeated batches the shortest, as other work on the machine only adds."""
    fit_s, featurizer = timed(lambda: TextFeaturizer.fit(texts, config))
    figures = {"features": float(featurizer.num_features), "fit_s": fit_s}
    picks = np.random.default_rng(1).integers(0, len(texts), QUERIES_PER_ROUND)
    queries = TextQueries([texts[i] for i in picks])
    for size in BATCHES:
        figures[f"texts_per_s_{size}"] = QUERIES_PER_ROUND / shortest(featurizer, queries, size)
    figures["one_query_s"] = median_of_one(featurizer, queries)
    figures["transform_all_s"] = timed(lambda: featurizer.transform(TextQueries(texts)))[0]
    with tempfile.TemporaryDirectory() as folder:
        featurizer.save(Path(folder))
        figures["load_s"] = timed(lambda: load_featurizer(Path(folder)))[0]
    return figures


def shortest(featurizer: TextFeaturizer, queries: TextQueries, size: int) -> float:
    """Seconds for all queries in batches of a size."""

    def run() -> None:
        for start in range(0, len(queries), size):
            featurizer.transform(queries.rows(start, start + size))

    return min(timed(run)[0] for _ in range(ROUNDS))


def median_of_one(featurizer: TextFeaturizer, queries: TextQueries) -> float:
    """Median seconds of a query alone, each query the best of a few times."""
    times = []
    for i in range(len(queries)):
        one = queries.rows(i, i + 1)
        times.append(min(timed(partial(featurizer.transform, one))[0] for _ in range(3)))
    return statistics.median(times)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of wall time, and what the call returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def print_table(results: dict[str, dict[str, float]]) -> None:
    """One row a setting."""
    print(f"\n{'':16}{'features':>9}{'fit':>8}{'all':>8}{'load':>8}{'one query':>11}", end="")
    print("".join(f"{f'in {size}s':>12}" for size in BATCHES))
    for name, row in results.items():
        print(f"{name:16}{row['features']:>9.0f}{row['fit_s']:>6.2f} s", end="")
        print(f"{row['transform_all_s']:>6.2f} s{row['load_s']:>6.2f} s", end="")
        print(f"{row['one_query_s'] * 1000:>8.3f} ms", end="")
        print("".join(f"{row[f'texts_per_s_{size}']:>10,.0f}/s" for size in BATCHES))
    print()


if __name__ == "__main__":
    main()
