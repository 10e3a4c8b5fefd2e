from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.clients.errors import UnavailableError
from motherlode.core.errors import BundleError, ConfigError, GateError


@pytest.fixture(autouse=True)
def _restore_logging():
    root, own = logging.getLogger(), logging.getLogger("motherlode")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


@pytest.fixture
def _fresh_app(monkeypatch):
    """The command as a new process has it: nothing is loaded yet."""
    monkeypatch.setattr(main_module, "app", main_module._make_app())
    main_module.app.meta.default(main_module._launch)


@pytest.fixture
def raising(monkeypatch, _fresh_app):
    """Makes `motherlode query` raise, or return, what it is given."""

    def arrange(outcome: object) -> None:
        def query(*, target: str) -> object:
            del target
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr("motherlode.cli.query.query", query)

    return arrange


RUN_QUERY = ["query", "--target", "x:1"]


def import_error(name: str) -> ImportError:
    outer = ImportError("Cannot import module 'motherlode.cli.query'")
    outer.__cause__ = ModuleNotFoundError(f"No module named {name!r}", name=name)
    return outer


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (UnavailableError("nobody there"), 1, "nobody there"),
        (BundleError(Path("m/1"), "is half a bundle"), 1, "m/1: is half a bundle"),
        (FileNotFoundError(2, "No such file", "nix"), 1, "[Errno 2] No such file: 'nix'"),
        (ConfigError("k", expected="1", actual=2), 2, "k: expected 1, got 2"),
        (GateError("P@1 is 3"), 3, "P@1 is 3"),
        (import_error("torch"), 4, "No module named 'torch': pip install 'motherlode[cpu]'"),
        (import_error("faiss.x"), 4, "No module named 'faiss.x': pip install 'motherlode[cpu]'"),
        (import_error("grpc"), 4, "No module named 'grpc': pip install 'motherlode[client]'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_is_one_line_and_a_status(raising, capsys, outcome, status, message):
    raising(outcome)
    assert main(RUN_QUERY) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"motherlode: {message}\n"


def test_the_traceback_of_an_expected_error_is_there_for_who_asks(raising, capsys, monkeypatch):
    monkeypatch.setenv("MOTHERLODE_TRACEBACK", "1")
    raising(GateError("P@1 is 3"))
    assert main(RUN_QUERY) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("motherlode: P@1 is 3\n")


def test_an_interrupt_is_status_130_without_a_word(raising, capsys):
    raising(KeyboardInterrupt())
    assert main(RUN_QUERY) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), import_error("motherlode.core.nix")])
def test_a_bug_keeps_its_traceback(raising, error):
    raising(error)
    with pytest.raises(type(error)):
        main(RUN_QUERY)


@pytest.mark.parametrize(("outcome", "status"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_may_return_its_status(raising, outcome, status):
    raising(outcome)
    assert main(RUN_QUERY) == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qery"], "unknown command qery; did you mean query?"),
        (["zzz"], "unknown command zzz; there is data, train,"),
        (["--nix"], "unknown option --nix"),
        (["query", "--target"], "--target requires an argument"),
        (["query", "--target", "x:1", "--text", "a", "-k", "0"], "-k"),
        (["query", "--target", "x:1", "--text", "a", "--timeout-s", "inf"], "--timeout-s"),
        (["query", "--target", "x:1", "--text", "a", "--timeout-s", "1e300"], "--timeout-s"),
        (["query", "--target", "x:1", "--nix"], "--nix"),
        (["--log-level", "loud", "query"], "--log-level"),
    ],
)
def test_wrong_usage_is_status_2_with_a_hint(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "--help`" in err.splitlines()[-1]
    assert len(err.splitlines()) == 2


@pytest.mark.usefixtures("_fresh_app")
def test_a_mistyped_command_imports_none_of_the_others(monkeypatch):
    loaded: list[str] = []
    monkeypatch.setattr(
        "cyclopts.command_spec.CommandSpec.resolve", lambda self, _: loaded.append(self.name)
    )
    assert main(["qery"]) == 2
    assert loaded == []


def test_a_commands_help_says_more_than_its_line_in_the_list(capsys):
    assert main(["tune", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "If none meets the targets, nothing is published and the exit status is 3." in shown
    assert main(["--help"]) == 0
    assert "Give a published model an index that meets targets." in capsys.readouterr().out
    assert main(["labels", "--help"]) == 0
    assert "Change the labels of a published model." in capsys.readouterr().out


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name in main_module._COMMANDS:
        assert name in out


def test_the_version_is_the_distributions(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_logs_go_to_standard_error_from_the_level_that_was_asked_for(raising, capsys):
    raising(None)
    main(["--log-level", "warning", *RUN_QUERY])
    logging.getLogger("motherlode.part").info("quiet")
    logging.getLogger("motherlode.part").warning("loud")
    out, err = capsys.readouterr()
    assert out == ""
    assert "quiet" not in err
    assert "WARNING motherlode.part: loud" in err


def test_the_log_level_may_come_from_the_environment(raising, capsys, monkeypatch):
    monkeypatch.setenv("MOTHERLODE_LOG_LEVEL", "debug")
    raising(None)
    main(RUN_QUERY)
    logging.getLogger("motherlode.part").debug("detail")
    logging.getLogger("other").info("chatter")
    err = capsys.readouterr().err
    assert "detail" in err
    assert "chatter" not in err


def test_the_log_may_be_json_by_a_flag_or_a_variable(raising, capsys, monkeypatch):
    raising(None)
    main(["--log-format", "json", *RUN_QUERY])
    logging.getLogger("motherlode.part").warning("one")
    monkeypatch.setenv("MOTHERLODE_LOG_FORMAT", "json")
    main(RUN_QUERY)
    logging.getLogger("motherlode.part").warning("two")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "two"]


def test_a_reader_that_has_gone_ends_the_command_quietly():
    code = (
        "import sys; from motherlode.cli import main, output;"
        "main._run = lambda call: output.print_line('x' * 100) or 0;"
        "sys.exit(main.main([]))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 141
    assert done.stderr == b""


def test_output_that_the_terminal_cannot_show_is_escaped():
    code = "from motherlode.cli.main import main; main(['--version']); print('東')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.endswith(b"\\u6771\n")
