"""Between the messages of `motherlode.v1` and the values of `core`.

Every check of a request is here, in `limits` or in `Retriever.validate`; past them it is trusted.

Shapes: B queries, N hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import InvalidQueryError, NotFoundError, RequestTooLargeError
from motherlode.core.index import LabelFilter
from motherlode.core.labels import LabelTable
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    FloatArray,
    Queries,
    SparseQueries,
)
from motherlode.core.retriever import Retriever
from motherlode.server.call import Answer, Call
from motherlode.server.config import ServerConfig
from motherlode.server.limits import (
    check_answer_size,
    check_k,
    check_num_queries,
    check_texts,
    fail,
)
from motherlode.server.reception import Asked, Dialect
from motherlode.server.slot import Catalog, ServedVersion
from motherlode.v1 import retrieval_pb2 as pb

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
}
_LABEL_FIELDS = {pb.LABEL_FIELD_KEY, pb.LABEL_FIELD_TEXT}

# Of an answer without hits: model, version, digest, timings.
_FIXED_RESPONSE_BYTES = 512


def choose_version(request: pb.TopKRequest, catalog: Catalog) -> ServedVersion:
    """The version that a request asks for.

    Raises:
        NotFoundError: If the server has no such model, version or alias.
        UnavailableError: If the model has no version that could be loaded.
        InvalidInputError: If no model is named and there are several.
    """
    ref = request.model
    slot = catalog.find(ref.name)
    match ref.WhichOneof("choice"):
        case "version":
            return slot.choose(version=ref.version)
        case "alias":
            return slot.choose(alias=ref.alias)
    return slot.choose()


def read_request(request: pb.TopKRequest, retriever: Retriever, config: ServerConfig) -> Asked:
    """What a request asks of this retriever.

    Raises:
        InvalidQueryError: For the first thing found wrong.
        RequestTooLargeError: If the request or its answer is beyond a limit.
    """
    check_k(request.k, retriever, config)
    _check_label_fields(request.label_fields)
    queries = _read_queries(request, retriever, config)
    label_filter = (
        _read_filter(request.filter, retriever.labels) if request.HasField("filter") else None
    )
    retriever.validate(queries, request.k, label_filter)
    _check_response_size(request, len(queries), retriever.labels, config)
    return Asked(queries, request.k, label_filter)


def write_response(
    request: pb.TopKRequest, call: Call, answer: Answer, config: ServerConfig
) -> pb.TopKResponse:
    """The answer as a message.

    Raises:
        RequestTooLargeError: If it is larger than a message may be.
    """
    top, times, served = answer.top, answer.times, call.served
    response = pb.TopKResponse(
        row_counts=top.counts.tolist(),
        labels=top.labels.tolist(),
        scores=top.scores.tolist(),
        model=served.model,
        version=served.version,
        bundle_digest=served.digest,
        timings=pb.StageTimings(
            queue_s=answer.queue_s,
            features_s=times.features_s,
            encode_s=times.encode_s,
            search_s=times.search_s,
            rank_s=times.rank_s,
        ),
    )
    if len(top.labels) < len(top) * call.k:
        response.notices.extend(_notices(call, answer))
    if request.label_fields:
        _write_names(request.label_fields, response, top.labels, served.retriever.labels)
        check_answer_size(response.ByteSize(), config)
    return response


def _has_filter(request: pb.TopKRequest) -> bool:
    # A version's first filter builds a table of all label keys; others go on meanwhile.
    return request.HasField("filter")


TOP_K: Dialect[pb.TopKRequest, pb.TopKResponse] = Dialect(
    choose=choose_version, read=read_request, write=write_response, is_slow=_has_filter
)


def server_info(version: str, config: ServerConfig, catalog: Catalog) -> pb.GetServerInfoResponse:
    """Limits, models and versions."""
    limits = pb.Limits(
        max_queries_per_call=config.max_queries_per_call,
        max_k=config.max_k,
        max_text_bytes=config.max_text_bytes,
        max_message_bytes=config.max_message_bytes,
        max_queued_queries=config.max_queued_queries,
        max_queued_bytes=config.max_queued_bytes,
        max_batch_queries=config.max_batch_queries,
        max_queue_delay_s=config.max_queue_delay_s,
    )
    models = [
        pb.ModelInfo(
            name=slot.model,
            aliases=slot.aliases,
            load_error=slot.load_error,
            loaded_versions=sorted((served.version for served in slot.loaded), reverse=True),
            **({} if slot.current is None else _model_fields(slot.current)),
        )
        for slot in catalog
    ]
    return pb.GetServerInfoResponse(server_version=version, limits=limits, models=models)


def _model_fields(served: ServedVersion) -> dict[str, Any]:
    retriever = served.retriever
    return {
        "version": served.version,
        "bundle_digest": served.digest,
        "num_labels": len(retriever.labels),
        "num_features": retriever.num_features,
        "embedding_width": retriever.width,
        "query_kinds": retriever.query_kinds,
        "score_meaning": retriever.manifest.score_meaning,
    }


def _check_label_fields(fields: Sequence[int]) -> None:
    if len(fields) > len(_LABEL_FIELDS):
        fail("label_fields", "each field at most once", f"{len(fields)} fields")
    for i, field in enumerate(fields):
        if field not in _LABEL_FIELDS:
            fail(f"label_fields[{i}]", "LABEL_FIELD_KEY or LABEL_FIELD_TEXT", field)
        if field in fields[:i]:
            fail(f"label_fields[{i}]", "each field at most once", field)


def _read_queries(request: pb.TopKRequest, retriever: Retriever, config: ServerConfig) -> Queries:
    match request.WhichOneof("queries"):
        case "text":
            return check_texts(request.text.texts, config)
        case "sparse":
            return _read_sparse(request.sparse, retriever.num_features, config)
        case "features":
            return DenseQueries(_read_tensor(request.features, "queries.features", config))
        case "embeddings":
            return EmbeddingQueries(_read_tensor(request.embeddings, "queries.embeddings", config))
        case _:
            kinds = ", ".join(retriever.query_kinds)
            raise InvalidQueryError("queries", expected=f"one of {kinds}", actual=None)


def _read_sparse(batch: pb.SparseBatch, num_features: int, config: ServerConfig) -> SparseQueries:
    field = "queries.sparse"
    indptr = _read_array(batch.indptr, "<i8", f"{field}.indptr")
    check_num_queries(len(indptr) - 1, config)
    indices = _read_array(batch.indices, "<i8", f"{field}.indices")
    values = _read_array(batch.values, "<f4", f"{field}.values")
    return SparseQueries(indptr, indices, values, num_features)


def _read_array(data: bytes, dtype: str, field: str) -> NDArray[Any]:
    size_bytes = np.dtype(dtype).itemsize
    if len(data) % size_bytes:
        fail(field, f"a multiple of {size_bytes} bytes", len(data))
    # Copied, since PyTorch warns about memory that cannot be written to.
    return np.frombuffer(data, dtype).astype(np.dtype(dtype).newbyteorder("="))


def _read_tensor(tensor: pb.Tensor, field: str, config: ServerConfig) -> FloatArray:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        fail(f"{field}.dtype", "DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT16", tensor.dtype)
    shape = tuple(tensor.shape)
    if len(shape) != 2 or min(shape) < 0:
        fail(f"{field}.shape", "[queries, width]", list(shape))
    check_num_queries(shape[0], config)
    expected_bytes = shape[0] * shape[1] * dtype.itemsize
    if len(tensor.data) != expected_bytes:
        fail(f"{field}.data", f"{expected_bytes} bytes", len(tensor.data))
    return np.frombuffer(tensor.data, dtype).reshape(shape).astype(np.float32)


def _read_filter(message: pb.LabelFilter, labels: LabelTable) -> LabelFilter | None:
    if message.allow and message.deny:
        fail(
            "filter",
            "allow or deny, not both",
            f"{len(message.allow)} and {len(message.deny)} keys",
        )
    if message.allow:
        return LabelFilter(_read_keys(message.allow, "filter.allow", labels), "allow")
    if message.deny:
        return LabelFilter(_read_keys(message.deny, "filter.deny", labels), "deny")
    return None


def _read_keys(keys: Sequence[str], field: str, labels: LabelTable) -> NDArray[np.int64]:
    if len(keys) > len(labels):
        expected = f"at most {len(labels)} keys, as many as there are labels"
        raise RequestTooLargeError(field, expected=expected, actual=len(keys))
    rows = []
    for i, key in enumerate(keys):
        try:
            rows.append(labels.row_of(key))
        except NotFoundError:
            fail(f"{field}[{i}]", "the key of a label", key)
    return np.unique(np.array(rows, np.int64))


def _check_response_size(
    request: pb.TopKRequest, num_queries: int, labels: LabelTable, config: ServerConfig
) -> None:
    """Refuses at once what would be found too large after the work is done."""
    hit_bytes: float = 4 + max(1, (len(labels).bit_length() + 6) // 7)
    for field in request.label_fields:
        names = labels.shown if field == pb.LABEL_FIELD_TEXT else labels.keys
        hit_bytes += names.mean_bytes
    estimate = _FIXED_RESPONSE_BYTES + num_queries * (2 + request.k * hit_bytes)
    check_answer_size(int(estimate), config)


def _write_names(
    fields: Iterable[int], response: pb.TopKResponse, rows_N: NDArray[np.int64], labels: LabelTable
) -> None:
    for field in fields:
        if field == pb.LABEL_FIELD_KEY:
            response.label_keys.extend(labels.keys_of(rows_N))
        else:
            response.label_texts.extend(labels.texts_of(rows_N))


def _notices(call: Call, answer: Answer) -> list[pb.Notice]:
    counts_B = answer.top.counts
    few = np.flatnonzero(counts_B < call.k)
    notices = [pb.Notice(kind=pb.NOTICE_KIND_FEWER_THAN_K, queries=few.tolist())]
    unknown = np.flatnonzero(counts_B == 0) if _lets_labels_through(call) else counts_B[:0]
    if len(unknown):
        kind = pb.NOTICE_KIND_NO_KNOWN_FEATURES
        notices.append(pb.Notice(kind=kind, queries=unknown.tolist()))
    return notices


def _lets_labels_through(call: Call) -> bool:
    """Whether a query that has any known feature has a hit: no filter keeps all labels out."""
    if call.filter is None:
        return True
    num_named = len(call.filter.rows)
    if call.filter.mode == "allow":
        return num_named > 0
    return num_named < len(call.served.retriever.labels)
