from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core.errors import ConfigError
from motherlode.server.config import load_config, split_address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text('repository = "from-file"\nmax_k = 5\nlisten = "file:1"\n', encoding="utf-8")
    return path


def test_flags_overrule_the_environment_which_overrules_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTHERLODE_MAX_K", "6")
    monkeypatch.setenv("MOTHERLODE_LISTEN", "environment:2")
    config = load_config(file, {"listen": "flag:3"})
    assert (config.repository, config.max_k, config.listen) == (Path("from-file"), 6, "flag:3")
    assert config.max_text_bytes == 65_536


def test_a_flag_of_none_counts_as_not_given(file: Path) -> None:
    assert load_config(file, {"listen": None}).listen == "file:1"


def test_an_empty_variable_counts_as_not_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTHERLODE_MAX_K", "")
    assert load_config(file).max_k == 5


@pytest.mark.parametrize(
    ("value", "models"), [("one", ("one",)), ("one, two,", ("one", "two")), (["a"], ("a",))]
)
def test_models_are_a_list_or_a_text_with_commas(value: object, models: tuple[str, ...]) -> None:
    assert load_config(None, {"repository": "r", "models": value}).models == models


def test_models_from_the_environment_are_a_text_with_commas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOTHERLODE_MODELS", "one,two")
    assert load_config(None, {"repository": "r"}).models == ("one", "two")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "repository: expected a value, got None"),
        ({"max_k": 0}, "flags: max_k: expected greater than or equal to 1, got 0"),
        (
            {"recall_sample_rate": 1.5},
            "flags: recall_sample_rate: expected less than or equal to 1, got 1.5",
        ),
        (
            {"recall_cpu_share": 0},
            "flags: recall_cpu_share: expected greater than or equal to 0.0001, got 0",
        ),
        (
            {"slow_call_s": "nan"},
            "flags: slow_call_s: expected greater than or equal to 0, got 'nan'",
        ),
        (
            {"trace_endpoint": "localhost:4317"},
            r"flags: trace_endpoint: expected http://HOST:PORT or https://HOST:PORT, "
            r"got 'localhost:4317'",
        ),
        (
            {"max_k": 2**31},
            "flags: max_k: expected less than or equal to 2147483647, got 2147483648",
        ),
        ({"max_k": "many"}, "flags: max_k: expected .*integer.*, got 'many'"),
        ({"listen": "8001"}, "flags: listen: expected HOST:PORT.*, got '8001'"),
        ({"metrics": "host:70000"}, "flags: metrics: expected HOST:PORT"),
        ({"reload_interval_s": 0}, "flags: reload_interval_s: expected .*greater than 0, got 0"),
        ({"max_kk": 3}, "flags: max_kk: expected one of .*max_k.*, got 'max_kk'"),
        (
            {"max_queued_queries": 10},
            r"flags: max_queued_queries: expected .*at least max_queries_per_call \(1024\), got 10",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(
    settings: dict[str, object], message: str
) -> None:
    given = settings if not settings else {"repository": "r"} | settings
    with pytest.raises(ConfigError, match=message):
        load_config(None, given)


def test_a_wrong_setting_of_the_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('repository = "r"\nmax_k = -1\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"server\.toml: max_k: expected .*, got -1"):
        load_config(path)


def test_a_wrong_variable_is_named_as_coming_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOTHERLODE_MAX_K", "many")
    with pytest.raises(ConfigError, match=r"environment: max_k: expected .*, got 'many'"):
        load_config(None, {"repository": "r"})


@pytest.mark.parametrize(("content", "expected"), [(None, "a readable file"), ("= 3", "TOML")])
def test_an_unreadable_file_is_an_error_with_its_name(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    path = tmp_path / "server.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"server\.toml: expected {expected}"):
        load_config(path)


def test_threads_are_half_of_the_cores_unless_set() -> None:
    assert load_config(None, {"repository": "r"}).threads >= 1
    assert load_config(None, {"repository": "r", "num_threads": 7}).threads == 7


@pytest.mark.parametrize(
    ("address", "parts"), [("localhost:80", ("localhost", 80)), ("[::]:0", ("[::]", 0))]
)
def test_an_address_is_split_at_its_last_colon(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:x", "host:-1", "host:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)
