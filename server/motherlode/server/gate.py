"""What a version must do before it serves: answer at every batch size, and answer right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import (
    BundleError,
    GateError,
    MotherlodeError,
    UnsupportedFormatError,
)
from motherlode.core.golden import Golden
from motherlode.core.index.placement import Policy
from motherlode.core.placing import place_bundle
from motherlode.core.queries import Queries, concatenate
from motherlode.core.retriever import Retriever

logger = logging.getLogger(__name__)

Observe = Callable[[str, float], None]


@final
class Loader:
    """Reads, warms and checks versions; runs in a thread of its own.

    Args:
        max_batch: Largest batch to warm up with, in queries.
        observe: Gets the name and the seconds of each phase.
        policy: Whether an index may go to a GPU.
    """

    def __init__(self, *, max_batch: int, observe: Observe, policy: Policy) -> None:
        self._policy = policy
        self._max_batch = max_batch
        self._observe = observe

    def load(self, folder: Path, model: str, version: int) -> Retriever:
        """A version that is fit to serve.

        Raises:
            UnsupportedFormatError: If a newer Motherlode wrote it.
            BundleError: If a part is missing, changed or does not fit.
            GateError: If it does not give its golden answers.
        """
        with self._phase("read"):
            bundle = read_bundle(folder, verify=True)
            bundle, placement = place_bundle(bundle, self._policy)
            logger.info(
                "%s@%d: index on %s: %s",
                model,
                version,
                ", ".join(placement.devices),
                placement.reason,
            )
            retriever = Retriever(bundle, model=model, version=version)
        with self._phase("warmup"):
            self.warm_up(retriever, bundle.golden)
        with self._phase("gate"):
            _check(retriever)
        return retriever

    def warm_up(self, retriever: Retriever, golden: Golden) -> None:
        """Asks at batches of 1, 2, 4, ... queries up to the largest; no caller comes first."""
        size = 1
        while size <= self._max_batch:
            retriever.top_k(_repeat(golden.queries, size), golden.k)
            size *= 2

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._observe(name, time.perf_counter() - started)


def reason_of(error: Exception) -> str:
    """One word for why a load failed, for metrics."""
    match error:
        case UnsupportedFormatError():
            return "unsupported_format"
        case GateError():
            return "gate"
        case BundleError():
            return "bundle"
        case MemoryError():
            return "out_of_memory"
        case OSError():
            return "io"
    return "refused" if isinstance(error, MotherlodeError) else "internal"


def _check(retriever: Retriever) -> None:
    try:
        retriever.check_golden()
    except BundleError as error:
        raise GateError(str(error)) from error


def _repeat(queries: Queries, size: int) -> Queries:
    copies = -(-size // len(queries))
    return concatenate([queries] * copies).rows(0, size)
