"""The server's settings: flags over environment over file over defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from motherlode.core.errors import ConfigError
from motherlode.server.admission import ReloadPolicy

# gRPC's own options are 32-bit numbers.
_LARGEST = 2**31 - 1
# Its times are such numbers of milliseconds.
_LONGEST_S = 2_000_000.0

ENVIRONMENT_PREFIX = "MOTHERLODE_"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 host stands in square brackets, which are kept.

    Raises:
        ValueError: If it is no such address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("HOST:PORT with a port from 0 to 65535 is expected")
    return host, int(port)


def _check_address(address: str) -> str:
    split_address(address)
    return address


def _split_names(value: object) -> object:
    """A comma-separated text, as flags and variables give it, as a list."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


def _check_endpoint(endpoint: str) -> str:
    scheme, _, address = endpoint.partition("://")
    if scheme not in ("http", "https") or not address:
        raise ValueError("http://HOST:PORT or https://HOST:PORT is expected")
    return endpoint


Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
Address = Annotated[str, AfterValidator(_check_address)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_names)]


@final
class ServerConfig(BaseSettings):
    """Everything that can be set of a server.

    Attributes:
        repository: Folder that holds a folder per model.
        models: Models to serve; none named means all that the repository has or will have.
        serve_alias: Serve this alias's version where a model has one; else the newest valid one.
            Empty: always the newest.
        kept_versions: Earlier versions per model that stay loaded, so that requests may name them.
        listen: Address of the gRPC port; port 0 takes a free one.
        admin: Address of the operators' gRPC port; port 0 takes a free one.
        metrics: Address of the Prometheus port; port 0 takes a free one.
        gpu: Whether an index goes to a GPU: where it serves (`auto`), never, or else not at all
            (`require`).
        num_threads: Threads of one encode or search; None takes half of the cores, at least one.
        max_queries_per_call: Most queries of one request.
        max_k: Most labels per query.
        max_text_bytes: Longest text of a query, in UTF-8.
        max_message_bytes: Largest request and largest answer.
        max_queued_queries: Queries that may wait for the engine; more are refused.
        max_queued_bytes: Memory that waiting queries may hold; more are refused.
        max_queue_delay_s: Longest wait that a call may expect when it comes; others are refused. In
            an overload it is 0.4 times as long.
        max_batch_queries: Queries that run together; a call with more runs in parts.
        max_batch_bytes: Memory that a batch may take while it is searched; it is cut to that.
        max_stream_requests: Requests of one stream under way at the same time.
        reload_policy: Whether the serving version may be dropped before a new one is loaded: `auto`
            does it where memory is too small for both, `double_buffer` never, `drain` always.
        memory_limit_bytes: Most memory of all loaded versions together, as their manifests predict
            it; None leaves it to the memory that is free.
        gate_recall_tolerance: By how much a new version's recall may miss that in its manifest.
        gate_latency_factor: How many times as long as the serving version's a new version's batches
            may take; 0 does not compare them.
        canary_percent: Share of the calls that name no version which go to the one that the alias
            `canary` names.
        canary_min_calls: Calls of the canary between two verdicts.
        canary_error_factor: How many times as often as the serving version it may fail.
        canary_latency_factor: How many times as long its median and 99th percentile may be; 0 does
            not compare them.
        max_stream_idle_s: Longest wait for the next request of a stream.
        max_call_s: Longest time for a call, whatever its own deadline.
        max_metadata_bytes: Largest metadata of a call.
        max_connections: Most connections to each gRPC port.
        max_connection_calls: Calls of one connection under way at the same time.
        max_connection_idle_s: Longest life of a connection without a call.
        max_connection_age_s: Longest life of a connection; then its caller is asked for a new one.
        connection_age_grace_s: Time for calls under way on a connection that has become too old.
        keepalive_interval_s: Silence of a connection after which its caller is asked for a sign.
        handshake_timeout_s: Longest time from the opening of a connection until it can be used.
        tls_certificate: PEM file of the server's certificate and those between it and the root.
        tls_key: PEM file of the certificate's private key.
        tls_client_ca: PEM file of the roots of callers' certificates; callers then need one.
        keys_file: TOML file of callers' keys; calls then need one.
        allow_open_admin: Let everyone on other machines reach the admin port.
        reload_interval_s: Time between two looks at the repository, the certificate and the keys.
        recall_sample_rate: Share of the queries that are searched exactly too; 0 for none.
        recall_cpu_share: Share of the time of one core that this may take.
        slow_call_s: Time from which on an answered call is logged; infinity logs none.
        trace_endpoint: Collector of OpenTelemetry, http[s]://HOST:PORT; None sends no traces.
        trace_sample_rate: Share of the calls without a trace of their own that are traced.
        drain_delay_s: Time between the news that the server stops and its refusing of new calls.
        drain_grace_s: Longest wait for calls under way before the server stops regardless.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    repository: Path
    models: Names = ()
    serve_alias: str = "stable"
    kept_versions: int = Field(1, ge=0)
    listen: Address = "127.0.0.1:8001"
    metrics: Address = "127.0.0.1:8002"
    admin: Address = "127.0.0.1:8003"
    gpu: Literal["auto", "never", "require"] = "auto"
    num_threads: int | None = Field(None, ge=1, le=1024)
    max_queries_per_call: int = Field(1024, ge=1, le=_LARGEST)
    max_k: int = Field(1000, ge=1, le=_LARGEST)
    max_text_bytes: int = Field(65_536, ge=1, le=_LARGEST)
    max_message_bytes: int = Field(16 * 2**20, ge=1024, le=_LARGEST)
    max_queued_queries: int = Field(4096, ge=1, le=_LARGEST)
    max_queued_bytes: int = Field(256 * 2**20, ge=1024)
    max_queue_delay_s: float = Field(0.05, gt=0, le=_LONGEST_S)
    max_batch_queries: int = Field(64, ge=1, le=_LARGEST)
    max_batch_bytes: int = Field(256 * 2**20, ge=1024)
    max_stream_requests: int = Field(8, ge=1, le=_LARGEST)
    max_stream_idle_s: float = Field(300.0, gt=0, le=_LONGEST_S)
    max_call_s: float = Field(300.0, gt=0, le=_LONGEST_S)
    max_metadata_bytes: int = Field(16_384, ge=1024, le=2**20)
    max_connections: int = Field(10_000, ge=1, le=_LARGEST)
    max_connection_calls: int = Field(4096, ge=1, le=_LARGEST)
    max_connection_idle_s: float = Field(300.0, gt=0, le=_LONGEST_S)
    max_connection_age_s: float = Field(600.0, gt=0, le=_LONGEST_S)
    connection_age_grace_s: float = Field(30.0, gt=0, le=_LONGEST_S)
    keepalive_interval_s: float = Field(60.0, gt=0, le=_LONGEST_S)
    handshake_timeout_s: float = Field(10.0, gt=0, le=_LONGEST_S)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    keys_file: Path | None = None
    allow_open_admin: bool = False
    reload_interval_s: float = Field(1.0, gt=0)
    reload_policy: ReloadPolicy = "auto"
    memory_limit_bytes: int | None = Field(None, ge=1)
    gate_recall_tolerance: float = Field(0.02, ge=0, le=1)
    gate_latency_factor: float = Field(3.0, ge=0)
    canary_percent: float = Field(0.0, ge=0, le=100)
    canary_min_calls: int = Field(100, ge=1)
    canary_error_factor: float = Field(2.0, ge=1)
    canary_latency_factor: float = Field(2.0, ge=0)
    recall_sample_rate: float = Field(0.001, ge=0, le=1)
    recall_cpu_share: float = Field(0.01, ge=0.0001, le=1)
    slow_call_s: float = Field(1.0, ge=0)
    trace_endpoint: Endpoint | None = None
    trace_sample_rate: float = Field(0.01, ge=0, le=1)
    drain_delay_s: float = Field(0.0, ge=0, le=_LONGEST_S)
    drain_grace_s: float = Field(10.0, ge=0, le=_LONGEST_S)

    @property
    def threads(self) -> int:
        """Threads of one encode or search."""
        # The other half is for the event loop, the loader, and who else lives on the machine.
        return self.num_threads or max(1, len(os.sched_getaffinity(0)) // 2)

    @model_validator(mode="after")
    def _check_queue_holds_a_call(self) -> Self:
        if self.max_queued_queries < self.max_queries_per_call:
            raise ValueError(
                f"max_queued_queries is expected to be at least max_queries_per_call "
                f"({self.max_queries_per_call})"
            )
        return self

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_config` merges the sources, since it alone knows the file.
        return (init_settings,)


def load_config(
    file: Path | None = None, flags: Mapping[str, object] | None = None
) -> ServerConfig:
    """The settings of a TOML file, the environment and flags, each overruling the one before.

    Args:
        file: A flat TOML file of settings by their names.
        flags: Settings given by hand; None values count as not given.

    Raises:
        ConfigError: If the file cannot be read, or a setting is unknown, missing or wrong.
    """
    sources: dict[str, Mapping[str, Any]] = {
        str(file): {} if file is None else _read_toml(file),
        "environment": EnvSettingsSource(ServerConfig)(),
        "flags": {key: value for key, value in (flags or {}).items() if value is not None},
    }
    merged = {key: value for source in sources.values() for key, value in source.items()}
    try:
        return ServerConfig(**merged)
    except ValidationError as error:
        raise _config_error(error, sources) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            str(file), expected="a readable file", actual=error.strerror or error
        ) from error
    except ValueError as error:
        raise ConfigError(str(file), expected="TOML", actual=error) from None


def _config_error(error: ValidationError, sources: Mapping[str, Mapping[str, Any]]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "max_queued_queries"
    origin = [name for name, values in sources.items() if field.partition(".")[0] in values]
    place = f"{origin[-1]}: {field}" if origin else field
    match first["type"]:
        case "missing":
            return ConfigError(place, expected="a value", actual=None)
        case "extra_forbidden":
            known = ", ".join(sorted(ServerConfig.model_fields))
            return ConfigError(place, expected=f"one of {known}", actual=field)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message.removesuffix(" is expected")
    return ConfigError(place, expected=expected, actual=_actual(first["input"], field))


def _actual(value: object, field: str) -> object:
    # An error of the whole model has all settings as its input.
    return value.get(field, "the default") if isinstance(value, dict) else value
