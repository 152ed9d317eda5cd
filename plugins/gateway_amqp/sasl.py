"""Who does a client say that it is (SASL PLAIN, AMQPLAIN, EXTERNAL)?"""

from __future__ import annotations

from typing import Final

from gateway.api import Connection, Credentials
from gateway_amqp.codec.names import COMMAND_INVALID, SYNTAX_ERROR, HardError
from gateway_amqp.codec.tables import decode_table

PLAIN: Final = "PLAIN"
AMQPLAIN: Final = "AMQPLAIN"
EXTERNAL: Final = "EXTERNAL"
FRONT_END: Final = "amqp"
PARTS: Final = 3


def mechanisms(connection: Connection) -> str:
    """Return what is offered, in the form of Connection.Start."""
    return f"{EXTERNAL} {PLAIN} {AMQPLAIN}" if connection.certificate_subject is not None else f"{PLAIN} {AMQPLAIN}"


def credentials(connection: Connection, mechanism: str, response: bytes) -> Credentials:
    """Return what a client says of itself in Connection.StartOk.

    Raises:
        HardError: 503, there is no such mechanism here; 502, the response is none of it.
    """
    if mechanism == PLAIN:
        user, password = _plain(response)
    elif mechanism == AMQPLAIN:
        user, password = _amqplain(response)
    elif mechanism == EXTERNAL and connection.certificate_subject is not None:
        return Credentials(
            "external",
            front_end=FRONT_END,
            peer=connection.peer,
            loopback=connection.is_loopback,
            certificate_subject=connection.certificate_subject,
        )
    else:
        raise HardError(COMMAND_INVALID, f"unknown authentication mechanism '{mechanism}'")
    return password_of(connection, user, password, strict=True)


def password_of(connection: Connection, user: str, password: bytes, *, strict: bool) -> Credentials:
    """Return what a client says that gives a password.

    Args:
        strict: it is refused where nothing can check it: who logs in counts on the refusal of a wrong one.
    """
    peer, subject = connection.peer, connection.certificate_subject
    return Credentials("password", user, password, FRONT_END, peer, connection.is_loopback, subject, strict=strict)


def _plain(response: bytes) -> tuple[str, bytes]:
    """Read RFC 4616: whom to act as (nobody else than oneself), who one is, password."""
    parts = response.split(b"\0", 2)
    if len(parts) != PARTS or (parts[0] and parts[0] != parts[1]):
        raise HardError(SYNTAX_ERROR, "a response that is not of PLAIN")
    return _text(parts[1]), parts[2]


def _amqplain(response: bytes) -> tuple[str, bytes]:
    """Read a field table without its length."""
    table = decode_table(len(response).to_bytes(4, "big") + response)
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if isinstance(user, bytes):
        user = _text(user)
    if isinstance(password, str):
        password = password.encode()
    if not isinstance(user, str) or not isinstance(password, bytes):
        raise HardError(SYNTAX_ERROR, "AMQPLAIN auth info without LOGIN and PASSWORD as long strings")
    return user, password


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise HardError(SYNTAX_ERROR, "a user name that is not UTF-8") from None
