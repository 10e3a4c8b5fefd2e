"""`motherlode serve`: run the gRPC server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from motherlode.cli.output import print_note

if TYPE_CHECKING:
    from motherlode.server.app import Readiness

__all__ = ["serve"]


def serve(  # noqa: PLR0913 - every argument is a flag
    *,
    repository: Path | None = None,
    config: Path | None = None,
    listen: str | None = None,
    metrics: str | None = None,
    admin: str | None = None,
    model: Annotated[Sequence[str] | None, Parameter(negative="")] = None,
    alias: str | None = None,
    set_: Annotated[Sequence[str] | None, Parameter(name="--set", negative="")] = None,
    ready_file: Path | None = None,
) -> int:
    """Serve a repository's models over gRPC, and newer versions as they appear.

    A setting is taken from its flag, else from the variable MOTHERLODE_<NAME>, else from the
    configuration file, else it has its default. SIGTERM drains and stops; SIGHUP looks for new
    versions at once.

    Args:
        repository: Folder that holds a folder per model.
        config: TOML file of settings.
        listen: Address of the gRPC port, HOST:PORT; port 0 takes a free one.
        metrics: Address of the Prometheus port, HOST:PORT; port 0 takes a free one.
        admin: Address of the operators' gRPC port, HOST:PORT; port 0 takes a free one.
        model: Serve this model only; may be given again.
        alias: Serve the version that this alias names, where a model has it.
        set_: Any setting, as NAME=VALUE; may be given again.
        ready_file: Written once all models are loaded, as JSON with the bound addresses, the
            versions and the process id.
    """
    # Until the server listens for it: it means a look at the repository, and would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from motherlode.server.config import load_config  # noqa: PLC0415

    _check_ready_file(ready_file)
    named = {
        "repository": repository,
        "listen": listen,
        "metrics": metrics,
        "admin": admin,
        "models": model,
        "serve_alias": alias,
    }
    given = {name: value for name, value in named.items() if value is not None}
    settings = load_config(config, _settings(set_ or ()) | given)
    # Before torch and faiss are imported: each brings an OpenMP of its own, which reads this once.
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    from motherlode.server.app import run  # noqa: PLC0415

    return run(settings, lambda readiness: _announce(readiness, ready_file))


def _settings(pairs: Sequence[str]) -> dict[str, object]:
    from motherlode.core.errors import ConfigError  # noqa: PLC0415

    settings: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError("--set", expected="NAME=VALUE", actual=pair)
        settings[name.strip()] = value.strip()
    return settings


def _check_ready_file(ready_file: Path | None) -> None:
    from motherlode.core.errors import ConfigError  # noqa: PLC0415

    if ready_file is not None and (not ready_file.parent.is_dir() or ready_file.is_dir()):
        expected = "a file in a folder that is there"
        raise ConfigError("--ready-file", expected=expected, actual=str(ready_file))


def _announce(readiness: Readiness, ready_file: Path | None) -> None:
    if ready_file is not None:
        _write(ready_file, readiness)
    models = [f"{name}@{version}" for name, version in sorted(readiness.models.items())]
    print_note(
        f"motherlode: serving {', '.join(models) or 'no model yet'}; "
        f"gRPC on {readiness.listen}, admin on {readiness.admin}, metrics on http://{readiness.metrics}/metrics"
    )


def _write(ready_file: Path, readiness: Readiness) -> None:
    document = {
        name: getattr(readiness, name) for name in ("listen", "admin", "metrics", "models", "pid")
    }
    # Renamed into place, so that whoever waits for the file never reads half of it.
    part = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
    part.write_text(json.dumps(document) + "\n", encoding="utf-8")
    part.replace(ready_file)
