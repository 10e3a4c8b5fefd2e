"""Metrics of what a server has and does, read from the registry of a real one."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from motherlode.inference import open_inference_pb2 as oip
from motherlode.inference import open_inference_pb2_grpc
from tests.support.bundles import publish_tiny
from tests.support.servers import TIMEOUT_S, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_models_are_counted_by_whether_they_serve_what_they_should(tmp_path: Path) -> None:
    publish_tiny(tmp_path, "good")
    publish_tiny(tmp_path, "bad")
    async with running_server(tmp_path) as server:
        assert server.metric("models", state="serving") == 2
        assert server.metric("models", state="failing") == 0
        number = publish_tiny(tmp_path, "bad", seed=1)
        (tmp_path / "bad" / f"{number:06d}" / "encoder.safetensors").unlink()
        await server.server.watcher.scan()
        # The older version serves on.
        assert server.metric("models", state="serving") == 2
        assert server.metric("models", state="failing") == 1


async def test_the_build_is_told(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        [family] = [
            f for f in server.server.meters.registry.collect() if f.name.endswith("build_info")
        ]
    [sample] = family.samples
    assert sample.labels["version"] == version("motherlode")
    assert sample.labels["grpc"] == grpc.__version__
    assert all(sample.labels.values())


async def test_writing_an_answer_is_a_stage(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        await server.ask("topic7")
        labels = {"model": "tiny", "version": "1", "stage": "write"}
        assert server.metric("stage_duration_seconds_count", **labels) == 1
        # The other stages are counted after the answer has gone.
        labels["stage"] = "search"
        await until(lambda: server.metric("stage_duration_seconds_count", **labels) == 1)


async def test_the_open_inference_protocol_has_request_ids_too(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path) as server:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(server.channel)
        text = oip.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append(b"topic7")
        request = oip.ModelInferRequest(model_name="tiny", inputs=[text])
        call = stub.ModelInfer(request, metadata=(("x-request-id", "r-1"),), timeout=TIMEOUT_S)
        await call
        assert dict(await call.trailing_metadata())["x-request-id"] == "r-1"
