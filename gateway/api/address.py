"""Which host and port does an address name?"""

from __future__ import annotations

import ipaddress
import re

_TCP = re.compile(r"tcp://(?:\[([^\[\]\s]+)\]|([\w.-]+)):([0-9]{1,5})")
_NUMBERS = re.compile(r"[0-9.]+")
_LAST_PORT = 65_535
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def tcp_address(address: str) -> tuple[str, int]:
    """Return host (an IPv6 one without its brackets) and port of ``tcp://HOST:PORT``.

    Raises:
        ValueError: it is not of this form, or names no host or port that there can be; says what is allowed.
    """
    match = _TCP.fullmatch(address)
    if match is None or int(match[3]) > _LAST_PORT or not _can_be(match[1], match[2]):
        raise ValueError(f"must be an address tcp://HOST:PORT with a port of at most {_LAST_PORT} (0: any free one)")
    return match[1] or match[2], int(match[3])


def _can_be(ipv6: str | None, name: str) -> bool:
    try:
        if ipv6 is not None:
            ipaddress.IPv6Address(ipv6)
        elif _NUMBERS.fullmatch(name):
            ipaddress.IPv4Address(name)
        else:
            name.encode("idna")  # as the resolver will: no empty label, none that is too long
    except ValueError:
        return False
    return True


def reachable(address: str) -> str:
    """Return the address at which a program on this machine reaches a listener: its own, unless that one is every interface."""
    try:
        host, port = tcp_address(address)
    except ValueError:
        return address
    near = _EVERYWHERE.get(host, host)
    return f"tcp://[{near}]:{port}" if ":" in near else f"tcp://{near}:{port}"
