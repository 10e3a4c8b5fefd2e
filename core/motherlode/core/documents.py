"""JSON files of a bundle that pydantic checks."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from motherlode.core.errors import BundleError

_Document = TypeVar("_Document", bound=BaseModel)


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
