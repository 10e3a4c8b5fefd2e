from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motherlode.inference import open_inference_pb2 as pb

# Read from the descriptors of tritonclient 2.73, for what our .proto has.
PROTOCOL = json.loads((Path(__file__).parent / "open_inference.json").read_text(encoding="utf-8"))
_FIELD = type(pb.ServerLiveResponse.DESCRIPTOR.fields[0])
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(_FIELD).items()
    if name.startswith("TYPE_")
}


def fields_of(message: Any) -> dict[str, str]:
    """`number [repeated] type` of each field."""
    return {field.name: _worded(field) for field in message.fields}


def _worded(field: Any) -> str:
    named = field.message_type or field.enum_type
    kind = named.full_name if named else _TYPES[field.type]
    return f"{field.number} {'repeated ' if field.is_repeated else ''}{kind}"


def with_nested(messages: Any) -> Any:
    for message in messages:
        yield message
        yield from with_nested(message.nested_types)


def test_names_numbers_and_types_are_those_of_the_published_protocol() -> None:
    ours = with_nested(pb.DESCRIPTOR.message_types_by_name.values())
    assert {one.full_name: fields_of(one) for one in ours} == PROTOCOL["messages"]
    enums = pb.DESCRIPTOR.enum_types_by_name.values()
    numbers = {one.full_name: {value.name: value.number for value in one.values} for one in enums}
    assert numbers == PROTOCOL["enums"]


def test_the_service_has_the_name_that_clients_ask_for() -> None:
    [service] = pb.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "inference.GRPCInferenceService"
