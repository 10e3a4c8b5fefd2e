"""The RPCs of `inference.GRPCInferenceService`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, final

import grpc
from typing_extensions import override

from motherlode.core.errors import MotherlodeError, NotFoundError
from motherlode.inference import open_inference_pb2 as pb
from motherlode.inference import open_inference_pb2_grpc
from motherlode.server.config import ServerConfig
from motherlode.server.open_inference.models import (
    index_entries,
    model_config,
    model_metadata,
    model_statistics,
)
from motherlode.server.open_inference.repository import RepositoryControl, check_repository
from motherlode.server.open_inference.wire import (
    MODEL_INFER,
    find_version,
    in_terms_of_tensors,
)
from motherlode.server.reception import Reception
from motherlode.server.slot import Catalog, ServedVersion
from motherlode.server.status import UnimplementedError, abort

_SERVICE = "inference.GRPCInferenceService"
_EXTENSIONS = ("model_configuration", "parameters", "statistics")
_REPOSITORY_EXTENSION = "model_repository"
_FOR_OPERATORS = "is for operators: ask the admin port (the setting `admin`, usually port 8003)"

_NO_SHARED_MEMORY = "tensors are read from messages alone, not from shared memory"
_NO_SETTINGS = "the server's settings do not change while it runs"
_REFUSED = {
    "SystemSharedMemoryStatus": _NO_SHARED_MEMORY,
    "SystemSharedMemoryRegister": _NO_SHARED_MEMORY,
    "SystemSharedMemoryUnregister": _NO_SHARED_MEMORY,
    "CudaSharedMemoryStatus": _NO_SHARED_MEMORY,
    "CudaSharedMemoryRegister": _NO_SHARED_MEMORY,
    "CudaSharedMemoryUnregister": _NO_SHARED_MEMORY,
    "TraceSetting": _NO_SETTINGS,
    "LogSettings": _NO_SETTINGS,
}
_REFUSED_STREAM = "ModelStreamInfer"
_NO_STREAM = "ask with ModelInfer, or with motherlode.v1.RetrievalService/TopKStream"


@final
class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers in tensors, by way of the reception that answers `motherlode.v1` too.

    Args:
        config: The server's settings.
        catalog: What it serves.
        reception: Takes what is inferred.
        control: Loads and unloads models; None where callers are no operators.
    """

    def __init__(
        self,
        config: ServerConfig,
        catalog: Catalog,
        reception: Reception,
        control: RepositoryControl | None = None,
    ) -> None:
        self._control = control
        self._config = config
        self._catalog = catalog
        self._reception = reception
        self._server_version = version("motherlode")

    @override
    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Any
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    @override
    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Any
    ) -> pb.ServerReadyResponse:
        has_model = any(slot.current for slot in self._catalog)
        return pb.ServerReadyResponse(ready=self._reception.refusal is None and has_model)

    @override
    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Any
    ) -> pb.ModelReadyResponse:
        try:
            find_version(request.name, request.version, self._catalog)
        except MotherlodeError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._reception.refusal is None)

    @override
    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Any
    ) -> pb.ServerMetadataResponse:
        more = () if self._control is None else (_REPOSITORY_EXTENSION,)
        return pb.ServerMetadataResponse(
            name="motherlode", version=self._server_version, extensions=(*_EXTENSIONS, *more)
        )

    @override
    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Any
    ) -> pb.ModelMetadataResponse:
        served = await self._find(request.name, request.version, context)
        return model_metadata(self._catalog.find(served.model), served)

    @override
    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Any
    ) -> pb.ModelConfigResponse:
        served = await self._find(request.name, request.version, context)
        return pb.ModelConfigResponse(config=model_config(served, self._config))

    @override
    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Any
    ) -> pb.ModelStatisticsResponse:
        if request.version:
            versions = [await self._find(request.name, request.version, context)]
        elif request.name:
            served = await self._find(request.name, "", context)
            versions = list(self._catalog.find(served.model).loaded)
        else:
            versions = [served for slot in self._catalog for served in slot.loaded]
        return pb.ModelStatisticsResponse(model_stats=map(model_statistics, versions))

    @override
    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Any
    ) -> pb.RepositoryIndexResponse:
        try:
            check_repository(request.repository_name)
        except MotherlodeError as error:
            await abort(context, error)
        models = [
            entry
            for slot in self._catalog
            for entry in index_entries(slot)
            if entry.state == "READY" or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=models)

    @override
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Any
    ) -> pb.RepositoryModelLoadResponse:
        try:
            await self._for_operators("RepositoryModelLoad").load(request, context)
        except MotherlodeError as error:
            await abort(context, in_terms_of_tensors(error))
        return pb.RepositoryModelLoadResponse()

    @override
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Any
    ) -> pb.RepositoryModelUnloadResponse:
        try:
            await self._for_operators("RepositoryModelUnload").unload(request, context)
        except MotherlodeError as error:
            await abort(context, in_terms_of_tensors(error))
        return pb.RepositoryModelUnloadResponse()

    @override
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        try:
            return await self._reception.answer(
                request, MODEL_INFER, "ModelInfer", context.time_remaining(), context.caller
            )
        except Exception as error:
            await abort(context, in_terms_of_tensors(error))

    def _for_operators(self, method: str) -> RepositoryControl:
        if self._control is None:
            raise UnimplementedError(f"{method} {_FOR_OPERATORS}")
        return self._control

    async def _find(self, name: str, version: str, context: Any) -> ServedVersion:
        try:
            return find_version(name, version, self._catalog)
        except NotFoundError as error:
            # Nothing is found before the first look at the repository is over.
            await abort(context, self._reception.refusal or error)
        except MotherlodeError as error:
            await abort(context, in_terms_of_tensors(error))


def refuse_other_methods(server: Any) -> None:
    """Makes an asyncio server say why it does not offer Triton's other methods."""
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_refusing(name, reason))
        for name, reason in _REFUSED.items()
    }
    handlers[_REFUSED_STREAM] = grpc.stream_stream_rpc_method_handler(
        _refusing(_REFUSED_STREAM, _NO_STREAM)
    )
    server.add_registered_method_handlers(_SERVICE, handlers)


def _refusing(name: str, reason: str) -> Callable[[Any, Any], Awaitable[None]]:
    async def refuse(_: Any, context: Any) -> None:
        await abort(context, UnimplementedError(f"{name} is not offered: {reason}"))

    return refuse
