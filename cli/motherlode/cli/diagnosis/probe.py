"""The program that `probing` runs: imports torch and FAISS and prints one line of JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

__all__ = ["main"]

_OPENMP = re.compile(r"lib(gomp|iomp5|omp)[-.0-9a-z]*\.so")
_CUDA_RUNTIME = re.compile(r"libcudart[-.0-9a-z]*\.so")


def main() -> None:
    """Print what there is to say of both."""
    document: dict[str, Any] = {"gpus": []}
    for name, look in (("torch", _look_at_torch), ("faiss", _look_at_faiss)):
        document[f"{name}_error"] = _attempt(look, document)
    loaded = sorted(_loaded_libraries())
    document["openmp"] = [path for path in loaded if _OPENMP.match(PurePath(path).name)]
    document["cuda_runtimes"] = [p for p in loaded if _CUDA_RUNTIME.match(PurePath(p).name)]
    sys.stdout.write(f"{json.dumps(document)}\n")


def _attempt(look: Callable[[dict[str, Any]], None], document: dict[str, Any]) -> str | None:
    """Why a library cannot be looked at; None if it can."""
    try:
        look(document)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _look_at_torch(document: dict[str, Any]) -> None:
    import torch  # noqa: PLC0415

    document["torch_version"] = str(torch.__version__)
    document["torch_cuda"] = torch.version.cuda
    document["torch_threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        document["torch_arches"] = torch.cuda.get_arch_list()
        document["gpus"] = [
            (torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i))
            for i in range(torch.cuda.device_count())
        ]


def _look_at_faiss(document: dict[str, Any]) -> None:
    from motherlode.core.index import faiss  # noqa: PLC0415

    document["faiss_version"] = faiss.FAISS_VERSION
    document["faiss_options"] = faiss.build_options()
    document["faiss_threads"] = faiss.max_openmp_threads()
    document["faiss_has_gpu"] = faiss.has_gpu_build()
    document["faiss_gpus"] = faiss.num_gpus()


def _loaded_libraries() -> Iterator[str]:
    """Paths of the files that are mapped into this process; none but on Linux."""
    maps = Path("/proc/self/maps")
    if maps.exists():
        fields = (line.split(maxsplit=5) for line in maps.read_text("utf-8").splitlines())
        yield from {parts[5] for parts in fields if len(parts) == 6}


if __name__ == "__main__":
    main()
