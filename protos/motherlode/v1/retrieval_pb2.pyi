from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]

class LabelField(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_FIELD_UNSPECIFIED: _ClassVar[LabelField]
    LABEL_FIELD_KEY: _ClassVar[LabelField]
    LABEL_FIELD_TEXT: _ClassVar[LabelField]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_FEWER_THAN_K: _ClassVar[NoticeKind]
    NOTICE_KIND_NO_KNOWN_FEATURES: _ClassVar[NoticeKind]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
LABEL_FIELD_UNSPECIFIED: LabelField
LABEL_FIELD_KEY: LabelField
LABEL_FIELD_TEXT: LabelField
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_FEWER_THAN_K: NoticeKind
NOTICE_KIND_NO_KNOWN_FEATURES: NoticeKind

class TopKRequest(_message.Message):
    __slots__ = ("model", "text", "sparse", "features", "embeddings", "k", "filter", "label_fields")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELDS_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    text: TextBatch
    sparse: SparseBatch
    features: Tensor
    embeddings: Tensor
    k: int
    filter: LabelFilter
    label_fields: _containers.RepeatedScalarFieldContainer[LabelField]
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., text: _Optional[_Union[TextBatch, _Mapping]] = ..., sparse: _Optional[_Union[SparseBatch, _Mapping]] = ..., features: _Optional[_Union[Tensor, _Mapping]] = ..., embeddings: _Optional[_Union[Tensor, _Mapping]] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[LabelFilter, _Mapping]] = ..., label_fields: _Optional[_Iterable[_Union[LabelField, str]]] = ...) -> None: ...

class TopKResponse(_message.Message):
    __slots__ = ("row_counts", "labels", "scores", "label_keys", "label_texts", "model", "version", "bundle_digest", "timings", "notices")
    ROW_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LABEL_KEYS_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEXTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    row_counts: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    label_keys: _containers.RepeatedScalarFieldContainer[str]
    label_texts: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: int
    bundle_digest: str
    timings: StageTimings
    notices: _containers.RepeatedCompositeFieldContainer[Notice]
    def __init__(self, row_counts: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., label_keys: _Optional[_Iterable[str]] = ..., label_texts: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., bundle_digest: _Optional[str] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., notices: _Optional[_Iterable[_Union[Notice, _Mapping]]] = ...) -> None: ...

class TopKStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: TopKRequest
    def __init__(self, request: _Optional[_Union[TopKRequest, _Mapping]] = ...) -> None: ...

class TopKStreamResponse(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: TopKResponse
    error: StreamError
    def __init__(self, response: _Optional[_Union[TopKResponse, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "reason", "retry_after_s", "request_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    retry_after_s: float
    request_id: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., retry_after_s: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("name", "version", "alias")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    alias: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., alias: _Optional[str] = ...) -> None: ...

class TextBatch(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class SparseBatch(_message.Message):
    __slots__ = ("indptr", "indices", "values")
    INDPTR_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indptr: bytes
    indices: bytes
    values: bytes
    def __init__(self, indptr: _Optional[bytes] = ..., indices: _Optional[bytes] = ..., values: _Optional[bytes] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class LabelFilter(_message.Message):
    __slots__ = ("allow", "deny")
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    allow: _containers.RepeatedScalarFieldContainer[str]
    deny: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allow: _Optional[_Iterable[str]] = ..., deny: _Optional[_Iterable[str]] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("queue_s", "features_s", "encode_s", "search_s", "rank_s")
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    FEATURES_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    SEARCH_S_FIELD_NUMBER: _ClassVar[int]
    RANK_S_FIELD_NUMBER: _ClassVar[int]
    queue_s: float
    features_s: float
    encode_s: float
    search_s: float
    rank_s: float
    def __init__(self, queue_s: _Optional[float] = ..., features_s: _Optional[float] = ..., encode_s: _Optional[float] = ..., search_s: _Optional[float] = ..., rank_s: _Optional[float] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "queries")
    KIND_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    queries: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., queries: _Optional[_Iterable[int]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server_version", "limits", "models")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    limits: Limits
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, server_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_queries_per_call", "max_k", "max_text_bytes", "max_message_bytes", "max_queued_queries", "max_queued_bytes", "max_batch_queries", "max_queue_delay_s")
    MAX_QUERIES_PER_CALL_FIELD_NUMBER: _ClassVar[int]
    MAX_K_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_QUERIES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_QUERIES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    max_queries_per_call: int
    max_k: int
    max_text_bytes: int
    max_message_bytes: int
    max_queued_queries: int
    max_queued_bytes: int
    max_batch_queries: int
    max_queue_delay_s: float
    def __init__(self, max_queries_per_call: _Optional[int] = ..., max_k: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_queued_queries: _Optional[int] = ..., max_queued_bytes: _Optional[int] = ..., max_batch_queries: _Optional[int] = ..., max_queue_delay_s: _Optional[float] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "version", "bundle_digest", "num_labels", "num_features", "embedding_width", "query_kinds", "score_meaning", "aliases", "load_error", "loaded_versions")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    NUM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_WIDTH_FIELD_NUMBER: _ClassVar[int]
    QUERY_KINDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_MEANING_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    LOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    LOADED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    bundle_digest: str
    num_labels: int
    num_features: int
    embedding_width: int
    query_kinds: _containers.RepeatedScalarFieldContainer[str]
    score_meaning: str
    aliases: _containers.ScalarMap[str, int]
    load_error: str
    loaded_versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., bundle_digest: _Optional[str] = ..., num_labels: _Optional[int] = ..., num_features: _Optional[int] = ..., embedding_width: _Optional[int] = ..., query_kinds: _Optional[_Iterable[str]] = ..., score_meaning: _Optional[str] = ..., aliases: _Optional[_Mapping[str, int]] = ..., load_error: _Optional[str] = ..., loaded_versions: _Optional[_Iterable[int]] = ...) -> None: ...
