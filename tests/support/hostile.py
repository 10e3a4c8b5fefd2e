"""Requests that nobody means well with: bytes, and messages that declare what they do not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st

from motherlode.inference import open_inference_pb2 as inference_pb
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import WIDTH

MODELS = ("tiny", "dense")
# Every service of the port for callers.
SERVICES: tuple[Any, ...] = (
    pb.DESCRIPTOR.services_by_name["RetrievalService"],
    inference_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS: tuple[Any, ...] = tuple(method for service in SERVICES for method in service.methods)

_INTEGERS = st.one_of(
    st.integers(-2, 20), st.sampled_from([2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)])
)
_SHAPES = st.one_of(st.just([1, WIDTH]), st.lists(_INTEGERS, max_size=4))
_FLOATS = st.lists(st.floats(width=32), min_size=WIDTH, max_size=WIDTH).map(
    lambda values: np.array(values, "<f4").tobytes()
)
_ROWS = st.lists(_INTEGERS, max_size=6).map(lambda values: np.array(values, "<i8").tobytes())
_NAMES = st.sampled_from(
    ["text", "embeddings", "features", "k", "indptr", "indices", "values", "?"]
)
_DATATYPES = st.sampled_from(["BYTES", "FP32", "INT32", "INT64", "FP64", ""])
_TENSORS = st.builds(
    pb.Tensor, dtype=st.integers(0, 3), shape=_SHAPES, data=_FLOATS | st.binary(max_size=80)
)
_SPARSE = st.builds(
    pb.SparseBatch, indptr=_ROWS, indices=_ROWS, values=_FLOATS | st.binary(max_size=40)
)
_FILTERS = st.builds(
    pb.LabelFilter, allow=st.lists(st.text(max_size=8), max_size=2), deny=st.just([])
)


def _top_k_requests() -> st.SearchStrategy[Any]:
    queries = st.one_of(
        st.fixed_dictionaries({"embeddings": _TENSORS}),
        st.fixed_dictionaries({"features": _TENSORS}),
        st.fixed_dictionaries({"sparse": _SPARSE}),
        st.fixed_dictionaries(
            {"text": st.builds(pb.TextBatch, texts=st.lists(st.text(max_size=20), max_size=3))}
        ),
    )
    return st.builds(
        lambda name, kind, others: pb.TopKRequest(model=pb.ModelRef(name=name), **kind, **others),
        st.sampled_from(MODELS),
        queries,
        st.fixed_dictionaries(
            {"k": st.sampled_from([0, 1, 3, 50, 2**32 - 1])},
            optional={"filter": _FILTERS, "label_fields": st.lists(st.integers(0, 3), max_size=3)},
        ),
    )


_INPUTS = st.builds(
    inference_pb.ModelInferRequest.InferInputTensor,
    name=_NAMES,
    datatype=_DATATYPES,
    shape=_SHAPES,
)
_INFER_REQUESTS = st.builds(
    inference_pb.ModelInferRequest,
    model_name=st.sampled_from(MODELS),
    model_version=st.sampled_from(["", "1", "9" * 30, "stable"]),
    inputs=st.lists(_INPUTS, max_size=3),
    raw_input_contents=st.lists(_FLOATS | _ROWS | st.binary(max_size=60), max_size=3),
)


@st.composite
def _mutated(draw: st.DrawFn, messages: st.SearchStrategy[Message]) -> bytes:
    """The bytes of a message, some of them replaced, taken out or put in."""
    data = bytearray(draw(messages).SerializeToString())
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 3)))
        data[start:stop] = draw(st.binary(max_size=3))
    return bytes(data)


def requests_of(method: Any) -> st.SearchStrategy[bytes]:
    """Bytes to send to a method, given by its descriptor."""
    messages: dict[str, st.SearchStrategy[Any]] = {
        "TopKRequest": _top_k_requests(),
        "TopKStreamRequest": st.builds(pb.TopKStreamRequest, request=_top_k_requests()),
        "ModelInferRequest": _INFER_REQUESTS,
    }
    any_bytes = st.binary(max_size=100)
    chosen = messages.get(method.input_type.name)
    return any_bytes if chosen is None else st.one_of(_mutated(chosen), any_bytes)
