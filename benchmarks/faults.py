"""Ways in which a new version goes wrong on its way to a server, one after another.

Each takes the folder of a sound bundle and a folder beside the version to be: it returns what the
server must make of it. What is changed is copied first, since the sound files are shared by links.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from motherlode.core.bundle import read_bundle
from motherlode.core.golden import Golden
from motherlode.core.index import build_index
from motherlode.core.manifest import (
    EMBEDDINGS_FILE,
    GOLDEN_FILE,
    INDEX_FILE,
    LABELS_FILE,
    MANIFEST_FILE,
    FileEntry,
    bundle_digest,
    list_files,
    read_manifest,
)
from motherlode.core.topk import TopK

Outcome = Literal["refused", "served", "ignored"]
Fault = Callable[[Path, Path], Outcome]

_SLOW_COPY_S = 2.0


def publish(bundle: Path, target: Path, spoil: Callable[[Path], None] | None = None) -> None:
    """Makes a version appear at once, as the publisher does: links to the files of a bundle."""
    staging = target.with_name(".staging")
    shutil.copytree(bundle, staging, copy_function=os.link)
    if spoil is not None:
        spoil(staging)
    staging.rename(target)


def truncated_file(bundle: Path, target: Path) -> Outcome:
    """A file ends in the middle."""
    publish(bundle, target, lambda folder: os.truncate(own(folder / LABELS_FILE), 1000))
    return "refused"


def wrong_hash(bundle: Path, target: Path) -> Outcome:
    """One bit of the label embeddings is another."""

    def flip(folder: Path) -> None:
        with own(folder / EMBEDDINGS_FILE).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    publish(bundle, target, flip)
    return "refused"


def wrong_index(bundle: Path, target: Path) -> Outcome:
    """The index is that of other label embeddings, and the manifest agrees with it."""
    sound = read_bundle(bundle, verify=False)
    few_LD = np.ascontiguousarray(sound.labels_LD[: min(2000, len(sound.labels_LD))])
    index = build_index(sound.index.config, few_LD, seed=1)

    def swap(folder: Path) -> None:
        (folder / INDEX_FILE).unlink()
        index.save(folder / INDEX_FILE)
        forge(folder)

    publish(bundle, target, swap)
    return "refused"


def failing_golden(bundle: Path, target: Path) -> Outcome:
    """The golden queries expect other answers, and the manifest agrees."""

    def change(folder: Path) -> None:
        golden = Golden.load(folder / GOLDEN_FILE)
        top = TopK(golden.top.labels, golden.top.scores + np.float32(1), golden.top.counts)
        replace(golden, top=top).save(own(folder / GOLDEN_FILE))
        forge(folder)

    publish(bundle, target, change)
    return "refused"


def slow_disk(bundle: Path, target: Path) -> Outcome:
    """A copy into the place itself that takes long, manifest first; whole in the end."""
    target.mkdir()
    shutil.copy(bundle / MANIFEST_FILE, target)
    names = sorted(list_files(bundle))
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        os.link(bundle / name, target / name)
        time.sleep(_SLOW_COPY_S / len(names))
    return "served"


def killed_publisher(bundle: Path, target: Path) -> Outcome:
    """The publisher is killed when it has claimed its number and written half of its files."""
    target.mkdir()
    half = sorted(list_files(bundle))[::2]
    script = 'mkdir "$2"; for name in $3; do cp "$1/$name" "$2"; done; echo done; exec sleep 60'
    staging = target.with_name(f".staging-{target.name}")
    command = ["sh", "-c", script, "sh", str(bundle), str(staging), " ".join(half)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as publisher:
        assert publisher.stdout is not None
        publisher.stdout.readline()
        publisher.send_signal(signal.SIGKILL)
    return "ignored"


FAULTS: tuple[Fault, ...] = (
    truncated_file,
    wrong_hash,
    wrong_index,
    failing_golden,
    slow_disk,
    killed_publisher,
)


def own(path: Path) -> Path:
    """The file as a copy, no longer shared with other versions."""
    copy = path.with_name(f".{path.name}")
    shutil.copy(path, copy)
    copy.rename(path)
    return path


def forge(folder: Path) -> None:
    """Makes the manifest agree with the files that lie in a folder now."""
    manifest = read_manifest(folder)
    files = {name: FileEntry.of(folder / name) for name in manifest.files}
    own(folder / MANIFEST_FILE)
    digest = bundle_digest(files, manifest.stages)
    manifest.model_copy(update={"files": files, "digest": digest}).save(folder)
