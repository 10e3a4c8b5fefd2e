"""Twenty hot reloads under load: calls that fail, latency meanwhile, and memory before and after.

Usage: python benchmarks/reload.py REPOSITORY MODEL

The model's newest version is published again and again, as links to the same files, in a repository
of its own beside the given one. That each answer is wholly of one version is a test's business
(tests/e2e/test_server_reload.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import print_result
from served import Served, label_texts, serve

from motherlode.clients import AsyncClient, ClientError
from motherlode.core.repository import Repository

K = 10
NUM_CALLERS = 8
NUM_SWAPS = 20
CALM_S = 5.0


class Traffic:
    """Callers who keep asking."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.durations: list[float] = []
        self.failures: list[str] = []
        self._version = 0
        self._newer = asyncio.Condition()

    async def ask(self, client: AsyncClient) -> None:
        """Asks until cancelled."""
        while True:
            for text in self.texts:
                started = time.perf_counter()
                try:
                    await self._see((await client.top_k([text], K)).version)
                except ClientError as error:
                    self.failures.append(str(error))
                self.durations.append(time.perf_counter() - started)

    async def wait_for(self, version: int) -> None:
        """Returns when an answer came from this version or a newer one."""
        async with self._newer:
            await self._newer.wait_for(lambda: self._version >= version)

    async def _see(self, version: int) -> None:
        if version > self._version:
            async with self._newer:
                self._version = version
                self._newer.notify_all()

    def take(self) -> list[float]:
        """Durations since the last time, in seconds."""
        taken, self.durations = self.durations, []
        return taken


def main() -> None:
    """Reload the newest version of a model."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, model = Path(sys.argv[1]), sys.argv[2]
    version = Repository(source).resolve(model)
    # Beside the source, since links do not span file systems.
    with tempfile.TemporaryDirectory(dir=source.absolute().parent) as folder:
        bundle = Repository(source).path_of(model, version)
        publish_link(bundle, Path(folder), model, 1)
        texts = label_texts(source, model, version, 500)
        with serve(Path(folder), model, "reload_interval_s=0.1") as served:
            asyncio.run(
                measure(served, texts, lambda n: publish_link(bundle, Path(folder), model, n))
            )


def publish_link(bundle: Path, repository: Path, model: str, version: int) -> None:
    """Makes a version appear at once, as the publisher does."""
    target = Repository(repository).path_of(model, version)
    staging = target.with_name(".staging")
    shutil.copytree(bundle, staging, copy_function=os.link)
    staging.rename(target)


async def measure(served: Served, texts: list[str], publish: Callable[[int], None]) -> None:
    """Ask in calm, then during the swaps; print both."""
    traffic = Traffic(texts)
    async with AsyncClient(served.address) as client:
        callers = [asyncio.create_task(traffic.ask(client)) for _ in range(NUM_CALLERS)]
        await asyncio.sleep(CALM_S)
        calm, memory_before = traffic.take(), served.memory_mib()
        started = time.perf_counter()
        for version in range(2, NUM_SWAPS + 2):
            publish(version)
            await traffic.wait_for(version)
        swaps_s, swapping = time.perf_counter() - started, traffic.take()
        await asyncio.sleep(CALM_S)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    report(calm, swapping, len(traffic.failures), (memory_before, served.memory_mib()))
    print(f"\n{NUM_SWAPS} swaps in {swaps_s:.1f} s; failures: {traffic.failures[:3] or 'none'}")


def report(
    calm: list[float], swapping: list[float], num_failed: int, memory: tuple[int, int]
) -> None:
    """Print the table."""
    rows: list[list[object]] = []
    for name, durations, failed, mib in (
        ("calm", calm, 0, memory[0]),
        (f"{NUM_SWAPS} swaps", swapping, num_failed, memory[1]),
    ):
        p50, p99, worst = np.percentile(durations, [50, 99, 100]) * 1e3
        times = [round(p50, 2), round(p99, 2), round(worst, 1)]
        rows.append([name, len(durations), failed, *times, mib])
    columns = ["", "calls", "failed", "p50 ms", "p99 ms", "max ms", "memory after, MiB"]
    print_result(f"hot reload, {NUM_CALLERS} callers, k = {K}", columns, rows)


if __name__ == "__main__":
    main()
