"""Every benchmark, one after another; the tables go to standard output.

The first trains the models that the others ask. Nothing else should run meanwhile.

Usage: python benchmarks/run.py [--debian FOLDER] [--scratch FOLDER]
       (the folder holds the debian set as train, test and labels; left out where it is not given)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from motherlode.trainer.data import make_geonames

HERE = Path(__file__).parent


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--debian", type=Path)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        run_all(Path(scratch), options.debian)


def run_all(scratch: Path, debian: Path | None) -> None:
    """Run all of them below a scratch folder."""
    data, repository = scratch / "geonames", scratch / "repository"
    make_geonames("cities15000", data)
    recipes = [f"geonames={data}", *([f"debian={debian}"] if debian else [])]
    run("quality.py", "--repository", repository, *recipes)
    run("training_cost.py")
    run("many_labels.py")
    if debian:
        run("step.py", "debian", debian, "--set", "loop.matmul=float32")
        run("step.py", "debian", debian, "--set", "loop.matmul=bfloat16")
    run("features.py", data)
    run("index.py")
    run("serving.py", repository, "geonames")
    run("overload.py", repository, "geonames")
    run("gated_reload.py", repository, "geonames", "--swaps", 100, "--faults")
    run("floor.py", "--repository", scratch / "clustered")
    run("scoring.py", repository, "geonames", data / "test.jsonl.gz")


def run(script: str, *arguments: object) -> None:
    """Run one of them; the others go on if it fails."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        print(f"\n{script} failed", flush=True)


if __name__ == "__main__":
    main()
