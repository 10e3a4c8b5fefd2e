"""The RPCs of `motherlode.v1.ModelAdminService`."""

from __future__ import annotations

from typing import Any, final

from typing_extensions import override

from motherlode.server.admin.operations import Operations
from motherlode.server.admin.under_way import UnderWay
from motherlode.server.admin.wire import figure_message, model_status
from motherlode.server.slot import Catalog, Slot
from motherlode.server.status import abort
from motherlode.server.watcher import Watcher
from motherlode.v1 import model_admin_pb2 as pb
from motherlode.v1 import model_admin_pb2_grpc

SERVICE = "motherlode.v1.ModelAdminService"


@final
class AdminServicer(model_admin_pb2_grpc.ModelAdminServiceServicer):
    """Finds the model, has the operation done, and tells how the model stands then."""

    def __init__(
        self, catalog: Catalog, watcher: Watcher, operations: Operations, under_way: UnderWay
    ) -> None:
        self._catalog = catalog
        self._watcher = watcher
        self._operations = operations
        self._under_way = under_way

    @override
    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[self._status(slot) for slot in self._catalog])

    @override
    async def LoadVersion(
        self, request: pb.LoadVersionRequest, context: Any
    ) -> pb.LoadVersionResponse:
        slot = await self._find(request.model, context)
        await self._under_way.complete(self._operations.load(slot, request.version), context)
        return pb.LoadVersionResponse(model=self._status(slot))

    @override
    async def LoadModel(self, request: pb.LoadModelRequest, context: Any) -> pb.LoadModelResponse:
        # One that was just put into the repository is not in the catalog yet.
        model = request.model or (await self._find("", context)).model
        slot = await self._under_way.complete(self._operations.load_model(model), context)
        return pb.LoadModelResponse(model=self._status(slot))

    @override
    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Any
    ) -> pb.UnloadModelResponse:
        slot = await self._find(request.model, context)
        await self._under_way.complete(self._operations.unload_model(slot), context)
        return pb.UnloadModelResponse(model=self._status(slot))

    @override
    async def UnloadVersion(
        self, request: pb.UnloadVersionRequest, context: Any
    ) -> pb.UnloadVersionResponse:
        slot = await self._find(request.model, context)
        try:
            self._operations.unload(slot, request.version)
        except Exception as error:
            await abort(context, error)
        return pb.UnloadVersionResponse(model=self._status(slot))

    @override
    async def ValidateVersion(
        self, request: pb.ValidateVersionRequest, context: Any
    ) -> pb.ValidateVersionResponse:
        slot = await self._find(request.model, context)
        figures = await self._under_way.complete(
            self._operations.validate(slot, request.version), context
        )
        return pb.ValidateVersionResponse(figures=map(figure_message, figures))

    @override
    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.SetAliasResponse:
        slot = await self._find(request.model, context)
        if request.version:
            work = self._operations.set_alias(slot, request.alias, request.version)
        else:
            work = self._operations.remove_alias(slot, request.alias)
        await self._under_way.complete(work, context)
        return pb.SetAliasResponse(model=self._status(slot))

    @override
    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.RollbackResponse:
        slot = await self._find(request.model, context)
        await self._under_way.complete(
            self._operations.roll_back(slot, request.version or None), context
        )
        return pb.RollbackResponse(model=self._status(slot))

    @override
    async def SetCanary(self, request: pb.SetCanaryRequest, context: Any) -> pb.SetCanaryResponse:
        slot = await self._find(request.model, context)
        if request.version:
            work = self._operations.set_canary(slot, request.version, request.percent)
        else:
            work = self._operations.end_canary(slot)
        await self._under_way.complete(work, context)
        return pb.SetCanaryResponse(model=self._status(slot))

    async def _find(self, model: str, context: Any) -> Slot:
        try:
            return self._catalog.find(model)
        except Exception as error:
            await abort(context, error)

    def _status(self, slot: Slot) -> pb.ModelStatus:
        return model_status(slot, self._watcher)
