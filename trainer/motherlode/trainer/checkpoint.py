"""Where a run stands, on disk, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from motherlode.core.errors import InvalidInputError, MotherlodeError
from motherlode.trainer.model import Model


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One validation of the run.

    Attributes:
        examples: Training queries seen so far.
        loss: Mean training loss since the point before.
        figures: Quality on the held-out part, per cent, by name; empty without one.
    """

    examples: int
    loss: float
    figures: dict[str, float]


@final
@dataclass(slots=True)
class Progress:
    """What a run has behind it.

    Attributes:
        step: Steps done.
        loss_sum: Of the steps since the last point.
        loss_count: Number of those steps.
        points: Validations so far.
        best: Place in `points` of the best one.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    points: list[Point] = field(default_factory=list)
    best: int = 0


@final
class CheckpointFolder:
    """The newest state of one run, and its best one where it may stop early.

    Args:
        folder: Made when first written to.
        run_digest: Names the run (configuration, data, parent); another run's state is refused.
    """

    def __init__(self, folder: Path, run_digest: str) -> None:
        self._folder = folder
        self._run_digest = run_digest

    @property
    def exists(self) -> bool:
        """Whether an unfinished run left its state here."""
        return self._path("newest").is_file()

    def save(
        self,
        name: str,
        model: Model,
        optimizer: torch.optim.Optimizer | None,
        progress: Progress,
    ) -> None:
        """Replace the state called `name` (newest or best) in one step.

        Raises:
            MotherlodeError: If it cannot be written; the state before stays.
        """
        metadata = {"run": self._run_digest, "progress": json.dumps(asdict(progress))}
        path = self._path(name)
        staging = _staging(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(_tensors(model, optimizer), staging, metadata)
            with staging.open("rb") as file:
                os.fsync(file.fileno())
            staging.replace(path)
        except (OSError, SafetensorError) as error:
            staging.unlink(missing_ok=True)
            raise MotherlodeError(f"{path}: cannot write the checkpoint: {error}") from error

    def restore(self, name: str, model: Model, optimizer: torch.optim.Optimizer | None) -> Progress:
        """Set model and optimiser to the state called `name`; returns where the run stood.

        Raises:
            InvalidInputError: If the state belongs to another run.
            MotherlodeError: If it cannot be read.
        """
        path = self._path(name)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            if metadata["run"] != self._run_digest:
                raise InvalidInputError(
                    str(path),
                    expected="the checkpoint of this configuration and data (start without "
                    "--resume to begin anew)",
                    actual=f"run {metadata['run'][:12]}, this is {self._run_digest[:12]}",
                )
            _restore(model, optimizer, load_file(path))
        except (OSError, KeyError, SafetensorError) as error:
            raise MotherlodeError(f"{path}: cannot read the checkpoint: {error}") from error
        values = json.loads(metadata["progress"])
        points = [Point(**point) for point in values.pop("points")]
        return Progress(points=points, **values)

    def remove(self) -> None:
        """Forget the run."""
        for name in ("newest", "best"):
            path = self._path(name)
            path.unlink(missing_ok=True)
            # Left by a run that was killed while it saved.
            _staging(path).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Holds a checkpoint folder, made if missing, for one run; at the end it goes if it is empty.

    The kernel drops the lock when the process ends, however it ends.

    Raises:
        MotherlodeError: If another run holds it, or it cannot be made.
    """
    try:
        lock = _lock(folder)
    except BlockingIOError:
        reason = "another training of this model into this repository is under way"
        raise MotherlodeError(f"{folder}: {reason}") from None
    except OSError as error:
        raise MotherlodeError(f"{folder}: cannot be used: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(lock)


def _lock(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), folder.stat()):
                return file
        except FileNotFoundError:
            pass  # a run that ended has just removed it: made again
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _staging(path: Path) -> Path:
    return path.with_suffix(".staging")


def _tensors(model: Model, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, table in model.tables().items():
        tensors[name] = table.weights_RD
        tensors[f"{name}.accumulators"] = table.accumulators_R
    for name, value in model.encoder.head.state_dict().items():
        tensors[f"head.{name}"] = value
    states = optimizer.state_dict()["state"] if optimizer else {}
    for place, state in states.items():
        for name, value in state.items():
            tensors[f"optimizer.{place}.{name}"] = value
    return tensors


def _restore(
    model: Model, optimizer: torch.optim.Optimizer | None, tensors: dict[str, Tensor]
) -> None:
    for name, table in model.tables().items():
        table.weights_RD.copy_(tensors[name])
        table.accumulators_R.copy_(tensors[f"{name}.accumulators"])
    head = model.encoder.head.state_dict()
    model.encoder.head.load_state_dict({name: tensors[f"head.{name}"] for name in head})
    if optimizer is None:
        return
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, place, key = name.split(".")
            states.setdefault(int(place), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
