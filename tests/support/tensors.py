"""Requests and answers of the Open Inference Protocol, raw and typed, as a client writes them.

Written apart from the server's own code, so that a mistake there is not made here too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.topk import TopK
from motherlode.inference import open_inference_pb2 as pb

_DATATYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32", "object": "BYTES"}
_CONTENTS = {
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
}


@dataclass(frozen=True)
class Tensor:
    """One input: an array of numbers, or of the dtype object with bytes."""

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        return _DATATYPES[self.array.dtype.name]


def texts(*values: str, name: str = "text") -> Tensor:
    """A BYTES tensor with one axis."""
    return Tensor(name, np.array([value.encode() for value in values], np.object_))


def raw_bytes(array: NDArray[Any]) -> bytes:
    """The raw contents of an array."""
    if array.dtype == np.object_:
        return b"".join(struct.pack("<I", len(one)) + one for one in array.ravel())
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def infer_request(
    *tensors: Tensor, is_raw: bool = True, k: int | None = None, **fields: Any
) -> pb.ModelInferRequest:
    """A request; `fields` are more fields of ModelInferRequest, k becomes a parameter."""
    request = pb.ModelInferRequest(**{"model_name": "tiny", **fields})
    for tensor in tensors:
        message = request.inputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape
        )
        if is_raw:
            request.raw_input_contents.append(raw_bytes(tensor.array))
        else:
            values = tensor.array.ravel().tolist()
            getattr(message.contents, _CONTENTS[tensor.datatype]).extend(values)
    if k is not None:
        request.parameters["k"].int64_param = k
    return request


def wanted(*names: str) -> list[pb.ModelInferRequest.InferRequestedOutputTensor]:
    """Requested outputs."""
    return [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]


def outputs_of(response: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    """The outputs of an answer by name, in their order and shape; BYTES as the dtype object."""
    raw = list(response.raw_output_contents)
    assert len(raw) in {0, len(response.outputs)}
    return {
        output.name: _array(output, raw[i] if raw else None)
        for i, output in enumerate(response.outputs)
    }


def top_of(response: pb.ModelInferResponse) -> TopK:
    """The hits of an answer without the padding."""
    outputs = outputs_of(response)
    ids_BK, scores_BK, counts_B = outputs["ids"], outputs["scores"], outputs["counts"]
    real_BK = np.arange(ids_BK.shape[1]) < counts_B[:, None]
    return TopK(ids_BK[real_BK], scores_BK[real_BK], counts_B.astype(np.int64))


def _array(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> NDArray[Any]:
    shape = tuple(output.shape)
    values = (
        getattr(output.contents, _CONTENTS[output.datatype])
        if raw is None
        else _values_of(raw, output.datatype)
    )
    dtype = next(name for name, datatype in _DATATYPES.items() if datatype == output.datatype)
    return np.array(values, dtype).reshape(shape)


def _values_of(raw: bytes, datatype: str) -> Sequence[Any] | NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, {"INT32": "<i4", "INT64": "<i8", "FP32": "<f4"}[datatype])
    values, place = [], 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        values.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    return values
