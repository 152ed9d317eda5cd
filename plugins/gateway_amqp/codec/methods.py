"""Which command do a method's arguments make, and how is one written?

Commands are pamqp's classes, by whose lists of arguments bytes are read and written here: what pamqp would refuse (a name with
``$`` in it) comes and goes all the same.
"""

from __future__ import annotations

from typing import Any, Final

from pamqp import commands
from pamqp.base import Frame

from gateway_amqp.codec.names import BASIC_PUBLISH, COMMAND_INVALID, FRAME_END, RESOURCE_ERROR, HardError, syntax_error
from gateway_amqp.codec.tables import encode_table, read_table, short

_CLASSES: Final[dict[int, type[Frame]]] = dict(commands.INDEX_MAPPING)
_ARGUMENTS: Final[dict[int, list[tuple[str, str]]]] = {
    method: [(name, class_.amqp_type(name)) for name in class_.__slots__] for method, class_ in _CLASSES.items()
}
MOST_TABLE_BYTES: Final = 32_768
"""Of a method's arguments: a byte may be a value that costs a hundred times as much. Headers of messages are not decoded here."""
_WIDTHS: Final = {"octet": 1, "short": 2, "long": 4, "longlong": 8, "timestamp": 8}


def name_of(method: int) -> str:
    """Return a method's name as RabbitMQ writes it: ``basic.publish``; an unknown one's numbers."""
    class_ = _CLASSES.get(method)
    if class_ is None:
        return f"{method >> 16}.{method & 0xFFFF}"
    name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in class_.name.partition(".")[2])[1:]
    return f"{class_.name.partition('.')[0].lower()}.{name}"


def decode(method: int, arguments: bytes) -> Any:
    """Return the pamqp command of a method.

    Args:
        method: class and method id in one number.
        arguments: what follows them in the frame.

    Raises:
        HardError: 503, there is no such method; 502, the arguments are not what it takes.
    """
    fields = _ARGUMENTS.get(method)
    if fields is None:
        raise HardError(COMMAND_INVALID, f"unknown method {method >> 16}.{method & 0xFFFF}", method)
    command = object.__new__(_CLASSES[method])
    try:
        end = _fill(command, fields, arguments)
    except HardError as error:
        raise HardError(error.code, f"{error.text} in {name_of(method)}", method) from None
    if end != len(arguments):
        raise syntax_error(f"{name_of(method)} is longer than its arguments", method)
    return command


def _fill(command: object, fields: list[tuple[str, str]], data: bytes) -> int:
    """Set a command's arguments, and return where they end."""
    at = 0
    bit = 0
    for name, kind in fields:
        if kind == "bit":
            if not bit:
                at += 1
                bit = 1
                if at > len(data):
                    raise syntax_error("a field is cut off")
            setattr(command, name, data[at - 1] & bit != 0)
            bit = bit << 1 & 0xFF
            continue
        bit = 0
        value, at = _argument(data, at, kind)
        setattr(command, name, value)
    return at


def _argument(data: bytes, at: int, kind: str) -> tuple[Any, int]:
    """Return an argument that is not a bit, and where it ends."""
    if kind == "table":
        if int.from_bytes(data[at : at + 4], "big") > MOST_TABLE_BYTES and len(data) > MOST_TABLE_BYTES:
            raise HardError(RESOURCE_ERROR, f"a field table of more than {MOST_TABLE_BYTES} bytes")
        return read_table(data, at, len(data))
    width = _WIDTHS.get(kind, 0)
    if not width:
        size = 1 if kind == "shortstr" else 4
        start = at + size
        at = start + int.from_bytes(data[at:start], "big")
    else:
        start = at
        at = start + width
    if start > len(data) or at > len(data):
        raise syntax_error("a field is cut off")
    part = data[start:at]
    return int.from_bytes(part, "big") if width else _string(part, kind), at


def _string(data: bytes, kind: str) -> str | bytes:
    """Return a string; only a long one may be anything but UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        if kind == "shortstr":
            raise syntax_error("a short string that is not UTF-8") from None
        return data


def publish_arguments(arguments: bytes) -> tuple[str, str, int]:
    """Return exchange, routing key and bits of a Basic.Publish, which there are many of.

    Raises:
        HardError: 502, they are none.
    """
    size = len(arguments)
    key_at = 3 + arguments[2] if size > 3 else size  # noqa: PLR2004 - behind what is reserved
    end = key_at + 1 + arguments[key_at] if key_at < size else size
    if end + 1 != size:
        raise syntax_error("a field is cut off, or there are too many, in basic.publish", BASIC_PUBLISH)
    try:
        return arguments[3:key_at].decode(), arguments[key_at + 1 : end].decode(), arguments[end]
    except UnicodeDecodeError:
        raise syntax_error("a short string that is not UTF-8 in basic.publish", BASIC_PUBLISH) from None


def encode(channel: int, command: Frame) -> bytes:
    """Return the frame of a command.

    Names are written whatever they are; short strings are cut at 255 bytes.
    """
    payload = encode_arguments(command)
    return b"".join((
        b"\1", channel.to_bytes(2, "big"), (len(payload) + 4).to_bytes(4, "big"), int(command.index).to_bytes(4, "big"), payload,
        bytes((FRAME_END,)),
    ))  # fmt: skip


def encode_arguments(command: Frame) -> bytes:
    """Return what follows the class and method id in the frame of a command."""
    parts: list[bytes] = []
    bits = 0
    bit = 0
    for name, kind in _ARGUMENTS[command.index]:
        value: Any = getattr(command, name)
        if kind == "bit":
            bit = bit or 1
            bits |= bit if value else 0
            bit <<= 1
            continue
        if bit:
            parts.append(bytes((bits,)))
            bits = bit = 0
        parts.append(_written(value, kind))
    if bit:
        parts.append(bytes((bits,)))
    return b"".join(parts)


def _written(value: Any, kind: str) -> bytes:
    """Return an argument that is not a bit."""
    if kind == "shortstr":
        return short(value or "")
    if kind == "table":
        return encode_table(value or {})
    if kind == "longstr":
        data: bytes = value.encode() if isinstance(value, str) else bytes(value or b"")
        return len(data).to_bytes(4, "big") + data
    return int(value or 0).to_bytes(_WIDTHS[kind], "big")
