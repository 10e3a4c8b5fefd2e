"""Asks torch and FAISS, in a process of its own: a broken one must not end the diagnosis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from motherlode.cli.diagnosis.facts import Gpu, LibraryFacts

__all__ = ["libraries_of", "probe_libraries"]

_TIMEOUT_S = 120.0
_SHOWN_CHARACTERS = 300


def probe_libraries() -> LibraryFacts:
    """What torch and FAISS say of themselves once both are imported."""
    command = [sys.executable, "-m", "motherlode.cli.diagnosis.probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return LibraryFacts(crash=f"no end within {_TIMEOUT_S:.0f} s")
    if done.returncode:
        return LibraryFacts(crash=_cause(done.returncode, done.stderr))
    # Whatever the libraries print of their own accord comes before it.
    return libraries_of(json.loads(done.stdout.splitlines()[-1]))


def libraries_of(document: dict[str, Any]) -> LibraryFacts:
    """The facts of a JSON document, whose lists become tuples."""
    gpus = tuple(
        Gpu(name=name, capability=(major, minor)) for name, (major, minor) in document.pop("gpus")
    )
    lists = {name: tuple(value) for name, value in document.items() if isinstance(value, list)}
    return LibraryFacts(**document | lists, gpus=gpus)


def _cause(status: int, errors: str) -> str:
    ended = f"exit status {status}" if status > 0 else signal.Signals(-status).name
    told = " ".join(errors.split())[-_SHOWN_CHARACTERS:]
    return f"{ended}: {told}" if told else ended
