"""Marks of tests that need a real GPU: they skip where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch

from motherlode.core.index.faiss import has_cuvs, num_gpus

_Test = TypeVar("_Test", bound=Callable[..., object])


def needs_torch_gpu(test: _Test) -> _Test:
    """For a test that computes on a GPU by torch."""
    return _needs(test, torch.cuda.is_available(), "needs a GPU that torch sees")


def needs_faiss_gpu(test: _Test) -> _Test:
    """For a test that searches on a GPU by FAISS."""
    return _needs(test, num_gpus() > 0, "needs faiss-gpu and a GPU")


def needs_cuvs(test: _Test) -> _Test:
    """For a test that searches a graph on a GPU by FAISS with cuVS."""
    return _needs(test, has_cuvs() and num_gpus() > 0, "needs faiss-gpu-cuvs and a GPU")


def _needs(test: _Test, is_there: bool, reason: str) -> _Test:
    marked: _Test = pytest.mark.gpu(pytest.mark.skipif(not is_there, reason=reason)(test))
    return marked
