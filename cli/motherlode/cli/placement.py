"""What `motherlode inspect --placement` shows: where a model would go on this machine, and why."""

from __future__ import annotations

from typing import Any

from motherlode.cli.output import print_json, print_line, print_table
from motherlode.core.index.devices import Device, detect_devices
from motherlode.core.index.placement import Plan, Sizes
from motherlode.core.index.planner import plan_placement
from motherlode.core.manifest import Manifest

__all__ = ["print_placement"]


def print_placement(head: dict[str, Any], manifest: Manifest, *, json: bool) -> None:
    """Prints the plan for one version.

    Args:
        head: What is said of the version first in JSON.
        manifest: Of the version.
        json: Whether to print one JSON document.
    """
    devices = detect_devices()
    plan = plan_placement(Sizes.of(manifest), devices)
    if json:
        parts = {"placements": plan.placements, "routes": plan.routes, "problems": plan.problems}
        print_json(head | {"devices": devices} | parts)
        return
    _print(devices, plan)


def _print(devices: tuple[Device, ...], plan: Plan) -> None:
    print_table(
        ["device", "free MiB", "what"],
        [[device.name, _mib(device.free_bytes), device.description] for device in devices],
    )
    print_line()
    print_table(
        ["part", "goes to", "dtype", "MiB", "reason"],
        [
            [p.part, " + ".join(p.devices), p.dtype, _mib(p.size_bytes), p.reason]
            for p in plan.placements
        ],
    )
    print_line()
    print_table(
        ["queries", "use", "reason"],
        [[route.queries, route.place, route.reason] for route in plan.routes],
    )
    for problem in plan.problems:
        print_line(f"problem: {problem}")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f}"
