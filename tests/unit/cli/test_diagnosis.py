"""The checks of `motherlode doctor`, on made-up facts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from motherlode.cli.diagnosis import Disk, Facts, Finding, Gpu, LibraryFacts, diagnose
from motherlode.cli.diagnosis.checks import CHECKS
from motherlode.cli.diagnosis.gathering import faiss_foreign_files, gather_facts, owners_of
from motherlode.cli.diagnosis.probing import libraries_of, probe_libraries

GIB = 2**30
H100 = Gpu(name="H100", capability=(9, 0))
LIBRARIES = LibraryFacts(
    torch_version="2.13.0+cu128",
    torch_cuda="12.8",
    torch_arches=("sm_80", "sm_90", "compute_90"),
    torch_threads=8,
    faiss_version="1.15.1",
    faiss_options="OPTIMIZE AVX2 GPU",
    faiss_has_gpu=True,
    faiss_gpus=1,
    faiss_threads=8,
    gpus=(H100,),
    openmp=("/site/torch/lib/libgomp.so.1",),
    cuda_runtimes=("/site/nvidia/libcudart.so.12",),
)
HEALTHY = Facts(
    python=(3, 12, 1),
    implementation="cpython",
    platform="linux",
    is_64_bit=True,
    optimize=0,
    environment={},
    packages={"faiss-gpu": "1.15.1", "torch": "2.13.0+cu128", "grpcio": "1.80.0", "numpy": "2.1"},
    requirements=(
        "faiss-gpu<2,>=1.15; extra == 'gpu'",
        "faiss-cpu<2,>=1.15; extra == 'cpu'",
        "torch<2.14,>=2.13; extra == 'gpu'",
        "grpcio<2,>=1.80; extra == 'client'",
        "numpy<3,>=2.1; extra == 'client'",
        "motherlode[client]; extra == 'runtime'",
        "pytest<1; extra == 'dev'",
    ),
    faiss_owners=("faiss-gpu",),
    faiss_foreign_files=(),
    libraries=LIBRARIES,
    cores=8,
    allowed_cores=8,
    cpu_quota=None,
    memory_bytes=64 * GIB,
    memory_limit_bytes=None,
    open_files=65_536,
    open_files_most=None,
    disks=(Disk(path=Path("/tmp"), purpose="x", total_bytes=100 * GIB, free_bytes=50 * GIB),),
    shared_memory_bytes=32 * GIB,
    gpu_devices=1,
    gpu_driver="570.86.10",
)
CPU = LibraryFacts(
    torch_version="2.13.0+cpu", torch_threads=8, faiss_version="1.15.1", faiss_threads=8
)


def healthy(**changes: Any) -> Facts:
    return replace(HEALTHY, **changes)


def libraries_of_cuvs(**changes: Any) -> Facts:
    return replace(libraries(**changes), faiss_owners=("faiss-gpu-cuvs",))


def without_gpu(**changes: Any) -> Facts:
    plain = {"libraries": CPU, "gpu_devices": 0, "gpu_driver": None}
    return healthy(**(plain | changes))


def libraries(**changes: Any) -> Facts:
    return healthy(libraries=replace(LIBRARIES, **changes))


def only(facts: Facts) -> Finding:
    [finding] = diagnose(facts)
    return finding


def test_a_healthy_machine_has_no_finding():
    assert diagnose(HEALTHY) == []


@pytest.mark.parametrize(
    ("facts", "level", "check", "evidence", "fix"),
    [
        (healthy(python=(3, 10, 4)), "error", "python", "3.10.4", "Python 3.11"),
        (healthy(python=(3, 15, 0)), "note", "python", "3.15.0", "3.11 to 3.13"),
        (healthy(is_64_bit=False), "error", "python", "cpython", "64-bit"),
        (healthy(implementation="pypy"), "warning", "python", "pypy", "CPython"),
        (healthy(optimize=1), "warning", "python-optimize", "python -O", "without -O"),
        (
            healthy(optimize=2, environment={"PYTHONOPTIMIZE": "2"}),
            *("warning", "python-optimize", "PYTHONOPTIMIZE=2", "unset PYTHONOPTIMIZE"),
        ),
        (
            healthy(
                faiss_owners=("faiss-cpu", "faiss-gpu"),
                packages={"faiss-cpu": "1.15.0", "faiss-gpu": "1.15.1"},
                faiss_foreign_files=("faiss/__init__.py",),
            ),
            *("error", "faiss-packages", "faiss-cpu 1.15.0, faiss-gpu 1.15.1"),
            "pip uninstall -y faiss-cpu faiss-gpu",
        ),
        (
            healthy(
                faiss_owners=("faiss-gpu", "faiss-gpu-cuvs"),
                packages={"faiss-gpu": "1.15.1", "faiss-gpu-cuvs": "1.15.1"},
            ),
            *("error", "faiss-packages", "faiss-gpu 1.15.1, faiss-gpu-cuvs 1.15.1"),
            "pip install 'motherlode[cpu]' (or [gpu], or [cuvs])",
        ),
        (
            healthy(faiss_owners=("faiss-gpu-cu12",), packages={"faiss-gpu-cu12": "1.14.1"}),
            *("warning", "faiss-packages", "faiss-gpu-cu12 1.14.1", "motherlode[gpu]"),
        ),
        (
            healthy(faiss_foreign_files=tuple(f"faiss/{c}.so" for c in "abcdef")),
            *("error", "faiss-files", "faiss/d.so and 2 more", "pip uninstall -y faiss-gpu"),
        ),
        (
            healthy(packages=HEALTHY.packages | {"faiss-gpu": "1.14.3"}),
            *("error", "versions", "faiss-gpu 1.14.3, expected >=1.15,<2", "'faiss-gpu>=1.15,<2'"),
        ),
        (
            healthy(packages=HEALTHY.packages | {"torch": "2.14.1"}),
            *("warning", "versions", "torch 2.14.1, expected >=2.13,<2.14", "pip install"),
        ),
        (
            healthy(packages=HEALTHY.packages | {"grpcio": "1.9.99"}),
            *("error", "versions", "grpcio 1.9.99", "pip install"),
        ),
        (
            libraries(crash="SIGSEGV"),
            *("error", "imports", "SIGSEGV", "new virtual environment"),
        ),
        (
            libraries(faiss_error="ImportError: libcudart.so.12"),
            *("error", "imports", "libcudart.so.12", "reinstall"),
        ),
        (
            libraries(openmp=("/a/libgomp.so.1", "/b/libiomp5.so")),
            *("warning", "openmp", "/a/libgomp.so.1, /b/libiomp5.so", "same place"),
        ),
        (
            libraries(openmp=("/a/libgomp.so.1", "/b/libgomp-ab12.so.1.0")),
            *("note", "openmp", "libgomp-ab12", "OMP_NUM_THREADS"),
        ),
        (
            healthy(environment={"KMP_DUPLICATE_LIB_OK": "TRUE"}),
            *("warning", "openmp", "KMP_DUPLICATE_LIB_OK=TRUE", "unset"),
        ),
        (
            healthy(environment={"OMP_NUM_THREADS": "32"}),
            *("warning", "threads", "OMP_NUM_THREADS=32, 8 of 8 cores", "OMP_NUM_THREADS=8"),
        ),
        (
            healthy(environment={"MKL_NUM_THREADS": "many"}),
            *("warning", "threads", "MKL_NUM_THREADS=many", "MKL_NUM_THREADS=8"),
        ),
        (
            healthy(environment={"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "2"}),
            *("warning", "threads", "OMP_NUM_THREADS=4, MKL_NUM_THREADS=2", "unset MKL"),
        ),
        (
            libraries(torch_threads=64),
            *("warning", "threads", "torch 64 threads; 8 of 8 cores", "OMP_NUM_THREADS=8"),
        ),
        (
            healthy(memory_limit_bytes=8 * GIB),
            *("note", "memory-limit", "8.0 GiB of the machine's 64.0 GiB", "largest model"),
        ),
        (
            healthy(memory_limit_bytes=GIB // 2),
            *("warning", "memory", "0.5 GiB of the machine's", "motherlode inspect"),
        ),
        (
            healthy(open_files=1024, open_files_most=4096),
            *("warning", "open-files", "1024 open files", "ulimit -n 4096"),
        ),
        (
            healthy(open_files=256, open_files_most=256),
            *("warning", "open-files", "may be raised to 256", "LimitNOFILE="),
        ),
        (
            healthy(disks=(replace(HEALTHY.disks[0], free_bytes=GIB // 4),)),
            *("warning", "disk", "/tmp: 0.2 GiB of 100.0 GiB free", "--keep"),
        ),
        (
            healthy(shared_memory_bytes=64 * 2**20),
            *("note", "shared-memory", "64 MiB", "--shm-size"),
        ),
        (without_gpu(), "note", "gpu", "no driver", "--gpus all"),
        (
            without_gpu(gpu_devices=2, gpu_driver="570.86"),
            *("warning", "torch-gpu", "2 GPUs, driver 570.86, torch 2.13.0+cpu", "pytorch.org"),
        ),
        (
            libraries(gpus=(), faiss_has_gpu=False),
            *("warning", "torch-gpu", "for CUDA 12.8", "update the driver"),
        ),
        (
            healthy(
                libraries=replace(LIBRARIES, gpus=(), faiss_has_gpu=False),
                environment={"CUDA_VISIBLE_DEVICES": ""},
            ),
            *("note", "torch-gpu", "CUDA_VISIBLE_DEVICES", "unset"),
        ),
        (
            libraries(torch_arches=("sm_70", "sm_80")),
            *("error", "gpu-architecture", "sm_90, built for sm_70 sm_80", "pytorch.org"),
        ),
        (
            libraries(gpus=(Gpu(name="P100", capability=(6, 0)),), torch_arches=("sm_60", "sm_70")),
            *("warning", "gpu-architecture", "sm_60", "search on the CPU"),
        ),
        (
            libraries_of_cuvs(gpus=(Gpu(name="V100", capability=(7, 0)),), torch_arches=("sm_70",)),
            *("warning", "gpu-architecture", "starts at sm_75", "uninstall -y faiss-gpu-cuvs;"),
        ),
        (
            libraries_of_cuvs(faiss_gpus=0),
            *("note", "faiss-gpu", "OPTIMIZE AVX2 GPU", "uninstall -y faiss-gpu-cuvs;"),
        ),
        (
            libraries_of_cuvs(cuda_runtimes=("/a/libcudart.so.12", "/b/libcudart.so.13")),
            *("note", "cuda-runtimes", "libcudart.so.13", "faiss-gpu-cuvs (13)"),
        ),
        (
            libraries(faiss_has_gpu=False, faiss_gpus=0),
            *("note", "faiss-gpu", "FAISS 1.15.1", "motherlode[gpu]"),
        ),
        (
            libraries(faiss_gpus=0),
            *("note", "faiss-gpu", "OPTIMIZE AVX2 GPU", "motherlode[cpu]"),
        ),
        (
            libraries(cuda_runtimes=("/a/libcudart.so.12", "/b/libcudart.so.13")),
            *("note", "cuda-runtimes", "libcudart.so.12, libcudart.so.13", "faiss-gpu"),
        ),
    ],
)
def test_one_thing_wrong_is_one_finding_with_evidence_and_fix(facts, level, check, evidence, fix):
    finding = only(facts)
    assert (finding.level, finding.check) == (level, check)
    assert evidence in finding.evidence
    assert fix in finding.fix


def test_torch_without_faiss_is_an_error_and_clients_alone_are_none():
    missing = replace(CPU, faiss_version=None, faiss_error="No module named 'faiss'")
    trainer = without_gpu(
        faiss_owners=(), packages={"torch": "2.13.0"}, libraries=missing, gpu_devices=0
    )
    assert [(f.level, f.check) for f in diagnose(trainer)] == [
        ("error", "faiss-packages"),
        ("note", "gpu"),
    ]
    nothing = LibraryFacts(torch_error="No module", faiss_error="No module")
    client = replace(trainer, packages={"grpcio": "1.80"}, libraries=nothing)
    assert {f.level for f in diagnose(client)} == {"note"}


@pytest.mark.parametrize(
    ("allowed", "quota", "usable"),
    [(8, None, 8), (4, None, 4), (8, 1.5, 2), (8, 0.2, 1), (2, 6, 2)],
)
def test_a_container_has_the_cores_of_its_mask_and_its_quota(allowed, quota, usable):
    facts = healthy(allowed_cores=allowed, cpu_quota=quota)
    assert facts.usable_cores == usable


def test_threads_beyond_a_containers_quota_are_found():
    facts = healthy(cores=64, allowed_cores=64, cpu_quota=2.0)
    assert [(f.level, f.check) for f in diagnose(facts)] == [
        ("warning", "threads"),
        ("note", "cpu-limit"),
    ]
    assert "2 of 64 cores, a CPU quota of 2" in diagnose(facts)[0].evidence


def test_the_worst_finding_comes_first():
    facts = healthy(python=(3, 10, 0), optimize=1, memory_limit_bytes=8 * GIB)
    assert [finding.level for finding in diagnose(facts)] == ["error", "warning", "note"]


def test_code_for_an_older_gpu_of_the_same_generation_runs():
    assert diagnose(libraries(gpus=(Gpu(name="A10", capability=(8, 6)),))) == []


def test_ptx_runs_on_newer_gpus():
    assert diagnose(libraries(gpus=(Gpu(name="B200", capability=(10, 0)),))) == []


def test_every_check_finds_nothing_on_a_healthy_machine():
    assert [check.__name__ for check in CHECKS if list(check(HEALTHY))] == []


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages in which `faiss-one` has installed a module."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    install(tmp_path, "faiss_one", {"faiss/__init__.py": "one", "faiss/_swig.so": "library"})
    return tmp_path


def install(site: Path, name: str, files: dict[str, str]) -> None:
    for file, text in files.items():
        write(site / file, text)
    write(site / f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
    record = [f"{file},sha256=x,{len(text)}" for file, text in files.items()]
    write(site / f"{name}-1.0.dist-info/RECORD", "\n".join([*record, "faiss/x.pyc,,"]))


def test_the_files_of_one_package_are_its_own(site):
    assert owners_of("faiss") == ("faiss-one",)
    assert list(faiss_foreign_files(("faiss-one",), site)) == []


def test_a_second_package_over_the_first_is_seen(site):
    install(site, "Faiss.Two", {"faiss/__init__.py": "two!"})
    assert owners_of("faiss") == ("faiss-one", "faiss-two")
    assert list(faiss_foreign_files(("faiss-one",), site)) == ["faiss/__init__.py"]


def test_what_a_broken_installation_left_is_passed_over(site):
    (site / "~orch-1.0.dist-info").mkdir()
    assert owners_of("faiss") == ("faiss-one",)


def test_what_a_removed_package_took_along_or_left_is_seen(site):
    (site / "faiss/__init__.py").unlink()
    write(site / "faiss/_swig_avx2.so", "left over")
    assert list(faiss_foreign_files(("faiss-one",), site)) == [
        "faiss/__init__.py",
        "faiss/_swig_avx2.so",
    ]


def test_a_process_that_dies_of_its_imports_is_told_of(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'OMP: Error #15' >&2\nkill -SEGV $$\n", encoding="ascii")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    found = probe_libraries()
    assert found.crash == "SIGSEGV: OMP: Error #15"


def test_what_the_probe_writes_becomes_facts():
    document = {"gpus": [["H100", [9, 0]]], "openmp": ["/a"], "torch_version": "2.13"}
    assert libraries_of(document) == LibraryFacts(
        gpus=(H100,), openmp=("/a",), torch_version="2.13"
    )


def test_the_facts_of_this_machine_are_gathered(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    facts = gather_facts(tmp_path)
    assert facts.python == sys.version_info[:3]
    assert facts.packages["grpcio"]
    assert facts.libraries.crash is None
    assert facts.libraries.faiss_version == facts.packages[facts.faiss_owners[0]]
    assert facts.libraries.torch_threads == facts.libraries.faiss_threads == 1
    assert facts.libraries.openmp
    assert [disk.path for disk in facts.disks][1:] == [tmp_path]
    assert facts.environment["OMP_NUM_THREADS"] == "1"
    assert 1 <= facts.usable_cores <= facts.cores
