from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core.control_groups import cpu_quota, groups_of, memory_limit_bytes


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def limits(folder: Path) -> tuple[float | None, int | None]:
    proc, cgroups = folder / "proc", folder / "root"
    return cpu_quota(proc, cgroups), memory_limit_bytes(proc, cgroups)


def test_limits_of_version_2_are_the_least_on_the_way_up(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "root/a/b/memory.max", "max\n")
    write(tmp_path / "root/a/b/cpu.max", "300000 100000\n")
    write(tmp_path / "root/a/memory.max", "1000\n")
    write(tmp_path / "root/a/cpu.max", "150000 100000\n")
    write(tmp_path / "root/memory.max", "2000\n")
    assert limits(tmp_path) == (1.5, 1000)


def test_limits_of_version_1_are_read_from_their_trees(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n")
    write(tmp_path / "root/memory/x/memory.limit_in_bytes", "4096\n")
    write(tmp_path / "root/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "root/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "root/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    assert limits(tmp_path) == (0.5, 4096)


@pytest.mark.parametrize("quota", ["max 100000", "-1", "", "nonsense"])
def test_no_limit_is_no_number(tmp_path: Path, quota: str) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "root/cpu.max", quota)
    write(tmp_path / "root/memory.max", "max")
    assert limits(tmp_path) == (None, None)
    assert limits(tmp_path / "nothing") == (None, None)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("0::/", ["."]),
        ("0::/a/b", ["a/b", "a", "."]),
        ("0::/../../other", ["."]),
        ("5:memory:/a\n1:name=systemd:/b", ["memory/a", "memory"]),
        ("5:cpu,memory:/", ["cpu,memory"]),
        ("5:cpu:/a", []),
    ],
)
def test_groups_are_those_that_can_be_seen(tmp_path: Path, own: str, expected: list[str]) -> None:
    write(tmp_path / "self/cgroup", own)
    assert list(groups_of("memory", tmp_path, Path("root"))) == [Path("root", e) for e in expected]
