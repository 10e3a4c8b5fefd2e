"""The command `motherlode`.

Sub-commands are named by import strings and imported when they are called, so that `--help` and the
client commands start without torch, faiss or numpy.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 a gate or target not met,
4 something is missing on this machine, 130 interrupted, 141 the reader of the output has gone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnknownCommandError

from motherlode.cli.logs import LogFormat, formatter_of
from motherlode.cli.output import print_note

__all__ = ["app", "main"]

FAILED, USAGE, GATE, ENVIRONMENT, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 130, 141

_HELP = frozenset({"--help", "-h"})

LogLevel = Literal["debug", "info", "warning", "error"]

# Everything else that a command imports belongs to the extras `cpu` and `gpu`.
_CLIENT_MODULES = frozenset({"google", "grpc", "grpc_status", "numpy"})

_GLOBAL = Group("Global options", sort_key=99)

_COMMANDS = {
    "data": ("motherlode.cli.data:app", "Make data sets to train on."),
    "train": ("motherlode.cli.train:train", "Train a model and publish it as a new version."),
    "evaluate": ("motherlode.cli.evaluate:evaluate", "Measure a published model on labelled data."),
    "score": ("motherlode.cli.score:score", "Write the top labels of every query of a file."),
    "serve": ("motherlode.cli.serve:serve", "Serve a repository's models over gRPC."),
    "query": ("motherlode.cli.query:query", "Ask a running server."),
    "admin": ("motherlode.cli.admin:app", "Operate a running server: versions, aliases, canaries."),
    "health": ("motherlode.cli.health:health", "Say whether a server can answer."),
    "tune": ("motherlode.cli.tune:tune", "Give a published model an index that meets targets."),
    "labels": ("motherlode.cli.labels:app", "Change the labels of a published model."),
    "inspect": ("motherlode.cli.inspect:inspect", "Show what a repository or a model holds."),
    "diff": ("motherlode.cli.diff:diff", "Compare the answers of two versions of a model."),
    "bench": ("motherlode.cli.bench:bench", "Load a server, and show how long its answers take."),
    "keys": ("motherlode.cli.keys:app", "Make keys for callers of a server."),
    "doctor": ("motherlode.cli.doctor:doctor", "Find what is wrong on this machine."),
}


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return version("motherlode")


def _make_app() -> App:
    lazy = App(
        name="motherlode",
        help="Train, publish and serve top-k label retrieval over very large label sets.",
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for position, (name, (import_path, help_text)) in enumerate(_COMMANDS.items()):
        # Markdown joins the lines of a docstring again, and costs too much for the root's own help.
        options = {} if import_path.endswith(":app") else {"help_format": "markdown"}
        lazy.command(import_path, name=name, help=help_text, sort_key=position, **options)
    lazy.meta.suppress_keyboard_interrupt = False
    return lazy


app = _make_app()


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    log_level: Annotated[
        LogLevel, Parameter(env_var="MOTHERLODE_LOG_LEVEL", group=_GLOBAL)
    ] = "info",
    log_format: Annotated[
        LogFormat, Parameter(env_var="MOTHERLODE_LOG_FORMAT", group=_GLOBAL)
    ] = "text",
) -> object:
    """Run one command.

    Args:
        tokens: The command and its arguments.
        log_level: Least severe messages to log, on standard error.
        log_format: Lines for people, or an object of JSON a line.
    """
    configure_logging(log_level, log_format)
    return app(tokens)


def configure_logging(level: LogLevel, log_format: LogFormat = "text") -> None:
    """Send logs to standard error: Motherlode's from `level` on, other packages' from warnings on.

    Replaces what an earlier call set up.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_of(log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("motherlode").setLevel(level.upper())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `motherlode` with the given arguments, by default the process's own.

    An error that was raised on purpose becomes one line on standard error; the variable
    MOTHERLODE_TRACEBACK=1 shows where it came from.

    Returns:
        The exit status.
    """
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    _tolerate_broken_text()
    try:
        status = _run(lambda: _call(tokens))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at exit; nobody is there to read that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _call(tokens: list[str]) -> object:
    """Run a command, or show its help: what its docstring says, not its line in the list."""
    name = next((token for token in tokens if not token.startswith("-")), "")
    is_group = _COMMANDS.get(name, (":app",))[0].endswith(":app")
    if is_group or not _HELP.intersection(tokens):
        return app.meta(tokens)
    command = app[name]
    line, command.help = command.help, None
    try:
        return app.meta(tokens)
    finally:
        command.help = line


def _run(call: Callable[[], object]) -> int:
    try:
        result = call()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except CycloptsError as error:
        print_note(f"motherlode: {_usage_message(error)}")
        print_note(f"Try `{_command_path(error)} --help`.")
        return USAGE
    except Exception as error:
        reported = _report(error)
        if reported is None:
            raise
        if os.environ.get("MOTHERLODE_TRACEBACK") == "1":
            sys.excepthook(type(error), error, error.__traceback__)
        message, status = reported
        print_note(f"motherlode: {message}")
        return status
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> tuple[str, int] | None:
    """One line and the exit status for an error that a user can handle; None for a bug."""
    if isinstance(error, ImportError):
        return _report_import(error)
    if isinstance(error, OSError):
        return str(error), FAILED
    # Imported here: both modules are cheap, and in memory already if one of their errors is raised.
    from motherlode.core.errors import ConfigError, GateError, MotherlodeError  # noqa: PLC0415

    if isinstance(error, ConfigError):
        return str(error), USAGE
    if isinstance(error, GateError):
        return str(error), GATE
    if isinstance(error, MotherlodeError) or _is_client_error(error):
        return str(error), FAILED
    return None


def _is_client_error(error: Exception) -> bool:
    # The module that defines the class is in memory if such an error was raised; importing it here
    # would fail where the extra `client` is not installed.
    client_errors = sys.modules.get("motherlode.clients.errors")
    return client_errors is not None and isinstance(error, client_errors.ClientError)


def _report_import(error: ImportError) -> tuple[str, int] | None:
    """What to install, if what is missing is a dependency; None if it is a part of Motherlode."""
    cause: BaseException = error
    while isinstance(cause.__cause__, ImportError):
        cause = cause.__cause__
    assert isinstance(cause, ImportError)
    package = (cause.name or "").partition(".")[0]
    if package in ("", "motherlode"):
        return None
    extra = "client" if package in _CLIENT_MODULES else "cpu"
    return f"{cause}: pip install 'motherlode[{extra}]'", ENVIRONMENT


def _usage_message(error: CycloptsError) -> str:
    # Cyclopts' own text for an unknown command imports every command to list them.
    if not isinstance(error, UnknownCommandError) or error.app is None or not error.unused_tokens:
        return str(error)
    word = error.unused_tokens[0]
    if word.startswith("-"):
        return f"unknown option {word}"
    from difflib import get_close_matches  # noqa: PLC0415

    known = [name for name in error.app if not name.startswith("-")]
    close = get_close_matches(word, known, n=1)
    return f"unknown command {word}; " + (f"did you mean {close[0]}?" if close else _one_of(known))


def _one_of(names: list[str]) -> str:
    return f"there is {', '.join(names)}"


def _command_path(error: CycloptsError) -> str:
    return " ".join(["motherlode", *(error.command_chain or ())])


def _tolerate_broken_text() -> None:
    # A file name or a label may hold what the terminal's encoding lacks; that stops no command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
