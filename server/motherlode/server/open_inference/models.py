"""What the Open Inference Protocol says of models: metadata, configuration, statistics, index."""

from __future__ import annotations

from collections.abc import Iterator

from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.config import ServerConfig
from motherlode.server.limits import largest_k
from motherlode.server.open_inference.inputs import K, input_specs
from motherlode.server.open_inference.outputs import output_specs
from motherlode.server.open_inference.tensors import TensorSpec
from motherlode.server.slot import ServedVersion, Slot
from motherlode.server.statistics import Tally

PLATFORM = "motherlode"

_DATA_TYPES = {
    "BYTES": pb.TYPE_STRING,
    "FP32": pb.TYPE_FP32,
    "INT32": pb.TYPE_INT32,
    "INT64": pb.TYPE_INT64,
}


def model_metadata(slot: Slot, served: ServedVersion) -> pb.ModelMetadataResponse:
    """Name, loaded versions, inputs and outputs."""
    versions = sorted((one.version for one in slot.loaded), reverse=True)
    return pb.ModelMetadataResponse(
        name=slot.model,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=map(_metadata, input_specs(served.retriever)),
        outputs=map(_metadata, output_specs()),
    )


def model_config(served: ServedVersion, config: ServerConfig) -> pb.ModelConfig:
    """Inputs, outputs, and the limits of a request as parameters."""
    retriever = served.retriever
    message = pb.ModelConfig(
        name=served.model,
        platform=PLATFORM,
        backend=PLATFORM,
        input=[
            pb.ModelInput(
                name=spec.name,
                data_type=_DATA_TYPES[spec.datatype],
                dims=spec.shape,
                optional=spec.name == K or len(retriever.query_kinds) > 1,
            )
            for spec in input_specs(retriever)
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_DATA_TYPES[spec.datatype], dims=spec.shape)
            for spec in output_specs()
        ],
    )
    parameters = {
        "bundle_digest": served.digest,
        "score_meaning": retriever.manifest.score_meaning,
        "num_labels": len(retriever.labels),
        "max_k": largest_k(retriever, config),
        "max_queries": config.max_queries_per_call,
    }
    for name, value in parameters.items():
        message.parameters[name].string_value = str(value)
    return message


def model_statistics(served: ServedVersion) -> pb.ModelStatistics:
    """What a version has done since it was loaded."""
    sums = served.statistics
    return pb.ModelStatistics(
        name=served.model,
        version=str(served.version),
        last_inference=int(sums.last_answer_unix_s * 1e3),
        inference_count=sums.num_queries,
        execution_count=sums.num_batches,
        inference_stats=pb.InferStatistics(
            success=_duration(sums.answered),
            fail=_duration(sums.failed),
            queue=_duration(sums.queue),
            compute_input=_duration(sums.features),
            compute_infer=_duration(sums.compute),
            compute_output=_duration(sums.writing),
        ),
    )


def index_entries(slot: Slot) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
    """The loaded versions of a model, or the model alone where it has none."""
    entry = pb.RepositoryIndexResponse.ModelIndex
    if slot.current is None:
        yield entry(name=slot.model, state="UNAVAILABLE", reason=slot.load_error)
    for served in slot.loaded:
        reason = slot.load_error if served is slot.current else ""
        yield entry(name=slot.model, version=str(served.version), state="READY", reason=reason)


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _duration(tally: Tally) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=tally.count, ns=int(tally.total_s * 1e9))
