from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.cli.serve import serve
from motherlode.core.errors import ConfigError
from motherlode.server.config import ServerConfig


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """Settings that a server was started with."""
    configs: list[ServerConfig] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("motherlode.server.app.run", lambda config, _: configs.append(config) or 0)
    return configs


def test_every_setting_can_be_set_by_its_name(started: list[ServerConfig]) -> None:
    pairs = {
        "repository": "r",
        "listen": "a:1",
        "metrics": "b:2",
        "models": "one,two",
        "serve_alias": "stable",
        "max_k": "7",
    }
    serve(set_=[f"{name}={value}" for name, value in pairs.items()])
    (config,) = started
    assert (config.repository, config.listen, config.metrics) == (Path("r"), "a:1", "b:2")
    assert (config.models, config.serve_alias, config.max_k) == (("one", "two"), "stable", 7)


def test_a_flag_of_its_own_wins_over_set(started: list[ServerConfig]) -> None:
    serve(repository=Path("r"), listen="flag:1", set_=["listen=set:2"])
    assert started[0].listen == "flag:1"


@pytest.mark.parametrize("place", ["missing/ready.json", "."])
def test_a_ready_file_that_cannot_be_written_is_refused_before_the_start(
    tmp_path: Path, started: list[ServerConfig], place: str
) -> None:
    with pytest.raises(ConfigError, match="--ready-file: expected a file in a folder that is"):
        serve(repository=tmp_path, ready_file=tmp_path / place)
    assert started == []
