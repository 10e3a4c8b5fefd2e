"""Where the parts of a bundle go, said before anything is loaded, with the reasons.

The rules are those of FAISS's GPU indexes without cuVS: some families have no GPU form; the others
ignore filters without a word, and take no k or nprobe above 2048; each GPU loses memory to a buffer
of FAISS; a reload holds the old and the new version at once. Graphs alone use cuVS, and have a GPU
form where FAISS was built with it. What the GPU cannot do right takes the CPU, where the whole
index stays at hand: it is mapped, and the last scoring of every shortlist in float32 needs the
label embeddings there anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from motherlode.core.errors import ConfigError
from motherlode.core.index.devices import Device
from motherlode.core.index.graph_form import GRAPH_LIMIT, GraphForm
from motherlode.core.index.placement import Placement, Plan, Policy, Route, Sizes

# Limit of the classic GPU indexes on k and nprobe.
GPU_LIMIT = 2048
# Families with a GPU form, and whether it can hold vectors in half the bytes; a new one takes a
# line. IVF-Flat has no 16-bit form on a GPU: that of FAISS shortens the centroids alone.
_ON_GPU = {
    "exact": True,
    "ivf_flat": False,
    **dict.fromkeys(("ivf:sq8", "ivf:fp16", "ivf:pq"), False),
    **dict.fromkeys(("hnsw", "hnsw:sq8", "hnsw:fp16"), False),
}


def plan_placement(sizes: Sizes, devices: Sequence[Device], policy: Policy | None = None) -> Plan:
    """Where a bundle goes on a machine, with a reason for each decision.

    Args:
        sizes: Of the bundle.
        devices: The CPU and all GPUs.
        policy: What may be done; None takes the defaults.

    Raises:
        ConfigError: If a GPU is required and the index cannot be on one; if there is no CPU.
    """
    policy = Policy() if policy is None else policy
    cpus = [device for device in devices if not device.is_gpu]
    if len(cpus) != 1:
        raise ConfigError("devices", expected="one CPU", actual=f"{len(cpus)} of them")
    index = _place_index(sizes, [d for d in devices if d.is_gpu], policy)
    if policy.gpu == "require" and index.devices == ("cpu",):
        raise ConfigError("placement.gpu", expected="an index on a GPU", actual=index.reason)
    encoder = Placement(
        part="encoder",
        devices=("cpu",),
        dtype="float32",
        size_bytes=sizes.encoder_bytes,
        reason="a sum of some rows costs less than the way to a GPU, and keeps its bits",
    )
    everything = Placement(
        part="everything",
        devices=("cpu",),
        dtype="float32",
        size_bytes=sizes.ram_bytes,
        reason="label embeddings, texts, features and ranker stay in RAM, and the file of the "
        "index is mapped, wherever the index searches",
    )
    routes = _routes(sizes, index)
    problems = tuple(_problems(sizes, cpus[0], policy))
    return Plan(placements=(index, encoder, everything), routes=routes, problems=problems)


def _place_index(sizes: Sizes, gpus: Sequence[Device], policy: Policy) -> Placement:
    refusal = _why_not_on_gpu(sizes, gpus, policy)
    if refusal is None:
        usable = [gpu for gpu in gpus if gpu.has_faiss]
        placed = _on_one(sizes, usable, policy) or _on_several(sizes, usable, policy)
        if placed is not None:
            return placed
        refusal = _too_large(sizes, usable, policy)
    return Placement(
        part="index",
        devices=("cpu",),
        dtype="float32",
        size_bytes=sizes.index_bytes + sizes.labels_bytes,
        reason=refusal,
    )


def _why_not_on_gpu(sizes: Sizes, gpus: Sequence[Device], policy: Policy) -> str | None:
    if policy.gpu == "never":
        return "the policy keeps it off the GPU"
    if not gpus:
        return "there is no GPU"
    if not any(gpu.has_faiss for gpu in gpus):
        return "this build of FAISS has no GPU support, whatever torch sees"
    return _why_no_gpu_form(sizes, has_cuvs=any(gpu.has_cuvs for gpu in gpus))


def _why_no_gpu_form(sizes: Sizes, *, has_cuvs: bool) -> str | None:
    if sizes.index_kind not in _ON_GPU:
        return f"FAISS has no GPU form of {sizes.index_kind}"
    if sizes.graph is not None and (refusal := _why_no_graph(sizes, sizes.graph, has_cuvs)):
        return refusal
    if sizes.index_kind.startswith("ivf:") and not sizes.has_even_labels:
        return "a GPU finds lists and compares codes by one metric, and lengths of labels differ"
    if (sizes.nprobe or 0) > GPU_LIMIT:
        return f"nprobe {sizes.nprobe} is above {GPU_LIMIT}, the limit on a GPU"
    if sizes.shortlist > largest_k(sizes):
        return f"the ranker's shortlist of {sizes.shortlist} is above the limit on a GPU"
    return None


def _why_no_graph(sizes: Sizes, graph: GraphForm, has_cuvs: bool) -> str | None:
    if has_cuvs:
        return graph.refusal
    return (
        f"FAISS has no GPU form of {sizes.index_kind} without cuVS, which the extra `cuvs` has in "
        "place of `cpu` or `gpu`"
    )


def _need(sizes: Sizes, policy: Policy, *, is_fp16: bool, parts: int = 1) -> int:
    """Bytes that one of the GPUs must have for its part, while versions change."""
    share = -(-sizes.gpu_index_bytes(is_fp16=is_fp16) // parts)
    return policy.copies * (share + policy.faiss_temp_bytes)


def _on_one(sizes: Sizes, gpus: Sequence[Device], policy: Policy) -> Placement | None:
    """On the GPU with the most free memory, in as many bits as fit."""
    gpu = max(gpus, key=lambda device: device.free_bytes)
    for is_fp16 in (False, True):
        allowed = not is_fp16 or (policy.may_fp16 and _ON_GPU[sizes.index_kind])
        need = _need(sizes, policy, is_fp16=is_fp16)
        if allowed and need <= policy.usable(gpu):
            why = "in 16 bits, as 32 do not fit: it only proposes; " if is_fp16 else ""
            reason = f"{why}{_fits(gpu, need, policy)}"
            return _index_on((gpu.name,), sizes, is_fp16=is_fp16, reason=reason)
    return None


def _on_several(sizes: Sizes, gpus: Sequence[Device], policy: Policy) -> Placement | None:
    """In equal parts on the fewest GPUs that have room for one each."""
    if not policy.may_shard or sizes.index_kind != "exact":
        return None
    ordered = sorted(gpus, key=lambda device: -device.free_bytes)
    for count in range(2, len(ordered) + 1):
        need = _need(sizes, policy, is_fp16=False, parts=count)
        if need <= policy.usable(ordered[count - 1]):
            names = tuple(sorted(device.name for device in ordered[:count]))
            fits = _fits(ordered[count - 1], need, policy)
            reason = f"too large for one GPU; a part on each of {count}: {fits}"
            return _index_on(names, sizes, is_fp16=False, reason=reason)
    return None


def _index_on(names: tuple[str, ...], sizes: Sizes, *, is_fp16: bool, reason: str) -> Placement:
    return Placement(
        part="index",
        devices=names,
        dtype="float16" if is_fp16 else "float32",
        size_bytes=sizes.gpu_index_bytes(is_fp16=is_fp16),
        reason=reason,
    )


def _fits(gpu: Device, need: int, policy: Policy) -> str:
    return (
        f"{_size(need)} of {_size(policy.usable(gpu))} usable on {gpu.name}, FAISS's buffer and "
        f"{policy.copies} versions at once counted"
    )


def _too_large(sizes: Sizes, gpus: Sequence[Device], policy: Policy) -> str:
    need = _need(sizes, policy, is_fp16=False)
    most = max(policy.usable(gpu) for gpu in gpus)
    return f"it needs {_size(need)} on a GPU, and the roomiest has {_size(most)} to use"


def largest_k(sizes: Sizes) -> int:
    """The largest k that a GPU index can answer; it is asked for some candidates more.

    As `GpuIndex` asks: k + 8, and an eighth of k more, or as many times k as codes are refined.
    """
    limit = _limit(sizes)
    if sizes.index_kind.startswith("ivf:"):
        return min(limit - 8, limit // sizes.refine)
    return (limit - 8) * 8 // 9


def _limit(sizes: Sizes) -> int:
    """Candidates that a GPU index gives at most."""
    return GPU_LIMIT if sizes.graph is None else GRAPH_LIMIT


def _routes(sizes: Sizes, index: Placement) -> tuple[Route, ...]:
    if index.devices == ("cpu",):
        return (Route(queries="all", place="cpu", reason="the index is on the CPU alone"),)
    most = largest_k(sizes)
    return (
        Route(queries=f"plain, k up to {most}", place="gpu", reason="the GPU index answers them"),
        Route(
            queries="with a filter",
            place="cpu",
            reason="FAISS's GPU indexes ignore filters without a word"
            if sizes.graph is None
            else "a walk on the CPU keeps as many more candidates as a filter takes away",
        ),
        Route(
            queries=f"k above {most}",
            place="cpu",
            reason=f"a GPU index gives {_limit(sizes)} candidates at most, some of them spare",
        ),
    )


def _problems(sizes: Sizes, cpu: Device, policy: Policy) -> list[str]:
    usable, copies = policy.usable(cpu), policy.copies
    if sizes.ram_bytes > usable:
        return [f"needs {_size(sizes.ram_bytes)} of RAM, and {_size(usable)} can be used"]
    if copies * sizes.ram_bytes > usable:
        need = _size(copies * sizes.ram_bytes)
        return [
            f"{copies} versions at once, as while one takes over from another, need {need} of RAM, "
            f"and {_size(usable)} can be used"
        ]
    return []


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
