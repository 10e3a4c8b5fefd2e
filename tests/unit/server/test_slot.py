from __future__ import annotations

import asyncio

import pytest

from motherlode.core.errors import InvalidInputError, NotFoundError, UnavailableError
from motherlode.server.canary import Canary, CanaryLimits
from motherlode.server.metrics import Meters
from motherlode.server.slot import Catalog, ServedVersion, Slot
from tests.support.fake_retriever import FakeRetriever


def served(version: int) -> ServedVersion:
    return ServedVersion(FakeRetriever(version).as_retriever, Meters().version("fake", version))


def slot_of(*versions: int, num_kept: int = 0) -> Slot:
    slot = Slot("fake")
    for version in versions:
        slot.swap(served(version), num_kept=num_kept)
    return slot


def versions_of(versions: tuple[ServedVersion, ...]) -> list[int]:
    return [one.version for one in versions]


def test_the_serving_version_answers_a_request_that_names_none() -> None:
    assert slot_of(1, 2).choose().version == 2


def test_the_serving_version_may_be_named() -> None:
    assert slot_of(1, 2).choose(version=2).version == 2


def test_a_version_that_was_swapped_out_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no version 'fake@1'; there is fake@2"):
        slot_of(1, 2).choose(version=1)


def test_a_kept_version_may_be_named() -> None:
    slot = slot_of(1, 2, 3, num_kept=1)
    assert slot.choose(version=2).version == 2
    assert versions_of(slot.loaded) == [3, 2]
    with pytest.raises(NotFoundError, match="there is fake@3, fake@2"):
        slot.choose(version=1)


def test_a_swap_gives_the_versions_that_leave() -> None:
    slot = slot_of(1, 2, num_kept=1)
    assert versions_of(slot.swap(served(3), num_kept=1)) == [1]


def test_a_version_that_comes_again_replaces_itself() -> None:
    slot = slot_of(1)
    before = slot.current
    assert slot.swap(served(1), num_kept=3) == (before,)
    assert versions_of(slot.loaded) == [1]


def test_an_alias_means_its_version() -> None:
    slot = slot_of(1, 2)
    slot.aliases = {"stable": 2}
    assert slot.choose(alias="stable").version == 2


def test_an_alias_of_a_version_that_is_not_loaded_is_not_found() -> None:
    slot = slot_of(1, 2)
    slot.aliases = {"old": 1, "stable": 2}
    with pytest.raises(NotFoundError, match="no version 'fake@1'; there is fake@2, fake@stable"):
        slot.choose(alias="old")


def test_an_unknown_alias_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no alias 'fake@canary'"):
        slot_of(1).choose(alias="canary")


@pytest.mark.parametrize(
    ("load_error", "why"), [("", "is being loaded"), ("it is torn", "it is torn")]
)
def test_a_model_without_a_loaded_version_is_unavailable_and_says_why(
    load_error: str, why: str
) -> None:
    slot = Slot("fake")
    slot.load_error = load_error
    with pytest.raises(UnavailableError, match=why) as error:
        slot.choose()
    assert error.value.reason == "MODEL_NOT_LOADED"


def test_an_empty_name_means_the_only_model() -> None:
    catalog = Catalog()
    slot = catalog.open("one")
    assert catalog.find("") is slot
    assert catalog.open("one") is slot


def test_an_empty_name_among_several_models_is_a_wrong_request() -> None:
    catalog = Catalog()
    catalog.open("two")
    catalog.open("one")
    with pytest.raises(InvalidInputError, match=r"model\.name: expected one of one, two"):
        catalog.find("")


@pytest.mark.parametrize("name", ["", "other"])
def test_an_unknown_model_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError, match="no model"):
        Catalog().find(name)


def test_a_closed_slot_gives_its_versions_and_is_not_found_any_more() -> None:
    catalog = Catalog()
    catalog.open("one").swap(served(4), num_kept=0)
    assert versions_of(catalog.close("one")) == [4]
    assert list(catalog) == []


@pytest.mark.asyncio
async def test_a_version_is_idle_when_its_last_call_is_done() -> None:
    version = served(1)
    await version.wait_idle()
    version.begin_call()
    version.begin_call()
    waiting = asyncio.create_task(version.wait_idle())
    version.end_call()
    await asyncio.sleep(0)
    assert not waiting.done()
    version.end_call()
    await waiting


def test_one_slow_batch_makes_a_version_slow_until_many_fast_ones_followed() -> None:
    version = served(1)
    durations = []
    for duration_s in [0.001] * 100 + [0.1] + [0.001] * 10:
        version.note_duration(duration_s)
        durations.append(version.usual_duration_s)
    assert durations[0] > 0.5
    assert durations[99] == pytest.approx(0.001, rel=0.1)
    assert durations[100] == 0.1
    assert durations[110] > 0.01


def test_a_version_that_was_timed_is_not_taken_for_slow() -> None:
    meters = Meters().version("fake", 1)
    version = ServedVersion(FakeRetriever(1).as_retriever, meters, duration_s=0.001)
    assert version.usual_duration_s == 0.001


def test_a_version_beside_the_serving_one_may_be_named_and_comes_to_serve_as_it_is() -> None:
    slot = slot_of(1)
    beside = served(2)
    slot.add(beside)
    assert versions_of(slot.loaded) == [1, 2]
    assert slot.choose(version=2) is beside
    assert versions_of(slot.swap(beside, num_kept=1)) == []
    assert (slot.current, versions_of(slot.loaded)) == (beside, [2, 1])


def test_a_kept_version_that_serves_again_leaves_its_place_to_the_other() -> None:
    slot = slot_of(1, 2, num_kept=1)
    kept = slot.find(1)
    assert kept is not None
    assert slot.swap(kept, num_kept=1) == ()
    assert versions_of(slot.loaded) == [1, 2]


def test_what_leaves_a_slot_is_on_trial_no_more() -> None:
    slot = slot_of(1, 2, num_kept=1)
    kept, current = slot.find(1), slot.current
    assert kept is not None
    assert current is not None
    slot.canary = Canary(kept, current, 50, CanaryLimits(), lambda: None)
    slot.swap(served(3), num_kept=1)
    assert slot.canary is None


def test_while_a_slot_drains_nothing_is_chosen() -> None:
    slot = slot_of(1)
    slot.is_draining = True
    with pytest.raises(UnavailableError, match="makes way") as error:
        slot.choose(version=1)
    assert error.value.reason == "RELOADING"
