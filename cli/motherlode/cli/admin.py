"""`motherlode admin`: operate a running server over its admin port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from motherlode.cli.access import Access
from motherlode.cli.output import print_json, print_line, print_note, print_table
from motherlode.cli.query import config_error

if TYPE_CHECKING:
    from motherlode.clients import AdminClient, GateFigure, ModelStatus

__all__ = ["app"]

app = App(name="admin", help="Operate a running server: versions, aliases, canaries.")

_NO_ACCESS = Access()
_DAY_S = 86_400
# A longer number is no version.
_MOST_DIGITS = 18
_MIB = 2**20


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Options of every command.

    Attributes:
        target: HOST:PORT of the server's admin port.
        timeout_s: Seconds to wait, up to a day; a load takes as long as the bundle needs.
        json: Print one JSON document.
        access: How to prove who calls.
    """

    target: str
    timeout_s: Annotated[float, Parameter(validator=Number(gt=0, lte=_DAY_S))] = 600.0
    json: Annotated[bool, Parameter(negative=())] = False
    access: Access = _NO_ACCESS


@app.command(name="list")
def list_models(*, connection: Connection) -> None:
    """Show models, what has become of each version, and canaries."""
    with _client(connection) as client:
        models = client.list_models()
    if connection.json:
        print_json({"models": models})
        return
    if not models:
        print_note("the server has no model")
    for model in models:
        _print_model(model)


@app.command
def load(model: str, /, *, connection: Connection) -> None:
    """Load a version beside the serving one, so that requests may name it; or a whole model.

    A model then serves what it should, though it was unloaded or a version was refused before. The
    exit status is 3 if the gate refuses what is to be loaded.

    Args:
        model: MODEL@VERSION, or MODEL.
        connection: See above.
    """
    with _client(connection) as client:
        if "@" in model:
            name, version = _split(model)
            _report(client.load_version(version, name), connection)
        else:
            _report(client.load_model(model), connection)


@app.command
def unload(model: str, /, *, connection: Connection) -> None:
    """Let a version go that neither serves nor is on trial; or a whole model.

    A model that was let go serves nothing until it is loaded again, or the server restarts.

    Args:
        model: MODEL@VERSION, or MODEL.
        connection: See above.
    """
    with _client(connection) as client:
        if "@" in model:
            name, version = _split(model)
            _report(client.unload_version(version, name), connection)
        else:
            _report(client.unload_model(model), connection)


@app.command
def validate(model: str, /, *, connection: Connection) -> None:
    """Take a version through every stage but the swap, and show what was measured.

    The exit status is 3 if the gate refuses it.

    Args:
        model: MODEL@VERSION.
        connection: See above.
    """
    name, version = _split(model)
    with _client(connection) as client:
        figures = client.validate_version(version, name)
    if connection.json:
        print_json({"model": name, "version": version, "figures": figures})
    else:
        _print_figures(figures)


@app.command
def alias(
    model: str,
    name: str,
    /,
    *,
    remove: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection,
) -> None:
    """Set an alias in the repository. The server's serving alias, `stable`, decides what serves.

    The exit status is 3 if the gate refuses the version that should serve.

    Args:
        model: MODEL@VERSION, or MODEL with --remove.
        name: The alias.
        remove: Remove it; without the serving alias the newest version serves.
        connection: See above.
    """
    with _client(connection) as client:
        if remove:
            status = client.remove_alias(name, model)
        else:
            model_name, version = _split(model)
            status = client.set_alias(name, version, model_name)
        _report(status, connection)


@app.command
def rollback(model: str, /, *, connection: Connection) -> None:
    """Serve an earlier version again, and keep to it until the alias `stable` is moved or removed.

    It takes no time where the version is still in memory.

    Args:
        model: MODEL for the version before the serving one, or MODEL@VERSION.
        connection: See above.
    """
    name, version = _split(model) if "@" in model else (model, None)
    with _client(connection) as client:
        _report(client.roll_back(version, name), connection)


@app.command
def canary(
    model: str,
    /,
    *,
    percent: Annotated[float | None, Parameter(validator=Number(gt=0, lte=100))] = None,
    end: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection,
) -> None:
    """Give a version a share of the calls that name none; it is taken back if it does badly.

    The exit status is 3 if the gate refuses it.

    Args:
        model: MODEL@VERSION, or MODEL with --end.
        percent: Its share, above 0.
        end: End the trial.
        connection: See above.
    """
    if end == (percent is not None):
        raise config_error("--percent", "a share, or --end", percent)
    with _client(connection) as client:
        if percent is None:
            status = client.end_canary(model)
        else:
            name, version = _split(model)
            status = client.set_canary(version, percent, name)
        _report(status, connection)


@contextmanager
def _client(connection: Connection) -> Iterator[AdminClient]:
    """A client; what the gate refuses becomes the error that has an exit status of its own."""
    # Imported here, so that `--help` needs no gRPC.
    from motherlode.clients import AdminClient, RefusedError, UnsupportedError  # noqa: PLC0415

    access = connection.access
    client = AdminClient(
        connection.target,
        timeout_s=connection.timeout_s,
        tls=access.encryption(),
        key=access.key(),
    )
    with client:
        try:
            yield client
        except RefusedError as error:
            if error.reason != "GATE_REFUSED":
                raise
            from motherlode.core.errors import GateError  # noqa: PLC0415

            raise GateError(error.message) from error
        except UnsupportedError as error:
            if error.reason:
                raise
            # Said by gRPC itself: no such service.
            expected = "an admin port (the setting `admin` of a server)"
            raise config_error("--target", expected, connection.target) from error


def _split(reference: str) -> tuple[str, int]:
    name, at, version = reference.rpartition("@")
    is_number = version.isascii() and version.isdecimal() and len(version) <= _MOST_DIGITS
    if not (at and name and is_number and int(version)):
        raise config_error("model", "MODEL@VERSION", reference)
    return name, int(version)


def _report(model: ModelStatus, connection: Connection) -> None:
    if connection.json:
        print_json(model)
    else:
        _print_model(model)


def _print_model(model: ModelStatus) -> None:
    rows = [
        [
            version.version,
            version.state,
            "serves" if version.is_serving else "",
            ", ".join(version.aliases),
            version.answered_calls,
            version.failed_calls,
            version.ram_bytes / _MIB,
            version.detail,
        ]
        for version in model.versions
    ]
    columns = ["version", "state", "", "aliases", "answered", "failed", "MiB", "detail"]
    print_table(columns, rows, title=model.name, decimals=1)
    trial = model.canary
    if trial.version:
        print_line(f"canary: {model.name}@{trial.version} with {trial.percent:g} %")
    for trouble in filter(None, (model.load_error, trial.trouble)):
        print_note(f"trouble: {trouble}")


def _print_figures(figures: tuple[GateFigure, ...]) -> None:
    rows = [
        [figure.name, figure.value, f"at {'least' if figure.is_least else 'most'}", figure.bound]
        for figure in figures
    ]
    print_table(["figure", "measured", "expected", ""], rows, decimals=5)
