"""Who may call which method: the one table."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Role(Enum):
    """What a key is good for. An admin may do all that a reader may."""

    READ = "read"
    ADMIN = "admin"


def _methods(service: str, *names: str) -> tuple[str, ...]:
    return tuple(f"/{service}/{name}" for name in names)


# What load balancers and orchestrators ask, who have no key.
OPEN: Final = frozenset(_methods("grpc.health.v1.Health", "Check", "Watch"))

READ: Final = frozenset(
    (
        *_methods("motherlode.v1.RetrievalService", "TopK", "TopKStream", "GetServerInfo"),
        *_methods(
            "inference.GRPCInferenceService",
            "ServerLive",
            "ServerReady",
            "ServerMetadata",
            "ModelReady",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "ModelInfer",
            "ModelStreamInfer",
            "RepositoryIndex",
            "SystemSharedMemoryStatus",
            "CudaSharedMemoryStatus",
        ),
        # It names every model, as Check and Watch do not.
        *_methods("grpc.health.v1.Health", "List"),
        *_methods("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo"),
        *_methods("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"),
    )
)

# To say so changes nothing, as every method that is not named above needs this role. It shows that
# somebody thought of them: a test finds methods that stand nowhere.
ADMIN: Final = frozenset(
    _methods(
        "inference.GRPCInferenceService",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    )
)
ADMIN_SERVICES: Final = frozenset({"motherlode.v1.ModelAdminService", "grpc.channelz.v1.Channelz"})


def role_for(method: str) -> Role | None:
    """The role that a method needs, by its full name `/SERVICE/METHOD`; None for everyone's."""
    if method in READ:
        return Role.READ
    return None if method in OPEN else Role.ADMIN
