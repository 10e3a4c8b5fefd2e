"""Callers by their address, and those who speak something else."""

from __future__ import annotations

from typing import Any

_HTTP1 = (b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PUT ")
_TLS = b"\x16\x03"
_NOT_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n"
    b"content-length: 35\r\n\r\nThis port speaks gRPC over HTTP/2.\n"
)


def answer_to_stranger(start: bytes) -> tuple[bytes, str]:
    """What a caller gets who does not begin with HTTP/2, and what the log adds about him."""
    if start.startswith(_TLS):
        return b"", "; is it TLS?"
    return (_NOT_HTTP2, "; is it HTTP/1?") if start.startswith(_HTTP1) else (b"", "")


def peer_name(address: Any) -> str:
    """An address as gRPC writes it."""
    if not address:
        return "unknown:"
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
