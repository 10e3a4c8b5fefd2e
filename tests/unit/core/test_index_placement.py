"""Where index and encoder go, by the rules of FAISS's GPU indexes, on devices that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motherlode.core.errors import ConfigError
from motherlode.core.index import faiss
from motherlode.core.index.devices import Device, detect_devices
from motherlode.core.index.graph_form import GraphForm
from motherlode.core.index.placement import Plan, Policy, Route, Sizes
from motherlode.core.index.planner import largest_k, plan_placement
from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny

GIB = 2**30
CPU = Device(name="cpu", description="16 cores", free_bytes=64 * GIB)
# The buffer and one version at a time: the figures below are then plain sums.
PLAIN = Policy(headroom=0.0, faiss_temp_bytes=0, copies=1)
EXACT = Sizes(
    index_kind="exact",
    has_even_labels=True,
    nprobe=None,
    refine=1,
    shortlist=0,
    encoder_bytes=GIB,
    labels_bytes=4 * GIB,
    index_bytes=0,
    ram_bytes=6 * GIB,
)
IVF = replace(EXACT, index_kind="ivf_flat", nprobe=16, index_bytes=5 * GIB)


def gpu(number: int = 0, free_gib: float = 40.0, **changes: bool) -> Device:
    return Device(
        name=f"gpu:{number}", description="a GPU", free_bytes=int(free_gib * GIB), **changes
    )


def where(plan: Plan, part: str = "index") -> tuple[str, ...]:
    return plan.placement(part).devices


def route(plan: Plan, queries: str) -> Route:
    (found,) = [r for r in plan.routes if r.queries.startswith(queries)]
    return found


def test_without_a_gpu_everything_is_on_the_cpu() -> None:
    plan = plan_placement(EXACT, [CPU])
    assert where(plan) == where(plan, "encoder") == where(plan, "everything") == ("cpu",)
    assert plan.placement("index").reason == "there is no GPU"
    assert plan.placement("index").size_bytes == 4 * GIB
    assert [(r.queries, r.place) for r in plan.routes] == [("all", "cpu")]
    assert plan.problems == ()


def test_an_index_with_a_gpu_form_goes_to_the_gpu_and_the_encoder_stays() -> None:
    plan = plan_placement(EXACT, [CPU, gpu()])
    assert (where(plan), where(plan, "encoder")) == (("gpu:0",), ("cpu",))
    assert plan.placement("index").dtype == "float32"
    assert plan.placement("index").size_bytes == 4 * GIB
    assert "usable on gpu:0" in plan.placement("index").reason


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf:pq"])
def test_what_holds_vectors_or_codes_of_its_own_is_counted_with_them(kind: str) -> None:
    plan = plan_placement(replace(IVF, index_kind=kind), [CPU, gpu()])
    assert (where(plan), plan.placement("index").size_bytes) == (("gpu:0",), 5 * GIB)


@pytest.mark.parametrize("kind", ["hnsw:pq", "scan:pq_fast_scan", "ivf:rabitq", "unheard_of"])
def test_what_has_no_gpu_form_stays_on_the_cpu(kind: str) -> None:
    plan = plan_placement(replace(EXACT, index_kind=kind), [CPU, gpu()])
    assert where(plan) == ("cpu",)
    assert plan.placement("index").reason == f"FAISS has no GPU form of {kind}"
    assert where(plan, "encoder") == ("cpu",)


GRAPH = replace(
    EXACT,
    index_kind="hnsw",
    index_bytes=GIB,
    graph=GraphForm(degree=64, size_bytes=7 * GIB),
)
CUVS = replace(gpu(), has_cuvs=True)


@pytest.mark.parametrize("kind", ["hnsw", "hnsw:sq8", "hnsw:fp16"])
def test_a_graph_goes_to_a_gpu_where_faiss_has_cuvs(kind: str) -> None:
    sizes = replace(GRAPH, index_kind=kind, has_even_labels=False)
    index = plan_placement(sizes, [CPU, CUVS]).placement("index")
    assert (index.devices, index.size_bytes, index.dtype) == (("gpu:0",), 7 * GIB, "float32")
    index = plan_placement(sizes, [CPU, gpu()]).placement("index")
    assert (index.devices, index.size_bytes) == (("cpu",), 5 * GIB)
    assert f"no GPU form of {kind} without cuVS, which the extra `cuvs` has" in index.reason


def test_a_graph_has_neither_16_bits_nor_parts() -> None:
    short = [replace(gpu(number, 6.9), has_cuvs=True) for number in (0, 1)]
    assert where(plan_placement(GRAPH, [CPU, *short], PLAIN)) == ("cpu",)


def test_filters_and_large_k_of_a_graph_take_the_cpu() -> None:
    plan = plan_placement(GRAPH, [CPU, CUVS])
    assert largest_k(GRAPH) == 903
    assert route(plan, "plain, k up to 903").place == "gpu"
    assert route(plan, "k above 903").place == "cpu"
    assert "1024 candidates" in route(plan, "k above 903").reason
    assert route(plan, "with a filter").place == "cpu"
    assert "filter takes away" in route(plan, "with a filter").reason
    assert where(plan_placement(replace(GRAPH, shortlist=904), [CPU, CUVS])) == ("cpu",)


@pytest.mark.parametrize(
    ("ef_search", "num_labels", "reason"),
    [
        (1025, 10**6, "ef_search 1025 is above 1024"),
        (64, 2048, "2048 labels are so few that a search compares every one"),
    ],
)
def test_graphs_that_a_gpu_does_not_take_stay_on_the_cpu(
    ef_search: int, num_labels: int, reason: str
) -> None:
    form = GraphForm.of(32, ef_search, num_labels=num_labels, width=128)
    plan = plan_placement(replace(GRAPH, graph=form), [CPU, CUVS])
    assert where(plan) == ("cpu",)
    assert reason in plan.placement("index").reason


def test_the_gpu_ignores_filters_so_they_take_the_cpu() -> None:
    plan = plan_placement(IVF, [CPU, gpu()])
    assert route(plan, "plain").place == "gpu"
    assert route(plan, "with a filter").place == "cpu"
    assert "ignore filters" in route(plan, "with a filter").reason


@pytest.mark.parametrize(
    ("kind", "refine", "most"),
    [
        ("exact", 1, 1813),
        ("ivf_flat", 1, 1813),
        ("ivf:sq8", 1, 2040),
        ("ivf:pq", 4, 512),
        ("ivf:pq", 3000, 0),
    ],
)
def test_a_k_that_needs_more_candidates_than_a_gpu_gives_takes_the_cpu(
    kind: str, refine: int, most: int
) -> None:
    """As `GpuIndex` asks: k + 8 and an eighth more, or k times refine."""
    sizes = replace(IVF, index_kind=kind, refine=refine)
    assert largest_k(sizes) == most
    assert route(plan_placement(sizes, [CPU, gpu()]), f"k above {most}").place == "cpu"


def test_codes_of_labels_of_different_lengths_stay_on_the_cpu() -> None:
    codes = replace(IVF, index_kind="ivf:sq8")
    assert where(plan_placement(codes, [CPU, gpu()])) == ("gpu:0",)
    plan = plan_placement(replace(codes, has_even_labels=False), [CPU, gpu()])
    assert where(plan) == ("cpu",)
    assert "lengths of labels differ" in plan.placement("index").reason


def test_a_scan_of_codes_has_no_gpu_form() -> None:
    assert where(plan_placement(replace(IVF, index_kind="scan:fp16"), [CPU, gpu()])) == ("cpu",)


def test_an_nprobe_beyond_the_limit_keeps_the_index_on_the_cpu() -> None:
    assert where(plan_placement(replace(IVF, nprobe=2048), [CPU, gpu()])) == ("gpu:0",)
    plan = plan_placement(replace(IVF, nprobe=2049), [CPU, gpu()])
    assert where(plan) == ("cpu",)
    assert "nprobe 2049 is above 2048" in plan.placement("index").reason


def test_a_shortlist_beyond_the_limit_keeps_the_index_on_the_cpu() -> None:
    plan = plan_placement(replace(EXACT, shortlist=2000), [CPU, gpu()])
    assert where(plan) == ("cpu",)
    assert "shortlist of 2000" in plan.placement("index").reason


def test_the_roomiest_gpu_is_taken() -> None:
    devices = [CPU, gpu(0, 8), gpu(1, 24), gpu(2, 16)]
    assert where(plan_placement(EXACT, devices, PLAIN)) == ("gpu:1",)


@pytest.mark.parametrize(("free_gib", "place"), [(4.0, "gpu:0"), (3.99, "cpu")])
def test_an_index_goes_where_it_just_fits(free_gib: float, place: str) -> None:
    policy = replace(PLAIN, may_fp16=False)
    assert where(plan_placement(EXACT, [CPU, gpu(0, free_gib)], policy)) == (place,)


@pytest.mark.parametrize(
    ("changes", "needed_gib"),
    [
        ({"headroom": 0.2}, 5.0),
        ({"faiss_temp_bytes": GIB}, 5.0),
        ({"copies": 2}, 8.0),
        ({"copies": 2, "faiss_temp_bytes": GIB, "headroom": 0.5}, 20.0),
    ],
)
def test_headroom_the_buffer_of_faiss_and_a_second_version_are_counted(
    changes: dict[str, float], needed_gib: float
) -> None:
    policy = replace(PLAIN, may_fp16=False, **changes)  # type: ignore[arg-type]
    enough, short = gpu(0, needed_gib + 0.01), gpu(0, needed_gib - 0.01)
    assert where(plan_placement(EXACT, [CPU, enough], policy)) == ("gpu:0",)
    plan = plan_placement(EXACT, [CPU, short], policy)
    assert where(plan) == ("cpu",)
    assert "the roomiest has" in plan.placement("index").reason


def test_what_fits_in_16_bits_alone_is_held_in_16_bits_if_it_may_be() -> None:
    plan = plan_placement(EXACT, [CPU, gpu(0, 3)], PLAIN)
    assert plan.placement("index").dtype == "float16"
    assert plan.placement("index").size_bytes == 2 * GIB
    assert "it only proposes" in plan.placement("index").reason
    assert where(plan_placement(EXACT, [CPU, gpu(0, 3)], replace(PLAIN, may_fp16=False))) == (
        "cpu",
    )


def test_lists_have_no_16_bit_form() -> None:
    assert where(plan_placement(IVF, [CPU, gpu(0, 3)], PLAIN)) == ("cpu",)


def test_what_fits_no_gpu_is_spread_over_the_fewest_that_hold_it() -> None:
    devices = [CPU, gpu(0, 2), gpu(1, 3), gpu(2, 3), gpu(3, 3)]
    policy = replace(PLAIN, may_fp16=False)
    large = replace(EXACT, labels_bytes=5 * GIB)
    plan = plan_placement(large, devices, policy)
    assert where(plan) == ("gpu:1", "gpu:2")
    assert "a part on each of 2" in plan.placement("index").reason
    assert plan.placement("index").size_bytes == 5 * GIB
    assert where(plan_placement(large, devices, replace(policy, may_shard=False))) == ("cpu",)


def test_lists_are_not_spread_over_several_gpus() -> None:
    assert where(plan_placement(IVF, [CPU, gpu(0, 3), gpu(1, 3)], PLAIN)) == ("cpu",)


def test_one_gpu_with_16_bits_is_taken_before_several() -> None:
    plan = plan_placement(EXACT, [CPU, gpu(0, 3), gpu(1, 3)], PLAIN)
    assert (where(plan), plan.placement("index").dtype) == (("gpu:0",), "float16")


def test_a_gpu_that_only_torch_sees_holds_no_index() -> None:
    plan = plan_placement(EXACT, [CPU, gpu(has_faiss=False)])
    assert where(plan) == ("cpu",)
    assert "this build of FAISS has no GPU support" in plan.placement("index").reason


def test_a_policy_may_keep_off_the_gpu_or_require_it() -> None:
    plan = plan_placement(EXACT, [CPU, gpu()], Policy(gpu="never"))
    assert where(plan) == ("cpu",)
    assert "policy" in plan.placement("index").reason
    assert where(plan_placement(EXACT, [CPU, gpu()], Policy(gpu="require"))) == ("gpu:0",)
    with pytest.raises(
        ConfigError, match=r"placement\.gpu: expected an index on a GPU, got 'there is no GPU'"
    ):
        plan_placement(EXACT, [CPU], Policy(gpu="require"))


@pytest.mark.parametrize(
    ("ram_gib", "problem"),
    [(12.0, None), (11.9, "2 versions at once"), (5.9, "needs 6,144 MiB of RAM")],
)
def test_ram_that_does_not_do_is_a_problem(ram_gib: float, problem: str | None) -> None:
    cpu = replace(CPU, free_bytes=int(ram_gib * GIB))
    problems = plan_placement(EXACT, [cpu], Policy(headroom=0.0)).problems
    assert [p for p in problems if problem is None or problem not in p] == []
    assert len(problems) == (problem is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"headroom": 1.0}, "placement.headroom"), ({"copies": 0}, "placement.copies")],
)
def test_a_policy_that_makes_no_sense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy(**changes)  # type: ignore[arg-type]


def test_a_machine_has_one_cpu() -> None:
    with pytest.raises(ConfigError, match="devices: expected one CPU"):
        plan_placement(EXACT, [gpu()])


def test_every_decision_has_a_reason() -> None:
    for devices in ([CPU], [CPU, gpu()], [CPU, gpu(0, 1)], [CPU, gpu(0, 3), gpu(1, 3)]):
        for sizes in (EXACT, IVF, GRAPH):
            plan = plan_placement(sizes, devices, PLAIN)
            assert [p.part for p in plan.placements] == ["index", "encoder", "everything"]
            assert all(p.reason for p in plan.placements)
            assert all(r.reason for r in plan.routes)


@pytest.mark.parametrize("kind", ["exact", "ivf_flat", "hnsw"])
def test_the_sizes_of_a_bundle_are_those_of_its_manifest(tmp_path: Path, kind: str) -> None:
    publish_tiny(tmp_path, index_kind=kind, ranker_kind="tree_correction")
    manifest = Repository(tmp_path).manifest("tiny", 1)
    sizes = Sizes.of(manifest)
    assert (sizes.index_kind, sizes.nprobe) == (kind, 4 if kind == "ivf_flat" else None)
    assert sizes.shortlist == manifest.stage("ranker").config["shortlist"]
    assert sizes.ram_bytes == manifest.memory.ram_bytes
    assert (sizes.index_bytes > 0) == (kind != "exact")
    assert (sizes.graph is None) == (kind != "hnsw")
    parameters = {**manifest.index.parameters, "codes": "pq"}
    coded = manifest.index.model_copy(update={"parameters": parameters})
    assert Sizes.of(manifest.model_copy(update={"index": coded})).index_kind == f"{kind}:pq"
    with pytest.raises(KeyError):
        plan_placement(sizes, [CPU]).placement("roof")


def test_the_devices_of_this_machine_begin_with_its_cpu() -> None:
    cpu, *gpus = detect_devices()
    assert cpu.name == "cpu"
    assert cpu.free_bytes > 0
    assert [device.name for device in gpus] == [f"gpu:{i}" for i in range(len(gpus))]


@pytest.mark.parametrize("cuvs", [False, True])
def test_a_device_says_whether_faiss_searches_graphs_on_it(
    monkeypatch: pytest.MonkeyPatch, cuvs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(faiss, "num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "has_cuvs", lambda: cuvs)
    assert [device.has_cuvs for device in detect_devices()] == [False, cuvs]
