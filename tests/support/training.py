"""Training runs in this process, whole or killed."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from motherlode.trainer.checkpoint import Point
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.progress import RunDisplay, SilentDisplay
from motherlode.trainer.training import TrainingOutcome, TrainingRequest, train_and_publish


class KilledError(Exception):
    """Stands for a process that dies."""


class KillingDisplay(RunDisplay):
    """Dies after some steps; `started_at` is the step that its run began with."""

    def __init__(self, after_steps: int) -> None:
        self.left = after_steps
        self.started_at = 0

    @override
    def start(self, step: int, num_steps: int) -> None:
        self.started_at = step

    @override
    def step(self, loss: float, num_examples: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    @override
    def point(self, point: Point) -> None:
        pass

    @override
    def stop(self) -> None:
        pass


def run(
    data: Path,
    repository: Path,
    config: TrainConfig,
    display: RunDisplay | None = None,
    **options: object,
) -> TrainingOutcome:
    """A run of the model `planted`, unless `options`, of TrainingRequest, say otherwise."""
    values = {"config": config, "data": data, "repository": repository, "model": "planted"}
    request = TrainingRequest(**(values | options))  # type: ignore[arg-type]
    return train_and_publish(request, display or SilentDisplay())
