"""Triton's extension "model_repository": to load and unload models, over the admin port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from motherlode.core.errors import InvalidInputError
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.admin import Operations, UnderWay
from motherlode.server.slot import Catalog

_LoadRequest = pb.RepositoryModelLoadRequest
_UnloadRequest = pb.RepositoryModelUnloadRequest

# Clients send it with every request; no model here depends on another.
_HARMLESS = "unload_dependents"
_VERSION = "version"


@final
class RepositoryControl:
    """Has models loaded and unloaded by the operations that `ModelAdminService` has too."""

    def __init__(self, catalog: Catalog, operations: Operations, under_way: UnderWay) -> None:
        self._catalog = catalog
        self._operations = operations
        self._under_way = under_way

    async def load(self, request: _LoadRequest, context: Any) -> None:
        """Has a model serve what it should, and the version that the request names, if it does.

        Raises:
            InvalidInputError: If there is another parameter, or no model is named.
            NotFoundError: If the server has no model but must guess which.
        """
        check_repository(request.repository_name)
        _check_parameters(request.parameters, [_VERSION])
        version = _version_of(request)
        await self._under_way.complete(self._load(self._model_of(request), version), context)

    async def unload(self, request: _UnloadRequest, context: Any) -> None:
        """Lets a model go.

        Raises:
            InvalidInputError: If there is a parameter that would have no effect.
            NotFoundError: If the server has no such model.
        """
        check_repository(request.repository_name)
        _check_parameters(request.parameters, [_HARMLESS])
        slot = self._catalog.find(request.model_name)
        await self._under_way.complete(self._operations.unload_model(slot), context)

    async def _load(self, model: str, version: int | None) -> None:
        slot = await self._operations.load_model(model)
        if version is not None:
            await self._operations.load(slot, version)

    def _model_of(self, request: _LoadRequest) -> str:
        """The name: that of a model which the server has not seen yet is as good."""
        return request.model_name or self._catalog.find("").model


def check_repository(name: str) -> None:
    """Refuses the name of a repository.

    Raises:
        InvalidInputError: If there is one.
    """
    if name:
        expected = "no name, as there is one repository"
        raise InvalidInputError("repository_name", expected=expected, actual=name)


def _check_parameters(names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            expected = f"none but {', '.join(known)}: a model is what was published"
            raise InvalidInputError("parameters", expected=expected, actual=name)


def _version_of(request: _LoadRequest) -> int | None:
    if _VERSION not in request.parameters:
        return None
    parameter = request.parameters[_VERSION]
    choice = parameter.WhichOneof("parameter_choice")
    if choice != "int64_param":
        raise InvalidInputError(f"parameters.{_VERSION}", expected="int64_param", actual=choice)
    return parameter.int64_param
