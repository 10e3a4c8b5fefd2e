"""Tensors of the Open Inference Protocol as arrays, whatever models make of them.

A tensor's elements come typed, in `contents`, or raw, in `raw_input_contents`: little-endian and
row-major, for BYTES with a uint32 length before each element. Nothing that a request declares is
believed before the bytes that came have been counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.limits import fail

_LENGTH_BYTES = 4

# How elements look in raw contents, and in which field of InferTensorContents they are typed.
_DTYPES = {"INT32": "<i4", "INT64": "<i8", "FP32": "<f4"}
_CONTENTS = {
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
}


@final
@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor must look like, or will.

    Attributes:
        name: Its name.
        datatype: BYTES, FP32, INT32 or INT64.
        shape: Its lengths; -1 where any will do.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request.

    Attributes:
        message: As it came, with its contents where they are typed.
        raw: Its raw contents; None where they are typed.
    """

    message: pb.ModelInferRequest.InferInputTensor
    raw: bytes | None

    @property
    def field(self) -> str:
        """Its path in error messages; to be used once its name is known to be a known one."""
        return f"inputs.{self.message.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as declared."""
        return tuple(self.message.shape)

    def array(self, datatypes: Sequence[str]) -> NDArray[Any]:
        """Its elements in its shape, in an array of their own.

        Args:
            datatypes: Those that will do, of FP32, INT32 and INT64.

        Raises:
            InvalidQueryError: If it has another datatype, a negative length, or more or fewer
                elements than its shape says.
        """
        datatype = self._check_datatype(datatypes)
        size = self._declared_size()
        dtype = np.dtype(_DTYPES[datatype])
        if self.raw is None:
            return np.array(self._typed(datatype, size), dtype.newbyteorder("=")).reshape(
                self.shape
            )
        if len(self.raw) != size * dtype.itemsize:
            fail(self.field, f"{size * dtype.itemsize} bytes of raw contents", len(self.raw))
        # Copied, since PyTorch warns about memory that cannot be written to.
        return np.frombuffer(self.raw, dtype).astype(dtype.newbyteorder("=")).reshape(self.shape)

    def texts(self, max_bytes: int) -> list[str]:
        """Its elements, BYTES of UTF-8, in row-major order.

        Args:
            max_bytes: The longest element that is taken.

        Raises:
            InvalidQueryError: If it has another datatype, a negative length, more or fewer elements
                than its shape says, or one that is too long or no UTF-8.
        """
        datatype = self._check_datatype(["BYTES"])
        size = self._declared_size()
        elements = self._typed(datatype, size) if self.raw is None else self._split(self.raw, size)
        return [self._text(i, element, max_bytes) for i, element in enumerate(elements)]

    def _check_datatype(self, datatypes: Sequence[str]) -> str:
        if self.message.datatype not in datatypes:
            fail(f"{self.field}.datatype", " or ".join(datatypes), self.message.datatype)
        return self.message.datatype

    def _declared_size(self) -> int:
        if min(self.shape, default=0) < 0:
            fail(f"{self.field}.shape", "lengths of 0 or more", list(self.shape))
        return prod(self.shape)

    def _typed(self, datatype: str, size: int) -> Sequence[Any]:
        name = _CONTENTS[datatype]
        values: Sequence[Any] = getattr(self.message.contents, name)
        if len(values) != size:
            fail(f"{self.field}.contents.{name}", f"{size} values", len(values))
        return values

    def _split(self, raw: bytes, size: int) -> list[bytes]:
        """The elements of raw BYTES; as many as declared, or as many as there are and one."""
        elements: list[bytes] = []
        place = 0
        while place < len(raw) and len(elements) <= size:
            start = place + _LENGTH_BYTES
            stop = start + int.from_bytes(raw[place:start], "little")
            if stop > len(raw):
                rest = f"{len(raw) - place} bytes"
                fail(f"{self.field}[{len(elements)}]", "a length and as many bytes", rest)
            elements.append(raw[start:stop])
            place = stop
        if len(elements) != size:
            actual = "more" if len(elements) > size else len(elements)
            fail(self.field, f"{size} elements, as its shape says", actual)
        return elements

    def _text(self, i: int, element: bytes, max_bytes: int) -> str:
        if len(element) > max_bytes:
            fail(f"{self.field}[{i}]", f"at most {max_bytes} bytes of UTF-8", len(element))
        try:
            return element.decode()
        except UnicodeDecodeError as error:
            return fail(f"{self.field}[{i}]", "UTF-8", error.reason)


def read_inputs(request: pb.ModelInferRequest) -> dict[str, InputTensor]:
    """The inputs of a request by their names.

    Raises:
        InvalidQueryError: If a name is repeated, an input has parameters, or there are raw
            contents of another number than inputs, or beside typed ones.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        expected = f"one for each of {len(request.inputs)} inputs, or none"
        fail("raw_input_contents", expected, len(raw))
    inputs: dict[str, InputTensor] = {}
    for i, message in enumerate(request.inputs):
        if message.name in inputs:
            fail(f"inputs[{i}].name", "each input once", message.name)
        if message.parameters:
            fail(f"inputs[{i}].parameters", "none", sorted(message.parameters))
        if raw and message.HasField("contents"):
            fail(f"inputs[{i}].contents", "raw contents alone", "both")
        inputs[message.name] = InputTensor(message, raw[i] if raw else None)
    return inputs


def write_output(
    response: pb.ModelInferResponse,
    spec: TensorSpec,
    values: NDArray[Any] | Sequence[str],
    *,
    is_raw: bool,
) -> None:
    """Adds an output, raw or typed.

    Args:
        response: What it is added to.
        spec: Name, datatype and complete shape.
        values: As many as the shape says, in row-major order; texts for BYTES.
        is_raw: Whether they become raw contents.
    """
    output = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    if isinstance(values, np.ndarray):
        array = values.astype(_DTYPES[spec.datatype], copy=False)
        if is_raw:
            response.raw_output_contents.append(array.tobytes())
        else:
            getattr(output.contents, _CONTENTS[spec.datatype]).extend(array.ravel().tolist())
        return
    elements = [text.encode() for text in values]
    if is_raw:
        response.raw_output_contents.append(_join(elements))
    else:
        output.contents.bytes_contents.extend(elements)


def _join(elements: Iterable[bytes]) -> bytes:
    return b"".join(len(e).to_bytes(_LENGTH_BYTES, "little") + e for e in elements)
