"""The answers of ModelInfer and the choice of a version, with a real tiny retriever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motherlode.core.errors import NotFoundError, RequestTooLargeError
from motherlode.core.queries import TextQueries
from motherlode.core.query_path import StageTimes
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.call import Answer, Call
from motherlode.server.config import ServerConfig
from motherlode.server.metrics import Meters
from motherlode.server.open_inference.wire import choose_version, write_response
from motherlode.server.slot import Catalog, ServedVersion
from tests.support.bundles import publish_tiny
from tests.support.tensors import infer_request, outputs_of, texts, wanted

ONE = texts("topic7")


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    repository = tmp_path_factory.mktemp("repository")
    publish_tiny(repository)
    return Retriever.load(Repository(repository), "tiny")


def served(retriever: Retriever) -> ServedVersion:
    return ServedVersion(retriever, Meters().version("tiny", 1))


def write(
    retriever: Retriever, top: TopK, k: int, request: pb.ModelInferRequest, **limits: Any
) -> pb.ModelInferResponse:
    loop = asyncio.new_event_loop()
    try:
        call = Call(served(retriever), TextQueries([""] * len(top)), k, loop.create_future())
    finally:
        loop.close()
    config = ServerConfig(repository=Path("unused"), **limits)
    return write_response(request, call, Answer(top, 0.0, StageTimes()), config)


RAGGED = TopK(
    np.array([7, 3, 9]), np.array([0.5, -0.25, -4.0], np.float32), np.array([2, 0, 1], np.int64)
)


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_rows_are_padded_so_that_no_padding_looks_like_a_hit(
    retriever: Retriever, is_raw: bool
) -> None:
    response = write(retriever, RAGGED, 3, infer_request(ONE, is_raw=is_raw, id="mine"))
    assert bool(response.raw_output_contents) == is_raw
    outputs = outputs_of(response)
    assert list(outputs) == ["ids", "scores", "labels", "counts"]
    low = -np.inf
    assert outputs["ids"].tolist() == [[7, 3, -1], [-1, -1, -1], [9, -1, -1]]
    assert outputs["scores"].tolist() == [[0.5, -0.25, low], [low, low, low], [-4.0, low, low]]
    assert outputs["labels"].tolist() == [
        [b"label7", b"label3", b""],
        [b"", b"", b""],
        [b"label9", b"", b""],
    ]
    assert outputs["counts"].tolist() == [2, 0, 1]
    assert [output.datatype for output in response.outputs] == ["INT64", "FP32", "BYTES", "INT32"]
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "mine")
    assert response.parameters["bundle_digest"].string_param == retriever.digest


def test_only_the_outputs_asked_for_come_in_the_order_asked_for(retriever: Retriever) -> None:
    request = infer_request(ONE, outputs=wanted("counts", "ids"))
    outputs = outputs_of(write(retriever, RAGGED, 2, request))
    assert list(outputs) == ["counts", "ids"]
    assert outputs["ids"].tolist() == [[7, 3], [-1, -1], [9, -1]]


def test_an_answer_that_turns_out_too_large_is_refused(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever.labels, "keys_of", lambda rows: ["long " * 200] * len(rows))
    with pytest.raises(RequestTooLargeError, match="an answer of at most 1024 bytes"):
        write(retriever, RAGGED, 3, infer_request(ONE), max_message_bytes=1024)


def test_a_version_is_digits_an_alias_or_the_serving_one(retriever: Retriever) -> None:
    catalog = Catalog()
    slot = catalog.open("tiny")
    slot.swap(served(retriever), num_kept=0)
    slot.aliases = {"stable": 1, "old": 0}
    for version in ("", "1", "01", "stable"):
        assert choose_version("tiny", version, catalog) is slot.current
    for version in ("0", "2", "old", "canary", "-1", "١", "9" * 5000):
        with pytest.raises(NotFoundError):
            choose_version("tiny", version, catalog)
    with pytest.raises(NotFoundError):
        choose_version("other", "", catalog)
