"""JSON files of a bundle, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from motherlode.core.errors import BundleError

_Document = TypeVar("_Document", bound=BaseModel)

# A manifest of a thousand files has a fifth of a megabyte.
MAX_DOCUMENT_BYTES = 16 * 2**20


def read_json(path: Path) -> Any:
    """What a small JSON file says.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, is nested too deeply, or is far longer than any that we write.
    """
    with path.open("rb") as file:
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_document(kind: type[_Document], path: Path) -> _Document:
    """The document in a file.

    Raises:
        BundleError: If it cannot be read or is no such document; names the first field at fault.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(path, f"cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(path, f"{where}: {first['msg']}".removeprefix(": ")) from error
