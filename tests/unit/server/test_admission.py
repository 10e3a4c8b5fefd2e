from __future__ import annotations

import pytest

from motherlode.server.admission import (
    Admission,
    AdmissionError,
    Footprint,
    Occupancy,
    ReloadPolicy,
    Way,
)

GIB = 2**30
KIB = 2**10


def choose(
    available: int,
    there: Occupancy,
    *,
    new: int = 100,
    policy: ReloadPolicy = "auto",
    limit: int | None = None,
    may_drain: bool = True,
) -> Way:
    admission = Admission(policy, limit, lambda: available)
    return admission.choose(Footprint(new), there, may_drain=may_drain)


SERVING = Occupancy(serving=Footprint(100))
WITH_KEPT = Occupancy(serving=Footprint(100), kept=[Footprint(100)])


@pytest.mark.parametrize(
    ("available", "there", "way"),
    [
        # A tenth of what is free stays free.
        (112, SERVING, Way.BESIDE),
        (110, SERVING, Way.DRAIN),
        (112, WITH_KEPT, Way.BESIDE),
        (110, WITH_KEPT, Way.WITHOUT_KEPT),
        (0, SERVING, Way.DRAIN),
    ],
)
def test_by_itself_it_gives_up_no_more_than_it_must(
    available: int, there: Occupancy, way: Way
) -> None:
    assert choose(available, there) is way


def test_what_would_not_fit_alone_is_refused_with_both_figures() -> None:
    with pytest.raises(AdmissionError, match=r"1,000 bytes are predicted.* room for 145 "):
        choose(50, SERVING, new=1000)


def test_pages_of_mapped_files_are_free_memory_already_so_to_drop_them_frees_none() -> None:
    mapped = Occupancy(serving=Footprint(100, mapped_bytes=100))
    with pytest.raises(AdmissionError):
        choose(90, mapped)


def test_a_double_buffer_is_never_drained() -> None:
    with pytest.raises(AdmissionError, match="reload_policy double_buffer"):
        choose(0, SERVING, policy="double_buffer")


def test_who_wants_to_drain_always_drains() -> None:
    assert choose(10 * GIB, SERVING, policy="drain") is Way.DRAIN


@pytest.mark.parametrize("policy", ["auto", "drain"])
def test_what_does_not_take_the_serving_place_never_drains_it(policy: ReloadPolicy) -> None:
    assert choose(200, SERVING, policy=policy, may_drain=False) is Way.BESIDE
    with pytest.raises(AdmissionError):
        choose(0, SERVING, policy=policy, may_drain=False)


def test_the_first_version_needs_no_free_memory_since_its_files_are_mapped() -> None:
    assert choose(0, Occupancy()) is Way.BESIDE


@pytest.mark.parametrize(
    ("limit", "there", "way"),
    [
        (200, SERVING, Way.BESIDE),
        (199, SERVING, Way.DRAIN),
        (299, WITH_KEPT, Way.WITHOUT_KEPT),
        (299, Occupancy(serving=Footprint(100), others=[Footprint(100)]), Way.DRAIN),
        (100, Occupancy(), Way.BESIDE),
    ],
)
def test_a_limit_counts_what_all_versions_are_predicted_to_have(
    limit: int, there: Occupancy, way: Way
) -> None:
    assert choose(10 * GIB, there, limit=limit) is way


def test_a_limit_holds_for_the_first_version_too() -> None:
    with pytest.raises(AdmissionError, match="room for 99"):
        choose(10 * GIB, Occupancy(), limit=99)
