"""Between ModelInfer and what the reception takes and gives."""

from __future__ import annotations

from motherlode.core.errors import InvalidInputError
from motherlode.core.retriever import Retriever
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.call import Answer, Call
from motherlode.server.config import ServerConfig
from motherlode.server.limits import check_answer_size
from motherlode.server.open_inference.inputs import K, read_k, read_queries
from motherlode.server.open_inference.outputs import (
    check_outputs,
    check_outputs_size,
    write_outputs,
)
from motherlode.server.open_inference.tensors import read_inputs
from motherlode.server.reception import Asked, Dialect
from motherlode.server.slot import Catalog, ServedVersion

# How the shared checks name what is checked, and what that is called here; the first that fits.
_FIELDS = (
    ("queries.text.texts", "inputs.text"),
    ("queries.sparse.", "inputs."),
    ("queries.", "inputs."),
    ("queries", "inputs"),
    ("model.name", "model_name"),
)


def choose_version(name: str, version: str, catalog: Catalog) -> ServedVersion:
    """The version of a model: by digits, by alias, or the serving one where neither is given.

    Raises:
        NotFoundError: If the server has no such model, version or alias.
        UnavailableError: If the model has no version that could be loaded.
        InvalidInputError: If no model is named and there are several.
    """
    slot = catalog.find(name)
    if not version:
        return slot.choose()
    # Longer numbers are no versions, and Python refuses to read the longest.
    if version.isascii() and version.isdigit() and len(version) < 20:
        return slot.choose(version=int(version))
    return slot.choose(alias=version)


def find_version(name: str, version: str, catalog: Catalog) -> ServedVersion:
    """Likewise, for questions about a model, which count in no canary's share of the calls.

    Raises:
        Exception: As `choose_version`.
    """
    return choose_version(name, version, catalog) if version else catalog.find(name).serving()


def read_request(
    request: pb.ModelInferRequest, retriever: Retriever, config: ServerConfig
) -> Asked:
    """What a request asks of this retriever.

    Raises:
        InvalidQueryError: For the first thing found wrong.
        RequestTooLargeError: If the request or its answer is beyond a limit.
    """
    inputs = read_inputs(request)
    k = read_k(request, inputs.pop(K, None), retriever, config)
    check_outputs(request)
    queries = read_queries(inputs, retriever, config)
    retriever.validate(queries, k)
    check_outputs_size(request, len(queries), k, retriever, config)
    return Asked(queries, k)


def write_response(
    request: pb.ModelInferRequest, call: Call, answer: Answer, config: ServerConfig
) -> pb.ModelInferResponse:
    """The answer as a message: raw where the request was, else typed.

    Raises:
        RequestTooLargeError: If it is larger than a message may be.
    """
    served = call.served
    response = pb.ModelInferResponse(
        model_name=served.model, model_version=str(served.version), id=request.id
    )
    response.parameters["bundle_digest"].string_param = served.digest
    write_outputs(request, response, answer.top, call.k, served.retriever.labels)
    check_answer_size(response.ByteSize(), config)
    return response


def _is_slow(_: pb.ModelInferRequest) -> bool:
    return False


def _choose(request: pb.ModelInferRequest, catalog: Catalog) -> ServedVersion:
    return choose_version(request.model_name, request.model_version, catalog)


MODEL_INFER: Dialect[pb.ModelInferRequest, pb.ModelInferResponse] = Dialect(
    choose=_choose, read=read_request, write=write_response, is_slow=_is_slow
)


def in_terms_of_tensors(error: Exception) -> Exception:
    """The error, its field named as this protocol names it."""
    if isinstance(error, InvalidInputError):
        for shared, here in _FIELDS:
            if error.field.startswith(shared):
                error.rename(here + error.field.removeprefix(shared))
                break
    return error
