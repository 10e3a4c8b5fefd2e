"""Checks of GPUs against the builds of torch and FAISS. A machine without one is no fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from motherlode.cli.diagnosis.facts import Facts, Gpu
from motherlode.cli.diagnosis.finding import Finding

__all__ = [
    "check_cuda_runtimes",
    "check_faiss_gpu",
    "check_gpus",
    "check_torch_architectures",
    "check_torch_gpu",
]

_PYTORCH = "install the build of torch that fits the driver, see https://pytorch.org/get-started"
# What the wheels of `faiss-gpu` from 1.14.3 on were built for; newer GPUs take the last by PTX.
_OLDEST_FAISS_GPU = (7, 0)
# CUDA 13, which the wheels of `faiss-gpu-cuvs` are built for, has left out what is older.
_OLDEST_FAISS_CUVS = (7, 5)
_CUVS = "faiss-gpu-cuvs"
_ARCHITECTURE = re.compile(r"(sm|compute)_([0-9]+)([0-9])[a-z]?")


def check_gpus(facts: Facts) -> Iterator[Finding]:
    """Says so where there is no GPU."""
    if not facts.gpu_devices and not facts.libraries.gpus:
        message = "there is no NVIDIA GPU: everything runs on the CPU"
        fix = "nothing; in a container, GPUs must be passed in (docker run --gpus all)"
        yield Finding("note", "gpu", message, "no /dev/nvidia0, no driver", fix)


def check_torch_gpu(facts: Facts) -> Iterator[Finding]:
    """Whether torch can use the GPUs that there are."""
    libraries = facts.libraries
    if not facts.gpu_devices or libraries.gpus or libraries.torch_version is None:
        return
    if facts.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        message, seen = "the GPUs are hidden by a variable", "CUDA_VISIBLE_DEVICES is empty or -1"
        yield Finding("note", "torch-gpu", message, seen, "unset CUDA_VISIBLE_DEVICES")
        return
    driver = f"{facts.gpu_devices} GPUs, driver {facts.gpu_driver or 'not found'}"
    build = f"torch {libraries.torch_version}"
    if libraries.torch_cuda is None:
        message = "there is a GPU, but this build of torch is for CPUs alone"
        yield Finding("warning", "torch-gpu", message, f"{driver}, {build}", _PYTORCH)
    else:
        message = "torch cannot use the GPU: the driver is missing, or too old for its CUDA"
        seen = f"{driver}, {build} for CUDA {libraries.torch_cuda}"
        yield Finding("warning", "torch-gpu", message, seen, f"update the driver, or {_PYTORCH}")


def check_torch_architectures(facts: Facts) -> Iterator[Finding]:
    """Whether torch was built for the GPUs that there are."""
    arches = facts.libraries.torch_arches
    for gpu in facts.libraries.gpus:
        if arches and not any(_runs(gpu, arch) for arch in arches):
            yield Finding(
                "error",
                "gpu-architecture",
                f"torch was not built for this GPU ({gpu.name}): its kernels will not run",
                f"sm_{gpu.capability[0]}{gpu.capability[1]}, built for {' '.join(arches)}",
                _PYTORCH,
            )


def check_faiss_gpu(facts: Facts) -> Iterator[Finding]:
    """Whether the build of FAISS fits the GPUs that there are."""
    libraries = facts.libraries
    if libraries.faiss_version is None:
        return
    build = f"FAISS {libraries.faiss_version} ({libraries.faiss_options})"
    has_cuvs = _CUVS in facts.faiss_owners
    package, oldest = (_CUVS, _OLDEST_FAISS_CUVS) if has_cuvs else ("faiss-gpu", _OLDEST_FAISS_GPU)
    if libraries.faiss_has_gpu and not libraries.faiss_gpus:
        message = "this build of FAISS is for GPUs, and finds none"
        fix = f"pip uninstall -y {package}; pip install 'motherlode[cpu]', unless a GPU is to come"
        yield Finding("note", "faiss-gpu", message, build, fix)
    elif libraries.gpus and not libraries.faiss_has_gpu:
        message = "there is a GPU, but this build of FAISS is for CPUs alone"
        fix = "pip uninstall -y faiss-cpu; pip install 'motherlode[gpu]', to search on the GPU"
        yield Finding("note", "faiss-gpu", message, build, fix)
    for gpu in libraries.gpus if libraries.faiss_has_gpu else ():
        if gpu.capability < oldest:
            message = f"this GPU ({gpu.name}) is older than those that FAISS was built for"
            seen = f"{_sm(gpu.capability)}; {build} starts at {_sm(oldest)}"
            fix = f"search on the CPU: pip uninstall -y {package}; pip install 'motherlode[cpu]'"
            yield Finding("warning", "gpu-architecture", message, seen, fix)


def check_cuda_runtimes(facts: Facts) -> Iterator[Finding]:
    """Whether torch and FAISS bring CUDA runtimes of different versions."""
    names = sorted({PurePath(path).name for path in facts.libraries.cuda_runtimes})
    if len(names) > 1:
        message = "torch and FAISS bring CUDA runtimes of different versions into one process"
        theirs = f"{_CUVS} (13)" if _CUVS in facts.faiss_owners else "faiss-gpu (12)"
        fix = f"nothing, if it works; otherwise install a torch for the CUDA of {theirs}"
        yield Finding("note", "cuda-runtimes", message, ", ".join(names), fix)


def _sm(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def _runs(gpu: Gpu, architecture: str) -> bool:
    """Whether code for an architecture runs on a GPU: of its major version, or as PTX on newer."""
    match = _ARCHITECTURE.fullmatch(architecture)
    if match is None:
        return False
    built_for = int(match[2]), int(match[3])
    if match[1] == "compute":
        return built_for <= gpu.capability
    return built_for[0] == gpu.capability[0] and built_for <= gpu.capability
