"""Who can reach an address: this machine alone, or others too?"""

from __future__ import annotations

import ipaddress

_WITHIN_THE_MACHINE = ("unix", "ipc", "inproc")


def is_local(address: str) -> bool:
    """Say whether only programs on this machine can connect to an address; what is not understood is not local.

    Args:
        address: ``tcp://127.0.0.1:1883``, ``wss://[::1]:8884/mqtt``, ``unix:/run/tidegate.sock`` ...
    """
    scheme, _, rest = address.partition(":")
    if scheme in _WITHIN_THE_MACHINE:
        return True
    return rest.startswith("//") and _is_loopback(_host(rest[2:]))


def _host(rest: str) -> str:
    authority = rest.partition("/")[0]
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.rpartition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
