from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core.memory import available_bytes, limit_bytes

KIB = 2**10


def machine(folder: Path, available_kib: int, group: str = "/") -> tuple[Path, Path]:
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroups.mkdir()
    meminfo = f"MemTotal: 8192 kB\nMemAvailable:   {available_kib} kB\nSwapFree: 5 kB\n"
    (proc / "meminfo").write_text(meminfo, "ascii")
    (proc / "self" / "cgroup").write_text(f"0::{group}\n", "utf-8")
    return proc, cgroups


def limit_group(folder: Path, limit: int | str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n", "ascii")
    (folder / "memory.current").write_text(f"{used}\n", "ascii")
    stat = f"anon 7\ninactive_file {cached - 1}\nactive_file 1\n"
    (folder / "memory.stat").write_text(stat, "ascii")


def test_without_a_control_group_the_machine_counts(tmp_path: Path) -> None:
    assert available_bytes(*machine(tmp_path, 4096)) == 4096 * KIB


def test_a_group_without_a_limit_changes_nothing(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 4096)
    limit_group(cgroups, "max", 1000, 10)
    assert available_bytes(proc, cgroups) == 4096 * KIB


@pytest.mark.parametrize("limited", ["", "pod", "pod/container"])
def test_the_tightest_group_counts_and_cached_files_are_free(tmp_path: Path, limited: str) -> None:
    proc, cgroups = machine(tmp_path, 4096, "/pod/container")
    limit_group(cgroups / limited, 1_000_000, 700_000, 200_000)
    assert available_bytes(proc, cgroups) == 500_000


def test_a_group_above_its_limit_leaves_nothing(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 4096)
    limit_group(cgroups, 1000, 5000, 10)
    assert available_bytes(proc, cgroups) == 0


def test_a_group_outside_the_namespace_is_not_looked_for(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 4096, "/../../other")
    limit_group(tmp_path / "other", 1000, 0, 1)
    assert available_bytes(proc, cgroups) == 4096 * KIB


@pytest.mark.parametrize(
    ("limited", "limit", "expected"),
    [
        ("", "max", 8192 * KIB),
        ("", 1_000_000, 1_000_000),
        ("pod/container", 1_000_000, 1_000_000),
        ("pod", 2**40, 8192 * KIB),
    ],
)
def test_a_process_may_have_what_its_tightest_group_or_the_machine_has(
    tmp_path: Path, limited: str, limit: int | str, expected: int
) -> None:
    proc, cgroups = machine(tmp_path, 4096, "/pod/container")
    limit_group(cgroups / limited, limit, 0, 1)
    assert limit_bytes(proc, cgroups) == expected


@pytest.mark.parametrize(("limit", "expected"), [(5000, 5000), (2**63 - 4096, 8192 * KIB)])
def test_a_limit_of_the_older_control_groups_counts(
    tmp_path: Path, limit: int, expected: int
) -> None:
    proc, cgroups = machine(tmp_path, 4096)
    # In a container: the name is the host's, and the process's own group is at the root.
    (proc / "self" / "cgroup").write_text("4:memory:/pod/container\n0::/\n", "utf-8")
    (cgroups / "memory").mkdir()
    (cgroups / "memory" / "memory.limit_in_bytes").write_text(f"{limit}\n", "ascii")
    assert limit_bytes(proc, cgroups) == expected


def test_where_nothing_says_anything_there_is_no_limit(tmp_path: Path) -> None:
    assert available_bytes(tmp_path, tmp_path) == limit_bytes(tmp_path, tmp_path) == 2**63


def test_this_machine_can_be_read() -> None:
    assert 0 < available_bytes() <= limit_bytes() < 2**60
