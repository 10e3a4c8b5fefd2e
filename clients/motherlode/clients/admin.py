"""The operators' client: what a server does with its models and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, final

from motherlode.clients.channel import Metadata, Tls
from motherlode.clients.steps import check_timeout
from motherlode.clients.transport import BlockingChannel
from motherlode.v1 import model_admin_pb2 as pb
from motherlode.v1 import model_admin_pb2_grpc

__all__ = [
    "AdminClient",
    "CanaryStatus",
    "GateFigure",
    "ModelStatus",
    "VersionState",
    "VersionStatus",
]

VersionState = Literal["unknown", "start", "loading", "available", "retiring", "failed"]

_STATES: dict[int, VersionState] = {
    pb.VERSION_STATE_START: "start",
    pb.VERSION_STATE_LOADING: "loading",
    pb.VERSION_STATE_AVAILABLE: "available",
    pb.VERSION_STATE_RETIRING: "retiring",
    pb.VERSION_STATE_FAILED: "failed",
}


@final
@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What has become of one version.

    Attributes:
        version: Its number.
        state: `start` in the repository; `loading`; `available` to calls; `retiring` after its last
            swap, with calls under way; `failed` at a stage.
        detail: The stage of what is loading; stage and reason of what failed.
        is_serving: Whether it answers calls that name no version.
        aliases: Its aliases, sorted.
        bundle_digest: Of the bundle; empty where it is not in memory.
        ram_bytes: Predicted memory; 0 where it is not in memory.
        answered_calls: Since it was loaded.
        failed_calls: Since it was loaded.
        current_calls: Under way.
    """

    version: int
    state: VersionState
    detail: str
    is_serving: bool
    aliases: tuple[str, ...]
    bundle_digest: str
    ram_bytes: int
    answered_calls: int
    failed_calls: int
    current_calls: int


@final
@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """The version on trial.

    Attributes:
        version: 0 where there is none.
        percent: Its share of the calls that name no version.
        trouble: Why there is none any more, or why it could not be loaded; empty where all is well.
    """

    version: int
    percent: float
    trouble: str


