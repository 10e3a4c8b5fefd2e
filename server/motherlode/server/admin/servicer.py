"""The RPCs of `motherlode.v1.ModelAdminService`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar, final

import grpc
from typing_extensions import override

from motherlode.core.errors import BundleError
from motherlode.server.admin.operations import Operations
from motherlode.server.admin.wire import figure_message, model_status
from motherlode.server.failure import RepositoryUnusableError
from motherlode.server.slot import Catalog, Slot
from motherlode.server.status import abort, code_of
from motherlode.server.watcher import Watcher
from motherlode.v1 import model_admin_pb2 as pb
from motherlode.v1 import model_admin_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = "motherlode.v1.ModelAdminService"

_Result = TypeVar("_Result")


@final
class AdminServicer(model_admin_pb2_grpc.ModelAdminServiceServicer):
    """Finds the model, has the operation done, and tells how the model stands then."""

    def __init__(self, catalog: Catalog, watcher: Watcher, operations: Operations) -> None:
        self._catalog = catalog
        self._watcher = watcher
        self._operations = operations
        # Held here, for the event loop does not.
        self._under_way: set[asyncio.Task[Any]] = set()

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
        await self._done(self._operations.load(slot, request.version), context)
        return pb.LoadVersionResponse(model=self._status(slot))

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
        figures = await self._done(self._operations.validate(slot, request.version), context)
        return pb.ValidateVersionResponse(figures=map(figure_message, figures))

    @override
    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.SetAliasResponse:
        slot = await self._find(request.model, context)
        if request.version:
            work = self._operations.set_alias(slot, request.alias, request.version)
        else:
            work = self._operations.remove_alias(slot, request.alias)
        await self._done(work, context)
        return pb.SetAliasResponse(model=self._status(slot))

    @override
    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.RollbackResponse:
        slot = await self._find(request.model, context)
        await self._done(self._operations.roll_back(slot, request.version or None), context)
        return pb.RollbackResponse(model=self._status(slot))

    @override
    async def SetCanary(self, request: pb.SetCanaryRequest, context: Any) -> pb.SetCanaryResponse:
        slot = await self._find(request.model, context)
        if request.version:
            work = self._operations.set_canary(slot, request.version, request.percent)
        else:
            work = self._operations.end_canary(slot)
        await self._done(work, context)
        return pb.SetCanaryResponse(model=self._status(slot))

    async def _find(self, model: str, context: Any) -> Slot:
        try:
            return self._catalog.find(model)
        except Exception as error:
            await abort(context, error)

    def _status(self, slot: Slot) -> pb.ModelStatus:
        return model_status(slot, self._watcher)

    async def _done(self, work: Coroutine[Any, Any, _Result], context: Any) -> _Result:
        """What the work gives; an error of it ends the call.

        The work goes on where the caller gives up: half of it done would be the worst outcome.
        """
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                logger.warning("nobody waits for an operation any more; it goes on")
                task.add_done_callback(_tell_outcome)
            raise
        except (BundleError, OSError) as error:
            await abort(context, RepositoryUnusableError(str(error)))
        except Exception as error:
            if code_of(error) is grpc.StatusCode.INTERNAL:
                logger.error("an operation failed", exc_info=error)
            await abort(context, error)


def _tell_outcome(task: asyncio.Task[Any]) -> None:
    """Of an operation that nobody waits for."""
    if task.cancelled():
        logger.warning("an operation that nobody waited for was cut off")
    elif error := task.exception():
        logger.error("an operation that nobody waited for failed: %s", error)
    else:
        logger.info("an operation that nobody waited for is done")
