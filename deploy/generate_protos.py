"""Generate the committed protobuf code, or check that it is up to date.

Usage: python deploy/generate_protos.py [--check]
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parents[1] / "protos"
PACKAGES = (Path("motherlode/v1"), Path("motherlode/inference"))


def generate(target: Path) -> None:
    """Write the generated modules of every .proto below `target`."""
    sources = [
        str(path) for package in PACKAGES for path in sorted((ROOT / package).glob("*.proto"))
    ]
    outs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *includes, *outs, *sources]) != 0:
        sys.exit("protoc failed")


def stale_files(fresh: Path) -> list[str]:
    """Names of generated files that differ from the committed ones."""
    return [
        path.name
        for package in PACKAGES
        for path in sorted((fresh / package).iterdir())
        if not (committed := ROOT / package / path.name).exists()
        or committed.read_bytes() != path.read_bytes()
    ]


def main() -> None:
    """Generate in place, or with --check fail where the committed code is stale."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if stale := stale_files(Path(folder)):
            sys.exit(f"stale generated code: {', '.join(stale)}; run `make protos`")


if __name__ == "__main__":
    main()
