"""Certificates of an authority made up for one test, as the files that settings name."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import final

import trustme

HOST = "127.0.0.1"


@final
class Authority:
    """An authority whose certificates nobody else trusts.

    Attributes:
        root: PEM file of its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA(organization_name=name)
        self.root = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.root))

    def issue(self, name: str = "server", *, not_after: datetime | None = None) -> Issued:
        """A certificate for this machine; one that is there under the name is renewed."""
        made = self._authority.issue_cert(HOST, not_after=not_after)
        files = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.key.touch(mode=0o600)
        made.private_key_pem.write_to_path(str(files.key))
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return files


@final
class Issued:
    """The two files of one certificate."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def settings(self) -> dict[str, Path]:
        """What a server is told of it."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}
