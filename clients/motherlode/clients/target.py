"""Whether an address is of this machine."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["is_loopback"]

_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")


def is_loopback(target: str) -> bool:
    """Whether calls to a gRPC target surely stay on this machine.

    So do those to `localhost`, to addresses like 127.0.0.1 and ::1, and to Unix sockets. Nothing is
    looked up: any other name counts as another machine, even if it means this one.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    scheme = next((scheme for scheme in _SCHEMES if target.startswith(scheme)), "")
    return all(_is_loopback_host(_host_of(part)) for part in target[len(scheme) :].split(","))


def _host_of(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    # Two colons or more: an IPv6 address without a port.
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_loopback_host(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