@final
@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model of a server.

    Attributes:
        name: Its name.
        serving_version: 0 where none could be loaded.
        load_error: Why the version that should serve does not; empty where it does.
        aliases: Version of each alias.
        canary: What is on trial.
        versions: Newest first.
        is_unloaded: Whether an operator has let it go.
    """

    name: str
    serving_version: int
    load_error: str
    aliases: dict[str, int]
    canary: CanaryStatus
    versions: tuple[VersionStatus, ...]
    is_unloaded: bool = False


@final
@dataclass(frozen=True, slots=True)
class GateFigure:
    """One thing that a gate measured.

    Attributes:
        name: Such as `recall@10` or `p50_s of 8 queries`.
        value: What came out.
        bound: What it had to be.
        is_least: Whether the bound is the least value; otherwise it is the largest.
    """

    name: str
    value: float
    bound: float
    is_least: bool


@final
class AdminClient:
    """A connection to a server's admin port, for blocking calls from any number of threads.

    Use it as a context manager, or call `close`. Nothing is tried again. Where a server has one
    model, the model may be left empty.

    Args:
        target: `HOST:PORT` of the admin port.
        timeout_s: Seconds that a call may take; a load takes as long as the bundle needs.
        tls: For an encrypted connection; without it the connection is in clear text.
        key: The caller's key, with the role `admin`; without `tls`, to this machine alone.
        metadata: Sent with each call.
        options: gRPC channel options.

    Raises:
        ValueError: If `timeout_s` is not a positive, finite number, or a file of `tls` is not what
            it should be, or the key would leave this machine in clear text.
        OSError: If a file of `tls` cannot be read.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 600.0,
        tls: Tls | None = None,
        key: str | None = None,
        metadata: Metadata = (),
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.target = target
        self._timeout_s = check_timeout(timeout_s)
        # Without the options of `Client`: an operator's calls are for one server, however many the
        # name has.
        self._channel = BlockingChannel(target, options, tls=tls, key=key, metadata=metadata)
        self._stub: Any = model_admin_pb2_grpc.ModelAdminServiceStub(self._channel.channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def list_models(self) -> tuple[ModelStatus, ...]:
        """All models, by name.

        Raises:
            ClientError: See `motherlode.clients.errors`; so do all other calls.
        """
        answer = self._call(self._stub.ListModels, pb.ListModelsRequest())
        return tuple(map(_model_status, answer.models))

    def load_version(self, version: int, model: str = "") -> ModelStatus:
        """Load a version beside the serving one.

        Raises:
            RefusedError: If it does not pass every stage.
        """
        request = pb.LoadVersionRequest(model=model, version=version)
        return _model_status(self._call(self._stub.LoadVersion, request).model)

    def load_model(self, model: str = "") -> ModelStatus:
        """Have a model serve what it should, though it was unloaded or refused before.

        Raises:
            RefusedError: If the version that should serve does not pass every stage.
        """
        request = pb.LoadModelRequest(model=model)
        return _model_status(self._call(self._stub.LoadModel, request).model)

    def unload_model(self, model: str = "") -> ModelStatus:
        """Let all versions of a model go, until it is loaded or the server restarts."""
        request = pb.UnloadModelRequest(model=model)
        return _model_status(self._call(self._stub.UnloadModel, request).model)

    def unload_version(self, version: int, model: str = "") -> ModelStatus:
        """Let a version go that neither serves nor is on trial."""
        request = pb.UnloadVersionRequest(model=model, version=version)
        return _model_status(self._call(self._stub.UnloadVersion, request).model)

    def validate_version(self, version: int, model: str = "") -> tuple[GateFigure, ...]:
        """Take a version through every stage but the swap; gives what was measured.

        Raises:
            RefusedError: If it does not pass.
        """
        request = pb.ValidateVersionRequest(model=model, version=version)
        answer = self._call(self._stub.ValidateVersion, request)
        return tuple(
            GateFigure(figure.name, figure.value, figure.bound, figure.is_least)
            for figure in answer.figures
        )

    def set_alias(self, alias: str, version: int, model: str = "") -> ModelStatus:
        """Make an alias mean a version; the alias that decides what serves swaps it in.

        Raises:
            RefusedError: If the version should serve and does not pass; nothing has changed then.
        """
        request = pb.SetAliasRequest(model=model, alias=alias, version=version)
        return _model_status(self._call(self._stub.SetAlias, request).model)

    def remove_alias(self, alias: str, model: str = "") -> ModelStatus:
        """Remove an alias; without the one that decides what serves, the newest version does."""
        request = pb.SetAliasRequest(model=model, alias=alias)
        return _model_status(self._call(self._stub.SetAlias, request).model)

    def roll_back(self, version: int | None = None, model: str = "") -> ModelStatus:
        """Serve an earlier version and keep to it; by default the one before the serving one.

        Raises:
            RefusedError: If it is not in memory and does not pass every stage.
        """
        request = pb.RollbackRequest(model=model, version=version or 0)
        return _model_status(self._call(self._stub.Rollback, request).model)

    def set_canary(self, version: int, percent: float, model: str = "") -> ModelStatus:
        """Give a version a share of the calls that name none.

        Raises:
            RefusedError: If it does not pass every stage.
        """
        request = pb.SetCanaryRequest(model=model, version=version, percent=percent)
        return _model_status(self._call(self._stub.SetCanary, request).model)

    def end_canary(self, model: str = "") -> ModelStatus:
        """End a trial; the serving version gets all calls again."""
        return _model_status(
            self._call(self._stub.SetCanary, pb.SetCanaryRequest(model=model)).model
        )

    def _call(self, method: Any, request: Any) -> Any:
        return self._channel.call(method, request, self._timeout_s)


def _model_status(message: pb.ModelStatus) -> ModelStatus:
    canary = message.canary
    return ModelStatus(
        name=message.name,
        serving_version=message.serving_version,
        load_error=message.load_error,
        aliases=dict(sorted(message.aliases.items())),
        canary=CanaryStatus(canary.version, canary.percent, canary.trouble),
        versions=tuple(map(_version_status, message.versions)),
        is_unloaded=message.is_unloaded,
    )


def _version_status(message: pb.VersionStatus) -> VersionStatus:
    return VersionStatus(
        version=message.version,
        state=_STATES.get(message.state, "unknown"),
        detail=message.detail,
        is_serving=message.is_serving,
        aliases=tuple(message.aliases),
        bundle_digest=message.bundle_digest,
        ram_bytes=message.ram_bytes,
        answered_calls=message.answered_calls,
        failed_calls=message.failed_calls,
        current_calls=message.current_calls,
    )
