"""Planted data: each label has a word of its own, so that a right model finds every label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from motherlode.trainer.config import TrainConfig, check_config

SMALL_RUN: dict[str, dict[str, object]] = {
    "features": {"kind": "text", "min_count": 1},
    "encoder": {"kind": "bag", "width": 64},
    "negatives": {"num_candidates": 64, "keep": 8},
    "optimizer": {"features_lr": 0.05, "labels_lr": 0.05},
    "loop": {"epochs": 8, "batch_size": 32, "held_out": 20, "evaluations": 2},
}


def small_config(**sections: dict[str, object]) -> TrainConfig:
    """A configuration that trains on planted data in about a second."""
    merged = {name: SMALL_RUN.get(name, {}) | value for name, value in sections.items()}
    return check_config({**SMALL_RUN, **merged})


def write_planted(
    folder: Path,
    *,
    num_labels: int = 40,
    num_queries: int = 400,
    first_label: int = 0,
    with_test: bool = True,
) -> Path:
    """A data set whose queries name their labels: `word7 filler3` has the label `7`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", num_queries), ("test", 50 if with_test else 0)):
        if not count:
            continue
        with (folder / f"{part}.jsonl").open("w", encoding="utf8") as file:
            for row in range(count):
                labels = first_label + rng.choice(num_labels, 1 + row % 2, replace=False)
                words = [f"word{label}" for label in labels] + [f"filler{rng.integers(20)}"]
                record = {"text": " ".join(words), "labels": [str(label) for label in labels]}
                file.write(json.dumps(record) + "\n")
    with (folder / "labels.jsonl").open("w", encoding="utf8") as file:
        for label in range(first_label, first_label + num_labels):
            file.write(json.dumps({"id": str(label), "text": f"Label {label}"}) + "\n")
    return folder
