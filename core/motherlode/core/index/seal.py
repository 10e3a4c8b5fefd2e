"""The last bytes of an index file: of which label embeddings it is the index.

FAISS files have no room for it, and neither an exact index nor a graph holds the embeddings. With
the seal, an index and embeddings that do not belong together are told apart whatever a manifest
says.

Shapes: L labels in all, D embedding width.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from motherlode.core.digests import take_in
from motherlode.core.errors import BundleError
from motherlode.core.queries import FloatArray

_MAGIC = b"MLINDEX1"
_LAYOUT = struct.Struct("<8sQQ16s")
SEAL_BYTES = _LAYOUT.size


def seal(path: Path, labels_LD: FloatArray) -> None:
    """Marks a finished index file as that of these label embeddings.

    Raises:
        OSError: If the file cannot be written.
    """
    with path.open("ab") as file:
        file.write(_LAYOUT.pack(_MAGIC, *labels_LD.shape, _fingerprint(labels_LD)))


def check_seal(path: Path, labels_LD: FloatArray) -> None:
    """Refuses an index file that is cut short or belongs to other label embeddings.

    Raises:
        BundleError: If so, or if there is no such file.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _LAYOUT.size))
            last = file.read()
    except OSError as error:
        raise BundleError(path, f"cannot be read: {error.strerror}") from error
    if len(last) != _LAYOUT.size or not last.startswith(_MAGIC):
        raise BundleError(path, "not an index file, or cut short")
    _, num_labels, width, fingerprint = _LAYOUT.unpack(last)
    for name, actual, expected in (
        ("number of labels", num_labels, labels_LD.shape[0]),
        ("width", width, labels_LD.shape[1]),
    ):
        if actual != expected:
            raise BundleError(path, f"{name} is {actual}, expected {expected}")
    if fingerprint != _fingerprint(labels_LD):
        raise BundleError(path, "is the index of other label embeddings")


def _fingerprint(labels_LD: FloatArray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    take_in(digest, labels_LD.data)
    return digest.digest()
