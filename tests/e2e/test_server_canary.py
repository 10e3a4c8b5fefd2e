"""A version on trial beside the serving one: its share of the calls, and what becomes of it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import grpc
import pytest

from motherlode.clients import AdminClient, InvalidArgumentError, NotFoundError, RefusedError
from motherlode.core.repository import Repository
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.admin import operate, version_of
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1 serves; 2 is newer."""
    for seed in (0, 1):
        publish_tiny(tmp_path, seed=seed)
    Repository(tmp_path).set_alias("tiny", "stable", 1)
    return tmp_path


async def versions(server: RunningServer, num_calls: int) -> Counter[int]:
    return Counter([(await server.ask("topic7")).version for _ in range(num_calls)])


async def outcome(server: RunningServer) -> str:
    """The version that answered, or the status."""
    try:
        return str((await server.ask("topic7")).version)
    except grpc.aio.AioRpcError as error:
        return error.code().name


def begin(percent: float, version: int = 2):
    return lambda admin: admin.set_canary(version, percent)


def give_other_answers(repository: Path, version: int) -> None:
    """Makes a version whose golden answers are version 1's: the gate refuses it."""
    folder = Repository(repository).path_of("tiny", version)
    shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
    forge_manifest(folder)


def break_answers(server: RunningServer, version: int) -> None:
    """Makes every answer of a loaded version an internal error."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of this version")

    served = server.server.catalog.find("tiny").find(version)
    assert served is not None
    vars(served.retriever)["top_k"] = fail


async def test_a_canary_of_ten_per_cent_answers_every_tenth_call(repository: Path) -> None:
    async with running_server(repository) as server:
        model = await operate(server, begin(10))
        assert (model.canary.version, model.canary.percent) == (2, 10.0)
        assert (model.serving_version, model.aliases) == (1, {"canary": 2, "stable": 1})
        assert await versions(server, 50) == {1: 45, 2: 5}
        for ref, version in ((pb.ModelRef(alias="canary"), 2), (pb.ModelRef(version=1), 1)):
            assert (await server.ask("topic7", model=ref)).version == version
        assert server.metric("model_canary_percent", model="tiny", version="2") == 10
        await operate(server, begin(50))
        assert await versions(server, 10) == {1: 5, 2: 5}


async def test_an_alias_and_a_setting_make_a_canary_without_an_operator(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "canary", 2)
    async with running_server(repository, canary_percent=25) as server:
        assert await versions(server, 8) == {1: 6, 2: 2}


async def test_a_canary_without_a_share_answers_who_names_it(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "canary", 2)
    async with running_server(repository) as server:
        assert await versions(server, 5) == {1: 5}
        assert (await server.ask("topic7", model=pb.ModelRef(alias="canary"))).version == 2


async def test_a_canary_that_fails_is_taken_back_for_good(repository: Path) -> None:
    async with running_server(
        repository, canary_min_calls=5, reload_interval_s=0.01, serve_alias="stable"
    ) as server:
        await operate(server, begin(50))
        break_answers(server, 2)
        outcomes = [await outcome(server) for _ in range(30)]
        assert outcomes.count("INTERNAL") == 5
        assert set(outcomes) == {"INTERNAL", "1"}
        rolled_back = {"model": "tiny"}
        await until(lambda: server.metric("model_canary_rollbacks_total", **rolled_back) == 1)
        await until(lambda: server.server.catalog.find("tiny").find(2) is None)
        await until(lambda: "canary" not in Repository(repository).aliases("tiny"))
        await server.server.watcher.scan()
        [model] = await operate(server, AdminClient.list_models)
        assert server.metric("model_canary_percent", model="tiny", version="2") is None
    assert (model.serving_version, model.canary.version) == (1, 0)
    assert model.canary.trouble == (
        "tiny@2 was taken back: 100.00% of its 5 calls failed, of the serving version's 0.00%"
    )
    async with running_server(repository) as server:
        assert server.current().version == 1


@pytest.mark.parametrize("alias", ["stable", ""])
async def test_the_newest_version_does_not_serve_because_it_failed_its_trial(
    tmp_path: Path, alias: str
) -> None:
    publish_tiny(tmp_path)
    settings = {"canary_min_calls": 1, "canary_percent": 100, "serve_alias": alias}
    async with running_server(tmp_path, **settings) as server:
        publish_tiny(tmp_path, seed=1)
        Repository(tmp_path).set_alias("tiny", "canary", 2)
        await server.server.watcher.scan()
        assert server.current().version == 1
        break_answers(server, 2)
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7")
        assert (await server.ask("topic7")).version == 1
        await server.server.watcher.scan()
        await server.server.watcher.scan()
        assert server.current().version == 1
    assert Repository(tmp_path).aliases("tiny") == ({alias: 1} if alias else {})


async def test_a_repository_that_cannot_be_written_keeps_no_bad_canary(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "read-only file system")

    Repository(repository).set_alias("tiny", "canary", 2)
    async with running_server(repository, canary_min_calls=1, canary_percent=100) as server:
        break_answers(server, 2)
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7")
        monkeypatch.setattr("motherlode.core.aliases.replace_file", fail)
        assert (await server.ask("topic7")).version == 1
        await server.server.watcher.scan()
        await server.server.watcher.scan()
        assert await versions(server, 5) == {1: 5}
        assert server.server.catalog.find("tiny").canary is None


async def test_a_canary_is_promoted_by_the_serving_alias_without_a_load(repository: Path) -> None:
    async with running_server(repository) as server:
        await operate(server, begin(10))
        labels = {"model": "tiny", "result": "ok", "reason": ""}
        before = server.metric("model_loads_total", **labels)
        model = await operate(server, lambda admin: admin.set_alias("stable", 2))
        await server.server.watcher.scan()
        assert server.metric("model_loads_total", **labels) == before
        assert await versions(server, 20) == {2: 20}
        assert (model.serving_version, model.aliases) == (2, {"stable": 2})
        await operate(server, AdminClient.roll_back)
        await server.server.watcher.scan()
        assert await versions(server, 20) == {1: 20}


async def test_a_canary_promoted_by_hand_is_not_on_trial_again_after_a_rollback(
    repository: Path,
) -> None:
    for alias in ("stable", "canary"):
        Repository(repository).set_alias("tiny", alias, 2)
    async with running_server(repository, canary_percent=50) as server:
        await operate(server, AdminClient.roll_back)
        await server.server.watcher.scan()
        assert await versions(server, 10) == {1: 10}
        Repository(repository).remove_alias("tiny", "canary")
        await server.server.watcher.scan()
        Repository(repository).set_alias("tiny", "canary", 2)
        await server.server.watcher.scan()
        assert await versions(server, 10) == {1: 5, 2: 5}


async def test_a_trial_ends_and_its_version_goes(repository: Path) -> None:
    async with running_server(repository) as server:
        await operate(server, begin(50))
        model = await operate(server, AdminClient.end_canary)
        assert (model.canary.version, model.aliases) == (0, {"stable": 1})
        assert await versions(server, 10) == {1: 10}
        await server.server.watcher.wait_retired()
        [model] = await operate(server, AdminClient.list_models)
        assert version_of(model, 2).state == "start"
        with pytest.raises(NotFoundError, match="no alias 'tiny@canary'"):
            await operate(server, AdminClient.end_canary)


async def test_the_newest_version_does_not_serve_because_its_trial_ended(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        publish_tiny(tmp_path, seed=1)
        await operate(server, begin(10))
        model = await operate(server, AdminClient.end_canary)
    assert (model.serving_version, model.aliases) == (1, {"stable": 1})


async def test_a_version_that_the_gate_refuses_is_no_canary(repository: Path) -> None:
    give_other_answers(repository, 2)
    async with running_server(repository) as server:
        with pytest.raises(RefusedError, match="tiny@2: gate: "):
            await operate(server, begin(10))
        assert await versions(server, 20) == {1: 20}
    assert Repository(repository).aliases("tiny") == {"stable": 1}


@pytest.mark.parametrize("percent", [0.0, -1.0, 101.0, float("nan")])
async def test_a_share_is_above_none_and_at_most_all(repository: Path, percent: float) -> None:
    async with running_server(repository) as server:
        with pytest.raises(InvalidArgumentError, match="percent: expected above 0, at most 100"):
            await operate(server, begin(percent))


async def test_what_serves_cannot_be_on_trial(repository: Path) -> None:
    async with running_server(repository) as server:
        with pytest.raises(InvalidArgumentError, match="another version than 1, which serves"):
            await operate(server, begin(10, version=1))


async def test_a_canary_that_is_refused_leaves_the_earlier_one_on_trial(repository: Path) -> None:
    give_other_answers(repository, publish_tiny(repository, seed=2))
    async with running_server(repository) as server:
        await operate(server, begin(50))
        earlier = server.server.catalog.find("tiny").canary
        with pytest.raises(RefusedError, match="tiny@3: gate: "):
            await operate(server, begin(10, version=3))
        await server.server.watcher.scan()
        [model] = await operate(server, AdminClient.list_models)
        assert server.server.catalog.find("tiny").canary is earlier
        assert await versions(server, 10) == {1: 5, 2: 5}
    assert (model.canary.version, model.canary.percent, model.canary.trouble) == (2, 50.0, "")
    assert Repository(repository).aliases("tiny") == {"canary": 2, "stable": 1}


async def test_a_canary_makes_way_for_one_that_came_in(repository: Path) -> None:
    publish_tiny(repository, seed=2)
    async with running_server(repository) as server:
        await operate(server, begin(50))
        model = await operate(server, begin(10, version=3))
        assert (model.canary.version, model.canary.percent) == (3, 10.0)
        assert server.server.catalog.find("tiny").find(2) is None
        assert server.metric("model_canary_percent", model="tiny", version="2") is None
        assert await versions(server, 10) == {1: 9, 3: 1}


async def test_a_canary_that_is_refused_pins_nothing(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        give_other_answers(tmp_path, publish_tiny(tmp_path, seed=1))
        with pytest.raises(RefusedError, match="tiny@2: gate: "):
            await operate(server, begin(10))
    assert Repository(tmp_path).aliases("tiny") == {}


async def test_an_earlier_trial_ends_where_what_it_is_compared_with_serves_no_more(
    repository: Path,
) -> None:
    give_other_answers(repository, publish_tiny(repository, seed=2))
    async with running_server(repository, canary_percent=50) as server:
        await operate(server, begin(50))
        Repository(repository).set_alias("tiny", "canary", 3)
        await server.server.watcher.scan()
        assert await versions(server, 4) == {1: 2, 2: 2}
        await operate(server, lambda admin: admin.set_alias("stable", 2))
        await server.server.watcher.scan()
        assert server.server.catalog.find("tiny").canary is None
        assert await versions(server, 4) == {2: 4}


async def test_why_a_canary_was_refused_goes_with_its_alias(repository: Path) -> None:
    give_other_answers(repository, 2)
    Repository(repository).set_alias("tiny", "canary", 2)
    async with running_server(repository) as server:
        [model] = await operate(server, AdminClient.list_models)
        assert model.canary.trouble.startswith("tiny@2: gate: ")
        Repository(repository).remove_alias("tiny", "canary")
        await server.server.watcher.scan()
        [model] = await operate(server, AdminClient.list_models)
        assert model.canary.trouble == ""
