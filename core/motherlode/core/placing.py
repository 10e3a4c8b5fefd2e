"""Carries out where a bundle goes: what is planned for a GPU is put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from motherlode.core.bundle import Bundle
from motherlode.core.index.devices import Device, detect_devices
from motherlode.core.index.placement import Placement, Policy, Sizes
from motherlode.core.index.planner import plan_placement
from motherlode.core.query_path import QueryPath


def place_bundle(
    bundle: Bundle, policy: Policy, devices: Sequence[Device] | None = None
) -> tuple[Bundle, Placement]:
    """The bundle with its index where a plan puts it, and where that is.

    Args:
        bundle: As it was read, all of it on the CPU; it stays so.
        policy: What may be done.
        devices: What there is; None asks the machine.

    Raises:
        ConfigError: If the policy requires a GPU and the index cannot be on one.
        UnsupportedError: If a GPU is gone that was there.
        RuntimeError: As FAISS has it, for a GPU with less memory than it said, if the policy
            requires one.
    """
    devices = detect_devices() if devices is None else devices
    plan = plan_placement(Sizes.of(bundle.manifest), devices, policy)
    placement = plan.placement("index")
    if not placement.is_on_gpu:
        return bundle, placement
    # Imported here: most machines have no GPU.
    from motherlode.core.index.gpu import to_gpu  # noqa: PLC0415

    try:
        index = to_gpu(
            bundle.index,
            placement.gpu_numbers,
            fp16=placement.dtype == "float16",
            temp_bytes=policy.faiss_temp_bytes,
        )
        moved = replace(bundle, index=index)
        difference = _golden_difference(moved)
    except (RuntimeError, MemoryError) as error:
        if policy.gpu != "auto":
            raise
        # A graph is built there, which may fail in more ways than a copy.
        reason = f"FAISS cannot search it on the GPU: {error!s:.200}"
        return bundle, replace(placement, devices=("cpu",), reason=reason)
    if difference is not None and policy.gpu == "auto":
        reason = f"on the GPU it does not give the golden hits: {difference}"
        return bundle, replace(placement, devices=("cpu",), reason=reason)
    return moved, placement


def _golden_difference(bundle: Bundle) -> str | None:
    """What is wrong with the golden hits; lists that are a rounding apart may change places."""
    path = QueryPath(bundle.featurizer, bundle.encoder, bundle.index, bundle.ranker)
    top = path.top_k(bundle.golden.queries, bundle.golden.k)
    return bundle.golden.hit_difference(top, may_miss=bundle.index.may_miss)
