"""Two protocols, one answer: ModelInfer and TopK give the same bits for every kind of query."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries
from motherlode.core.topk import TopK
from motherlode.inference import open_inference_pb2_grpc
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_dense, publish_tiny
from tests.support.servers import TIMEOUT_S, RunningServer, running_server
from tests.support.tensors import Tensor, infer_request, outputs_of, texts, top_of

MODELS = {
    "exact": {"index_kind": "exact"},
    "ivf_flat": {"index_kind": "ivf_flat"},
    "hnsw-corrected": {"index_kind": "hnsw", "ranker_kind": "tree_correction"},
    "exact-classified": {"index_kind": "exact", "ranker_kind": "sparse_linear"},
}
TEXTS = [f"topic{i} topic{(7 * i) % 50} filler" for i in range(12)] + ["unknown", ""]
K = 7


async def ask_both(
    server: RunningServer, request: pb.TopKRequest, *tensors: Tensor, is_raw: bool
) -> tuple[Any, Any]:
    """The answers of both protocols, asked at once."""
    stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(server.channel)  # type: ignore[no-untyped-call]
    asked = infer_request(
        *tensors, is_raw=is_raw, k=request.k, model_name=request.model.name or "tiny"
    )
    return await asyncio.gather(
        server.stub.TopK(request, timeout=TIMEOUT_S), stub.ModelInfer(asked, timeout=TIMEOUT_S)
    )


def bits(top: TopK) -> tuple[list[int], bytes, list[int]]:
    return top.labels.tolist(), top.scores.tobytes(), top.counts.tolist()


def native_bits(response: pb.TopKResponse) -> tuple[list[int], bytes, list[int]]:
    scores = np.array(response.scores, np.float32).tobytes()
    return list(response.labels), scores, list(response.row_counts)


def floats(array: Any) -> pb.Tensor:
    return pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


@pytest.mark.asyncio
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
async def test_texts_and_sparse_features_get_the_hits_of_top_k(
    tmp_path: Path, model: dict[str, Any], is_raw: bool
) -> None:
    publish_tiny(tmp_path, **model)
    async with running_server(tmp_path) as server:
        fields = [pb.LABEL_FIELD_KEY]
        request = pb.TopKRequest(text=pb.TextBatch(texts=TEXTS), k=K, label_fields=fields)
        native, tensors = await ask_both(server, request, texts(*TEXTS), is_raw=is_raw)
        sparse: Any = server.current().retriever.path.featurizer.transform(TextQueries(TEXTS))
        assert isinstance(sparse, SparseQueries)
        batch = pb.SparseBatch(
            indptr=sparse.indptr.tobytes(),
            indices=sparse.indices.tobytes(),
            values=sparse.values.tobytes(),
        )
        inputs = [Tensor(name, getattr(sparse, name)) for name in ("indptr", "indices", "values")]
        request = pb.TopKRequest(sparse=batch, k=K)
        native_sparse, tensors_sparse = await ask_both(server, request, *inputs, is_raw=is_raw)
    assert bits(top_of(tensors)) == native_bits(native)
    assert bits(top_of(tensors_sparse)) == native_bits(native_sparse)
    keys = [key.decode() for key in outputs_of(tensors)["labels"].ravel() if key]
    assert keys == list(native.label_keys)
    assert sum(native.row_counts) > 0


@pytest.mark.asyncio
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
async def test_features_and_embeddings_get_the_hits_of_top_k(tmp_path: Path, is_raw: bool) -> None:
    publish_dense(tmp_path)
    features_BF = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    async with running_server(tmp_path) as server:
        embeddings_BD = server.current("dense").retriever.encode(DenseQueries(features_BF))
        for name, array in {"features": features_BF, "embeddings": embeddings_BD}.items():
            request = pb.TopKRequest(model=pb.ModelRef(name="dense"), k=K, **{name: floats(array)})
            native, tensors = await ask_both(server, request, Tensor(name, array), is_raw=is_raw)
            assert bits(top_of(tensors)) == native_bits(native)
            assert list(native.row_counts) == [K] * 9
