"""New versions while the server runs: swapped in whole, or refused while the old one serves."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.slot import Slot
from motherlode.server.trials import Trials
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import Barrier, RunningServer, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

TEXTS = ("topic7 filler", "topic3 other", "topic11")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


def expected_answer(repository: Path, version: int) -> tuple[str, list[int], list[float]]:
    retriever = Retriever.load(Repository(repository), "tiny", version)
    top = retriever.top_k(TextQueries(TEXTS), 5)
    return retriever.digest, top.labels.tolist(), top.scores.tolist()


def actual_answer(response: pb.TopKResponse) -> tuple[str, list[int], list[float]]:
    return response.bundle_digest, list(response.labels), list(response.scores)


async def scan(server: RunningServer) -> None:
    await server.server.watcher.scan()


def corrupt(folder: Path) -> None:
    path = folder / "label_embeddings.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lose_a_file(folder: Path) -> None:
    (folder / "encoder.safetensors").unlink()


def cut_a_file(folder: Path) -> None:
    path = folder / "labels.arrow"
    path.write_bytes(path.read_bytes()[:100])


def swap_index(folder: Path) -> None:
    shutil.copy(folder.parent / "000001" / "index" / "index.faiss", folder / "index")


def swap_index_and_hide_it(folder: Path) -> None:
    swap_index(folder)
    forge_manifest(folder)


def swap_encoder_and_hide_it(folder: Path) -> None:
    shutil.copy(folder.parent / "000001" / "encoder.safetensors", folder)
    forge_manifest(folder)


def make_newer(folder: Path) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8")) | {"format_version": 99}
    path.write_text(json.dumps(document), encoding="utf-8")


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format_version": 1', encoding="utf-8")


BAD = [
    (corrupt, "verify", "bundle", "label_embeddings.safetensors"),
    (lose_a_file, "verify", "bundle", "encoder.safetensors"),
    (cut_a_file, "verify", "bundle", "labels.arrow"),
    (swap_index, "verify", "bundle", "index.faiss"),
    (swap_index_and_hide_it, "load", "bundle", "index.faiss"),
    (swap_encoder_and_hide_it, "gate", "gate", "encoder.safetensors"),
    (make_newer, "verify", "unsupported_format", "format version 99"),
    (break_manifest, "verify", "bundle", "manifest.json"),
]


@pytest.mark.parametrize(
    ("spoil", "stage", "reason", "told"), BAD, ids=[row[0].__name__ for row in BAD]
)
async def test_a_bad_version_is_refused_and_the_old_one_serves(
    repository: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    stage: str,
    reason: str,
    told: str,
) -> None:
    async with running_server(repository) as server:
        spoil(Repository(repository).path_of("tiny", publish_tiny(repository, seed=1)))
        await scan(server)
        await scan(server)
        response = await server.ask("topic7")
        [model] = (await server.info()).models
        labels = {"model": "tiny", "result": "failed", "reason": reason}
        # Looked at twice, tried once.
        assert server.metric("model_loads_total", **labels) == 1
    assert (response.version, model.version) == (1, 1)
    assert model.load_error.startswith(f"tiny@2: {stage}: ")
    assert model.load_error in caplog.text
    assert told in model.load_error
    assert str(repository) not in model.load_error


async def test_a_version_that_is_still_being_copied_is_left_alone(repository: Path) -> None:
    async with running_server(repository) as server:
        folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=1))
        (folder / "manifest.json").rename(repository / "manifest.json")
        await scan(server)
        [model] = (await server.info()).models
        assert (model.version, model.load_error) == (1, "")
        (repository / "manifest.json").rename(folder / "manifest.json")
        await scan(server)
        assert (await server.ask("topic7")).version == 2


async def test_a_bad_version_that_is_repaired_is_tried_again(repository: Path) -> None:
    async with running_server(repository) as server:
        folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=1))
        (folder / "encoder.safetensors").rename(repository / "kept")
        await scan(server)
        assert (await server.ask("topic7")).version == 1
        (repository / "kept").rename(folder / "encoder.safetensors")
        await scan(server)
        assert (await server.ask("topic7")).version == 2
        assert (await server.info()).models[0].load_error == ""


async def test_the_newest_good_version_serves_where_the_newest_is_bad(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    corrupt(Repository(repository).path_of("tiny", publish_tiny(repository, seed=2)))
    async with running_server(repository) as server:
        assert (await server.ask("topic7")).version == 2
        assert "000003" in (await server.info()).models[0].load_error


async def test_a_model_without_a_good_version_is_unavailable_and_tells_why(
    repository: Path,
) -> None:
    corrupt(Repository(repository).path_of("tiny", 1))
    async with running_server(repository) as server:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.ask("topic7")
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "label_embeddings.safetensors" in (error.value.details() or "")


async def test_under_load_no_call_fails_and_each_answer_is_wholly_of_one_version(
    repository: Path,
) -> None:
    num_versions = 20
    stop = asyncio.Event()
    responses: list[pb.TopKResponse] = []

    async def keep_asking(server: RunningServer) -> None:
        while not stop.is_set():
            responses.append(await server.ask(*TEXTS, k=5))

    async with running_server(repository) as server:
        askers = [asyncio.create_task(keep_asking(server)) for _ in range(8)]
        for seed in range(1, num_versions):
            await asyncio.to_thread(publish_tiny, repository, seed=seed)
            await scan(server)
        stop.set()
        await asyncio.gather(*askers)
        responses.append(await server.ask(*TEXTS, k=5))
        labels = {"model": "tiny", "result": "ok", "reason": ""}
        assert server.metric("model_loads_total", **labels) == num_versions
    expected = {v: expected_answer(repository, v) for v in {one.version for one in responses}}
    assert len(expected) > 2
    assert all(actual_answer(one) == expected[one.version] for one in responses)
    assert responses[-1].version == num_versions


async def test_a_call_under_way_is_answered_by_the_version_it_began_with(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=1)
            await scan(server)
            late = asyncio.create_task(server.ask("topic7"))
            barrier.release()
            assert ((await early).version, (await late).version) == (1, 2)


async def test_a_retired_version_leaves_memory_and_metrics(repository: Path) -> None:
    async with running_server(repository, kept_versions=0) as server:
        await server.ask("topic7")
        gone = weakref.ref(server.current().retriever)
        publish_tiny(repository, seed=1)
        await scan(server)
        await server.server.watcher.wait_retired()
        await server.ask("topic7")

        def is_gone() -> bool:
            gc.collect()
            return gone() is None

        await until(is_gone)
        exported = {
            sample.labels["version"]
            for metric in server.server.meters.registry.collect()
            for sample in metric.samples
            if sample.labels.get("model") == "tiny" and "version" in sample.labels
        }
        assert exported == {"2"}


async def test_kept_versions_can_be_asked_by_number_until_they_leave(repository: Path) -> None:
    async with running_server(repository, kept_versions=1) as server:
        for seed in (1, 2):
            publish_tiny(repository, seed=seed)
            await scan(server)
        kept = await server.ask("topic7", model=pb.ModelRef(version=2))
        assert list((await server.info()).models[0].loaded_versions) == [3, 2]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.ask("topic7", model=pb.ModelRef(version=1))
    assert kept.version == 2
    assert "tiny@3, tiny@2" in (error.value.details() or "")


async def test_a_wanted_model_that_is_not_there_is_told_once(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository, models=("tiny", "typo")) as server:
        await scan(server)
    assert [r.getMessage() for r in caplog.records if "typo" in r.getMessage()] == [
        "the repository has no model typo yet"
    ]


async def test_of_many_bad_versions_the_newest_are_told(repository: Path) -> None:
    async with running_server(repository) as server:
        for version in range(2, 8):
            folder = repository / "tiny" / f"{version:06d}"
            folder.mkdir()
            (folder / "manifest.json").write_text("{", encoding="utf-8")
        await scan(server)
        error = (await server.info()).models[0].load_error
    assert "000007" in error
    assert "000004" not in error
    assert error.endswith("; and 3 more")


async def test_a_retired_version_is_freed_beside_the_event_loop(repository: Path) -> None:
    async with running_server(repository, kept_versions=0) as server:
        freed_in: list[str] = []
        weakref.finalize(
            server.current().retriever,
            lambda: freed_in.append(threading.current_thread().name),
        )
        publish_tiny(repository, seed=1)
        await scan(server)
        await server.server.watcher.wait_retired()
        assert len(freed_in) == 1
        assert threading.main_thread().name not in freed_in


async def test_models_appear_and_vanish_while_the_server_runs(repository: Path) -> None:
    async with running_server(repository) as server:
        publish_tiny(repository, "second")
        await scan(server)
        ref = pb.ModelRef(name="second")
        assert (await server.ask("topic7", model=ref)).model == "second"
        shutil.rmtree(repository / "second")
        await scan(server)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.ask("topic7", model=ref)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await server.ask("topic7")).model == "tiny"
        await server.server.watcher.wait_retired()
        assert server.metric("model_last_reload_timestamp_seconds", model="second") is None
        publish_tiny(repository, "second", seed=3)
        await scan(server)
        assert (await server.ask("topic7", model=ref)).model == "second"


async def test_a_repository_that_cannot_be_read_for_a_while_changes_nothing(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = tmp_path_factory.mktemp("away") / "repository"
    async with running_server(repository) as server:
        shutil.move(repository, away)
        await scan(server)
        assert (await server.ask("topic7")).version == 1
        shutil.move(away, repository)
        publish_tiny(repository, seed=1)
        await scan(server)
        assert (await server.ask("topic7")).version == 2


async def test_the_repository_is_looked_at_again_and_again(repository: Path) -> None:
    async with running_server(repository, reload_interval_s=0.01) as server:
        publish_tiny(repository, seed=1)
        await until(lambda: server.current().version == 2)


async def test_a_trigger_saves_the_wait(repository: Path) -> None:
    async with running_server(repository, reload_interval_s=3600) as server:
        publish_tiny(repository, seed=1)
        server.server.watcher.trigger()
        await until(lambda: server.current().version == 2)


async def test_a_look_that_fails_is_not_the_last_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async with running_server(repository, reload_interval_s=0.01) as server:
        monkeypatch.setattr("motherlode.server.watcher.model_names", fail)
        await until(lambda: "a bug" in caplog.text)
        monkeypatch.undo()
        publish_tiny(repository, seed=1)
        await until(lambda: server.current().version == 2)


@pytest.mark.parametrize(("retry_after_s", "version"), [(0.0, 2), (3600.0, 1)])
@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(28, "no space"), "io"), (MemoryError(), "out_of_memory")]
)
async def test_a_failure_that_may_pass_is_tried_again_after_a_while(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
    retry_after_s: float,
    version: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("motherlode.server.failure._RETRY_OTHER_FAILURES_S", retry_after_s)
    async with running_server(repository) as server:
        publish_tiny(repository, seed=1)
        with monkeypatch.context() as patch:
            patch.setattr("motherlode.server.intake.read_bundle", fail)
            await scan(server)
        labels = {"model": "tiny", "result": "failed", "reason": reason}
        assert server.metric("model_loads_total", **labels) == 1
        await scan(server)
        assert server.current().version == version


async def test_a_bug_that_one_model_meets_does_not_stop_the_others(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refresh = Trials.refresh

    async def fail(trials: Trials, slot: Slot) -> None:
        if slot.model == "aaa":
            raise ZeroDivisionError("a bug")
        await refresh(trials, slot)

    publish_tiny(repository, "aaa")
    async with running_server(repository) as server:
        monkeypatch.setattr(Trials, "refresh", fail)
        publish_tiny(repository, seed=1)
        await scan(server)
        assert server.current().version == 2
    assert "looking at model aaa failed" in caplog.text
