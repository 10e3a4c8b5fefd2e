"""Hot reloads under load, some of them of versions that must not serve: failures, latency, memory.

Usage: python benchmarks/gated_reload.py REPOSITORY MODEL [--swaps 100] [--turns 10] [--faults]
       [--rate 200] [--set NAME=VALUE ...]

The model's newest version is published again and again, as links to the same files, in a repository
of its own beside the given one; with --faults every third version is a bad one, of six kinds in
turn. Calls are due at fixed times, whether or not earlier ones were answered, and their latency
counts from then. Calm and swaps take turns, so that both see the same machine: figures are medians
over the turns. That each answer is wholly of one version is a test's business
(tests/e2e/test_server_reload.py).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from faults import FAULTS, Outcome, publish
from machine import print_result
from served import Served, label_texts, serve

from motherlode.clients import AdminClient, AsyncClient, ClientError
from motherlode.core.repository import Repository
from motherlode.server.priority import lower_priority

K = 10
CALM_S = 4.0
SETTLE_S = 1.0
POLL_S = 0.05
TIMEOUT_S = 60.0


class Traffic:
    """Calls at fixed times."""

    def __init__(self, client: AsyncClient, texts: list[str], rate: float) -> None:
        self.durations: list[float] = []
        self.failures: list[str] = []
        self._client = client
        self._texts = cycle(texts)
        self._interval_s = 1 / rate
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Asks until cancelled."""
        due = time.perf_counter()
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            call = asyncio.create_task(self._ask(next(self._texts), due))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            due += self._interval_s

    async def finish(self) -> None:
        """Waits for the last answers."""
        await asyncio.gather(*self._calls)

    def take(self) -> list[float]:
        """Durations since the last time, in seconds."""
        taken, self.durations = self.durations, []
        return taken

    async def _ask(self, text: str, due: float) -> None:
        try:
            await self._client.top_k([text], K)
        except ClientError as error:
            self.failures.append(str(error))
        self.durations.append(time.perf_counter() - due)


class Publisher:
    """Publishes versions one after another, and waits for what the server makes of each.

    Belongs into a process of its own and of low priority, so that calls go out in time and what
    they feel is the server's work, not the publisher's.
    """

    def __init__(self, bundle: Path, repository: Path, model: str, admin: str) -> None:
        self._bundle = bundle
        self._repository = Repository(repository)
        self._model = model
        self._admin = AdminClient(admin)
        self._version = 1
        self._faults = cycle(FAULTS)
        self._outcomes: Counter[str] = Counter()

    def run(self, num_versions: int, *, has_faults: bool) -> Counter[str]:
        """Publishes so many versions, every third of them a bad one if there are faults.

        Returns:
            What came of all bad ones so far.
        """
        for _ in range(num_versions):
            self._version += 1
            target = self._repository.path_of(self._model, self._version)
            if has_faults and self._version % 3 == 0:
                fault = next(self._faults)
                outcome = fault(self._bundle, target)
                self._outcomes[f"{fault.__name__} {outcome}"] += 1
            else:
                publish(self._bundle, target)
                outcome = "served"
            self._wait(outcome)
        return self._outcomes

    def _wait(self, outcome: Outcome) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while outcome != "ignored" and self._state() != outcome:
            assert time.monotonic() < deadline, f"version {self._version} was never {outcome}"
            time.sleep(POLL_S)

    def _state(self) -> str:
        [model] = self._admin.list_models()
        if model.serving_version == self._version:
            return "served"
        states = {version.version: version.state for version in model.versions}
        return "refused" if states.get(self._version) == "failed" else ""


class PublisherProcess:
    """The process of a publisher."""

    _publisher: ClassVar[Publisher]

    def __init__(self, *place: Any) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), self._start, place)

    async def run(self, num_versions: int, *, has_faults: bool) -> Counter[str]:
        """See `Publisher.run`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._run, num_versions, has_faults)

    def close(self) -> None:
        """Ends it."""
        self._pool.shutdown()

    @classmethod
    def _start(cls, *place: Any) -> None:
        lower_priority()
        cls._publisher = Publisher(*place)

    @classmethod
    def _run(cls, num_versions: int, has_faults: bool) -> Counter[str]:
        return cls._publisher.run(num_versions, has_faults=has_faults)


def main() -> None:
    """Reload a model."""
    options = parse()
    version = Repository(options.repository).resolve(options.model)
    # Beside the source, since links do not span file systems.
    with tempfile.TemporaryDirectory(dir=options.repository.absolute().parent) as folder:
        bundle = Repository(options.repository).path_of(options.model, version)
        target = Repository(Path(folder)).path_of(options.model, 1)
        target.parent.mkdir()
        publish(bundle, target)
        texts = label_texts(options.repository, options.model, version, 500)
        settings = ["reload_interval_s=0.1", *options.settings]
        with serve(Path(folder), options.model, *settings) as served:
            publisher = PublisherProcess(bundle, Path(folder), options.model, served.admin)
            asyncio.run(measure(served, publisher, texts, options))
            publisher.close()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--swaps", type=int, default=100, help="versions to publish")
    parser.add_argument("--turns", type=int, default=10, help="of calm and of swaps")
    parser.add_argument("--faults", action="store_true", help="make every third a bad one")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    return parser.parse_args()


async def measure(
    served: Served, publisher: PublisherProcess, texts: list[str], options: argparse.Namespace
) -> None:
    """Ask in calm and during swaps, in turns; print both."""
    calm: list[list[float]] = []
    swapping: list[list[float]] = []
    async with AsyncClient(served.address) as client:
        traffic = Traffic(client, texts, options.rate)
        asking = asyncio.create_task(traffic.run())
        # The first swap fills the place of the version that is kept.
        outcomes = await publisher.run(1, has_faults=False)
        await settle(traffic)
        memory_before = served.memory_mib()
        for _ in range(options.turns):
            await asyncio.sleep(CALM_S)
            calm.append(traffic.take())
            versions = options.swaps // options.turns
            outcomes = await publisher.run(versions, has_faults=options.faults)
            swapping.append(traffic.take())
            await settle(traffic)
        memory_after = served.memory_mib()
        asking.cancel()
        await traffic.finish()
    rows = [[*row("calm", calm), memory_before], [*row("swaps", swapping), memory_after]]
    columns = ["", "calls", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "memory MiB"]
    print_result(f"hot reload, {options.rate:g} calls/s, k = {K}", columns, rows)
    print(f"\nfaults: {dict(outcomes) or 'none'}")
    print(f"failed calls: {len(traffic.failures)} {traffic.failures[:3]}")


async def settle(traffic: Traffic) -> None:
    """Waits until what was swapped out has gone."""
    await asyncio.sleep(SETTLE_S)
    traffic.take()


def row(name: str, turns: list[list[float]]) -> list[object]:
    """Percentiles, each the median of those of the turns, and the worst of all."""
    calls = sum(map(len, turns))
    times = np.median([np.percentile(turn, [50, 99, 99.9]) for turn in turns], axis=0)
    return [name, calls, *np.round(1e3 * times, 2).tolist(), round(1e3 * max(map(max, turns)), 1)]


if __name__ == "__main__":
    main()
