"""What is asked of every query of a batch, and how it looks on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, final

import numpy as np

from motherlode.clients.errors import InvalidArgumentError
from motherlode.clients.queries import QueryBatch
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["LabelFieldName", "Question", "QuestionOptions"]

LabelFieldName = Literal["key", "text"]

_FIELDS = {"key": pb.LABEL_FIELD_KEY, "text": pb.LABEL_FIELD_TEXT}

# A guess at the bytes of one hit. A wrong guess costs a call: an answer that proves too large is
# asked for again in halves.
_HIT_BYTES = 12
_FIELD_BYTES = {"key": 24, "text": 96}


class QuestionOptions(TypedDict, total=False):
    """Options of every top-k call.

    Attributes:
        model: Name of the model; may be left out if the server has only one.
        version: The version to ask; by default the serving one.
        alias: The alias to ask, instead of a version.
        allow: Keys of the only labels that may be returned.
        deny: Keys of labels that may not be returned; not together with `allow`.
        label_fields: What to return of each label besides its row: `key`, `text`.
    """

    model: str | None
    version: int | None
    alias: str | None
    allow: Sequence[str] | None
    deny: Sequence[str] | None
    label_fields: Sequence[LabelFieldName]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question put to each query; see `QuestionOptions`.

    Raises:
        InvalidArgumentError: If a value has the wrong form or two exclude each other.
    """

    k: int
    model: str | None = None
    version: int | None = None
    alias: str | None = None
    allow: Sequence[str] | None = None
    deny: Sequence[str] | None = None
    label_fields: Sequence[LabelFieldName] = ("key", "text")

    def __post_init__(self) -> None:
        _check_count("k", self.k)
        if self.version is not None:
            _check_count("model.version", self.version)
            if self.alias is not None:
                raise _exclusive("model", "version", "alias")
        if self.allow is not None and self.deny is not None:
            raise _exclusive("filter", "allow", "deny")
        for field, keys in (("filter.allow", self.allow), ("filter.deny", self.deny)):
            _check_keys(field, keys)
        for name in self.label_fields:
            if name not in _FIELDS:
                raise InvalidArgumentError.of_field(
                    "label_fields", expected="key or text", actual=name
                )

    def request(self, queries: QueryBatch, *, pinned_version: int | None = None) -> pb.TopKRequest:
        """The request for some queries, to the named version if one is given."""
        request = pb.TopKRequest(
            k=int(self.k), label_fields=[_FIELDS[name] for name in self.label_fields]
        )
        version = self.version if pinned_version is None else pinned_version
        if self.model is not None:
            request.model.name = self.model
        if version is not None:
            request.model.version = int(version)
        elif self.alias is not None:
            request.model.alias = self.alias
        if self.allow:
            request.filter.allow.extend(self.allow)
        if self.deny:
            request.filter.deny.extend(self.deny)
        queries.fill(request)
        return request

    @property
    def fixed_bytes(self) -> int:
        """Bytes of a request without its queries, at most."""
        keys = [*(self.allow or ()), *(self.deny or ()), self.model or "", self.alias or ""]
        return 256 + sum(4 * len(key) + 6 for key in keys)

    @property
    def answer_bytes(self) -> int:
        """Bytes of the answer to one query, roughly."""
        return 8 + self.k * (_HIT_BYTES + sum(_FIELD_BYTES[name] for name in self.label_fields))


def _check_count(field: str, value: Any) -> None:
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (is_count and 1 <= value < 2**31):
        raise InvalidArgumentError.of_field(
            field, expected="a number from 1 on", actual=repr(value)
        )


def _check_keys(field: str, keys: Sequence[str] | None) -> None:
    if keys is None:
        return
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise InvalidArgumentError.of_field(
            field, expected="a list of label keys", actual=repr(keys)
        )
    # On the wire, an empty list of allowed labels would be no filter at all.
    if len(keys) == 0 and field == "filter.allow":
        raise InvalidArgumentError.of_field(field, expected="at least one key", actual="none")


def _exclusive(parent: str, one: str, other: str) -> InvalidArgumentError:
    return InvalidArgumentError.of_field(
        parent, expected=f"{one} or {other}", actual=f"both {one} and {other}"
    )
