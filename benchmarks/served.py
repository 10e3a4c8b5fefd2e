"""A server process for the benchmarks, and queries to ask it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motherlode.core.labels import LabelTable
from motherlode.core.repository import Repository


@dataclass(frozen=True)
class Served:
    """A running server."""

    address: str
    metrics: str
    admin: str
    pid: int
    version: int

    def answered(self) -> int:
        """Requests answered so far, by all versions still loaded."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            text = page.read().decode()
        return int(sum(map(float, re.findall(r'requests_total\{code="OK".*\} (.+)', text))))

    def memory_mib(self) -> int:
        """Memory of the process that no file backs."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        [kib] = re.findall(r"RssAnon:\s+(\d+)", status)
        return int(kib) // 1024


@contextmanager
def serve(repository: Path, model: str, *settings: str) -> Iterator[Served]:
    """Serves one model on free ports and stops at the end; `settings` are NAME=VALUE."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder, "ready.json")
        command = [sys.executable, "-m", "motherlode.cli.main", "serve"]
        command += ["--repository", str(repository), "--model", model, "--ready-file", str(ready)]
        command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        command += [word for setting in settings for word in ("--set", setting)]
        log = Path(folder, "log")
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stderr=sink)
        try:
            _wait_ready(process, ready, log)
            document = json.loads(ready.read_text("utf-8"))
            version = document["models"][model]
            addresses = (document[port] for port in ("listen", "metrics", "admin"))
            yield Served(*addresses, document["pid"], version)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
    while not ready.exists():
        if process.poll() is not None:
            sys.exit(f"the server did not start:\n{log.read_text('utf-8')}")
        time.sleep(0.05)


def label_texts(repository: Path, model: str, version: int, number: int) -> list[str]:
    """Texts of labels drawn at random: queries that the model knows something of."""
    path = Repository(repository).path_of(model, version) / "labels.arrow"
    labels = LabelTable.load(path)
    rows = np.random.default_rng(0).choice(len(labels), min(number, len(labels)), replace=False)
    return labels.texts_of(rows)
