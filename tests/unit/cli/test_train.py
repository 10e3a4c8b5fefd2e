from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.cli.train import train
from motherlode.core.errors import MotherlodeError
from motherlode.trainer.training import TrainingRequest


@pytest.mark.parametrize(
    ("name", "text", "kinds"),
    [
        ("train.jsonl", '{"text": "a", "labels": ["1"]}\n', ("text", "bag")),
        ("train.txt", "1 2 1\n0 1:1\n", ("sparse", "bag")),
        ("train.jsonl", '{"features": [1.0, 2.0], "labels": ["1"]}\n', ("dense", "dense")),
    ],
)
def test_the_default_recipe_takes_the_kind_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, kinds: tuple[str, str]
) -> None:
    requests: list[TrainingRequest] = []

    def stop(request: TrainingRequest, *_: object) -> None:
        requests.append(request)
        raise MotherlodeError("stopped")

    monkeypatch.setattr("motherlode.cli.train.train_and_publish", stop)
    (tmp_path / name).write_text(text)
    with pytest.raises(MotherlodeError, match="stopped"):
        train(data=tmp_path, repository=tmp_path / "r", model="m")
    config = requests[0].config
    assert (config.features.kind, config.encoder.kind) == kinds
