"""How do the headers of TGP/1 become typed commands, and back?

A header is a msgpack array ``[number, fields in the order of the table]``, or, for clients written by hand, a JSON object with
the same field names and ``cmd``, the command's name. The body of a message is a frame of its own and never passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeAlias, Union

import msgspec
from msgspec import UNSET, Meta, Struct

from gateway.api import ProtocolViolation
from gateway_zeromq.tgp.commands import COMMANDS, MOST_PARTS, NUMBERS, SERVER_FIELDS, Batch, Command, Part, Props
from gateway_zeromq.tgp.correlation import from_json

SPEC = "TGP/1"
MAX_HEADER_BYTES = 65_536
MAX_DEPTH = 64
"""Maps and lists within each other, in headers and arguments: others must be able to write them, too."""

Encoder: TypeAlias = Callable[..., bytes]

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Command).decode
_json = msgspec.json.Encoder().encode


def encode(*fields: Any) -> bytes:
    """Return a msgpack header: the command's number, then all its fields in order."""
    return _pack(fields)


def encode_json(number: int, *fields: Any) -> bytes:
    """Return the same header as a JSON object. Bytes in properties become base64 text."""
    name, names = SERVER_FIELDS[number]
    return _json({"cmd": name, **dict(zip(names, fields, strict=False))})  # what may be left out is at the end


def decode(header: bytes) -> Command:
    """Return a client's command.

    Raises:
        ProtocolViolation: it is none; the reason says which field is wrong.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolViolation(f"a header of {len(header)} bytes; at most {MAX_HEADER_BYTES} are allowed", SPEC)
    try:
        command = _decode_json(header) if header[:1] == b"{" else _unpack(header)
        if len(header) > MAX_DEPTH:
            _check_depth_of(command)
    except msgspec.MsgspecError as error:
        _refuse(header, str(error))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ProtocolViolation(f"the header can't be read: {error}", SPEC) from None
    return command


def check_depth(value: object, left: int = MAX_DEPTH) -> None:
    """Refuse what is nested too deeply.

    Raises:
        ValueError: it is.
    """
    if not left:
        raise ValueError(f"more than {MAX_DEPTH} maps and lists within each other")
    if isinstance(value, dict):
        for inner in value.values():
            check_depth(inner, left - 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_depth(inner, left - 1)


def _check_depth_of(command: Command) -> None:
    if isinstance(command, Batch):
        for part in command.messages:
            check_depth(part.props and part.props.headers)
    else:
        props = getattr(command, "props", None)
        check_depth(props.headers if props is not None else getattr(command, "args", None) or getattr(command, "token", None))


def is_json(header: bytes) -> bool:
    """Say whether a header is in the form for clients written by hand; it is answered in kind."""
    return header[:1] == b"{"


# -- JSON: a twin of every command, with its fields by name


_IN_JSON: dict[str, Any] = {
    "props": dict[str, Any] | None,
    "messages": Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_PARTS)],
}
"""Properties hold text or bytes, which JSON can't tell apart: they are converted in a second step."""


def _twin(kind: type[Struct]) -> type[Struct]:
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        of = _IN_JSON.get(field.name, field.type)
        fields.append((field.name, of) if field.required else (field.name, of, field.default))
    return msgspec.defstruct(
        kind.__name__, fields, tag=kind.__name__.upper(), tag_field="cmd", forbid_unknown_fields=True, namespace={"_command": kind}
    )


_from_json = msgspec.json.Decoder(Union[tuple(_twin(kind) for kind in COMMANDS)]).decode  # noqa: UP007 - made at run time


def _decode_json(header: bytes) -> Command:
    twin: Any = _from_json(header)
    values = {name: getattr(twin, name) for name in twin.__struct_fields__}
    if values.get("props") is not None:
        values["props"] = _props(values["props"])
    if "messages" in values:
        values["messages"] = [_part(part) for part in values["messages"]]
    command: Command = twin._command(**values)  # noqa: SLF001 - _twin has put it there
    return command


def _props(values: dict[str, Any]) -> Props:
    if "correlation_id" in values:
        values["correlation_id"] = from_json(values["correlation_id"])
    props = msgspec.convert(values, Props)
    _pack(props)  # numbers may be too large for others
    return props


def _part(values: dict[str, Any]) -> Part:
    left = values.keys() - set(Part.__struct_fields__)
    if left:
        raise ValueError(f"a message of a batch has no field {min(left)!r}")
    fields = [values.get(name) for name in Part.__struct_fields__]
    return msgspec.convert([*fields[:-1], None if fields[-1] is None else _props(fields[-1])], Part)


# -- what is wrong, in words

_LONGEST_REASON = 300
_BY_NUMBER = {number: kind for kind, number in NUMBERS.items()}


def _refuse(header: bytes, reason: str) -> NoReturn:
    """Say what is wrong with a header, by the names of commands and fields where they can be known."""
    number: Any = UNSET
    if not is_json(header):
        try:
            number = msgspec.msgpack.decode(header)[0]
        except (msgspec.MsgspecError, ValueError, RecursionError, LookupError, TypeError, OverflowError):
            raise ProtocolViolation("a header must be a msgpack array that begins with a number, or a JSON object", SPEC) from None
    kind = _BY_NUMBER.get(number) if isinstance(number, int) else None
    if kind is not None:
        for position, name in enumerate(kind.__struct_fields__, 1):
            reason = reason.replace(f"$[{position}]", name)
        raise ProtocolViolation(f"{kind.__name__.upper()}: {reason:.{_LONGEST_REASON}}", SPEC) from None
    if number is not UNSET:
        raise ProtocolViolation(f"{number!r:.40} is no command of a client", SPEC) from None
    raise ProtocolViolation(f"{reason:.{_LONGEST_REASON}}", SPEC) from None
