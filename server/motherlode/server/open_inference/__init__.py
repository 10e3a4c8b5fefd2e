"""The Open Inference Protocol (KServe v2), for clients and load tools that speak nothing else."""

from __future__ import annotations

from motherlode.server.open_inference.repository import RepositoryControl
from motherlode.server.open_inference.servicer import InferenceServicer, refuse_other_methods

__all__ = ["InferenceServicer", "RepositoryControl", "refuse_other_methods"]
