"""How do the headers of TGP/1 become typed commands, and back?

A header is a msgpack array ``[number, fields in the order of the table]``, or, for clients written by hand, a JSON object with
the same field names and ``cmd``, the command's name. Trailing fields that have a default may be left out; what is not in the
table is an error. The body of a message is a frame of its own and never passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, Union

import msgspec
from msgspec import UNSET, Meta, Struct

from gateway.api import Properties, ProtocolViolation
from gateway_zeromq.tgp.correlation import from_json

VERSION = 1
SPEC = "TGP/1"
MAX_HEADER_BYTES = 65_536
MAX_DEPTH = 64
"""Maps and lists within each other, in headers and arguments: others must be able to write them, too."""

MANDATORY = 1
NO_CONFIRM = 2

READY, CONFIRM, RETURN, CANCEL, DELIVER, EMPTY, GOT, OK, ERROR, PING, PONG, BYE = 2, 4, 5, 7, 8, 18, 19, 20, 21, 22, 23, 24

CAPABILITIES = ("batch", "credit_bytes", "extend", "nack_delay", "refused", "schedule")
"""What the server can do beyond the least that TGP/1 asks for, as READY says it (docs/tgp.md, capabilities)."""

HIGHEST = (1 << 63) - 1
MOST_PARTS = 1_000
"""Messages of one BATCH."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=HIGHEST)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 53)]
Tag: TypeAlias = Annotated[str, Meta(max_length=255)] | Count
Name: TypeAlias = str


class Props(Properties, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """AMQP's basic properties as a publisher sends them: the common ones, and the delivery mode (1: it need not last)."""

    priority: Annotated[int, Meta(ge=0, le=255)] | None = None
    expiration_ms: Milliseconds | None = None
    delivery_mode: Literal[1, 2] = 2


class HelloOptions(Struct, frozen=True, gc=False):
    """What a client says of itself; options that are not known here are for a later server."""

    client: Annotated[str, Meta(max_length=255)] = ""
    caps: list[str] = []
    session: Annotated[str, Meta(max_length=255)] | None = None
    heartbeat_ms: Count | None = None
    credit_bytes: Count | None = None


class ConsumeChoices(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """How a consumer wants its messages."""

    no_ack: bool = False
    exclusive: bool = False
    priority: int = 0


DEFAULT_CHOICES = ConsumeChoices()


class Hello(Struct, array_like=True, tag=1, forbid_unknown_fields=True, gc=False):
    """The first command of every connection."""

    r: Count
    version_max: Count
    options: HelloOptions | None = None


class Publish(Struct, array_like=True, tag=3, forbid_unknown_fields=True, gc=False):
    """A message; the body is the next frame."""

    seq: Count
    exchange: Name
    routing_key: str
    props: Props | None = None
    flags: Annotated[int, Meta(ge=0, le=MANDATORY | NO_CONFIRM)] = 0
    due_ms: Milliseconds = 0


class Part(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One message of a batch: how many bytes of the body are its own, where it goes, and its properties."""

    body_bytes: Count
    exchange: Name
    routing_key: str
    props: Props | None = None


class Batch(Struct, array_like=True, tag=25, forbid_unknown_fields=True, gc=False):
    """Messages in a row, numbered from `seq` on; their bodies, one behind the other, are the next frame."""

    seq: Count
    messages: Annotated[list[Part], Meta(min_length=1, max_length=MOST_PARTS)]
    flags: Annotated[int, Meta(ge=0, le=MANDATORY | NO_CONFIRM)] = 0


class Consume(Struct, array_like=True, tag=6, forbid_unknown_fields=True, gc=False):
    """Take a queue's messages, as many as credit allows."""

    r: Count
    queue: Name
    tag: Tag
    credit: Count
    options: ConsumeChoices | None = None


class Cancel(Struct, array_like=True, tag=CANCEL, forbid_unknown_fields=True, gc=False):
    """End a consumer; what it holds stays unsettled."""

    r: Count
    tag: Tag


class Ack(Struct, array_like=True, tag=9, forbid_unknown_fields=True, gc=False):
    """Settle deliveries: done."""

    tag: Tag | None
    delivery: Count
    multiple: bool = False


class Nack(Struct, array_like=True, tag=10, forbid_unknown_fields=True, gc=False):
    """Settle deliveries: back to the queue, or rejected."""

    tag: Tag | None
    delivery: Count
    multiple: bool = False
    requeue: bool = False
    delay_ms: Milliseconds = 0


class Extend(Struct, array_like=True, tag=26, forbid_unknown_fields=True, gc=False):
    """Keep a delivery for longer than the queue's delivery timeout says."""

    tag: Tag | None
    delivery: Count
    lease_ms: Milliseconds
    multiple: bool = False


class Credit(Struct, array_like=True, tag=11, forbid_unknown_fields=True, gc=False):
    """Allow more deliveries."""

    tag: Tag
    delta: Count


class Get(Struct, array_like=True, tag=12, forbid_unknown_fields=True, gc=False):
    """Take one message now."""

    r: Count
    queue: Name
    no_ack: bool = False


class Declare(Struct, array_like=True, tag=13, forbid_unknown_fields=True):
    """Make sure that there is such a queue or exchange."""

    r: Count
    kind: Literal["queue", "exchange"]
    name: Name
    args: dict[str, Any] | None = None


class Delete(Struct, array_like=True, tag=14, forbid_unknown_fields=True):
    """Delete a queue or an exchange."""

    r: Count
    kind: Literal["queue", "exchange"]
    name: Name
    args: dict[str, Any] | None = None


class Bind(Struct, array_like=True, tag=15, forbid_unknown_fields=True):
    """Bind a queue to an exchange."""

    r: Count
    queue: Name
    exchange: Name
    key: str
    args: dict[str, Any] | None = None


class Unbind(Struct, array_like=True, tag=16, forbid_unknown_fields=True):
    """Undo a binding."""

    r: Count
    queue: Name
    exchange: Name
    key: str
    args: dict[str, Any] | None = None


class Purge(Struct, array_like=True, tag=17, forbid_unknown_fields=True, gc=False):
    """Remove the ready messages of a queue."""

    r: Count
    queue: Name


class Unschedule(Struct, array_like=True, tag=27, forbid_unknown_fields=True, gc=False):
    """Take a scheduled message back."""

    r: Count
    id: Count


class Ping(Struct, array_like=True, tag=PING, forbid_unknown_fields=True):
    """Is anybody there?"""

    token: Any = None


class Pong(Struct, array_like=True, tag=PONG, forbid_unknown_fields=True):
    """Yes."""

    token: Any = None


class Bye(Struct, array_like=True, tag=BYE, forbid_unknown_fields=True, gc=False):
    """The client goes, for good or to come again."""

    code: int = 200
    text: str = ""


Definition: TypeAlias = Declare | Delete | Bind | Unbind | Purge | Unschedule
"""What changes what there is, and is answered by OK or ERROR."""
Command: TypeAlias = (
    Hello
    | Publish
    | Batch
    | Consume
    | Cancel
    | Ack
    | Nack
    | Extend
    | Credit
    | Get
    | Declare
    | Delete
    | Bind
    | Unbind
    | Purge
    | Unschedule
    | Ping
    | Pong
    | Bye
)
COMMANDS: tuple[type[Struct], ...] = Command.__args__

NUMBERS: dict[type[Struct], int] = {kind: int(kind.__struct_config__.tag or 0) for kind in COMMANDS}

SERVER_FIELDS: dict[int, tuple[str, tuple[str, ...]]] = {
    READY: ("READY", ("r", "version", "options")),
    CONFIRM: ("CONFIRM", ("seq", "multiple", "status", "id")),
    RETURN: ("RETURN", ("seq", "code", "exchange", "routing_key")),
    CANCEL: ("CANCEL", ("r", "tag")),
    DELIVER: ("DELIVER", ("tag", "delivery", "redelivered", "exchange", "routing_key", "props")),
    EMPTY: ("EMPTY", ("r",)),
    GOT: ("GOT", ("r", "delivery", "redelivered", "exchange", "routing_key", "props")),
    OK: ("OK", ("r", "result")),
    ERROR: ("ERROR", ("r", "code", "text", "ref_cmd")),
    PING: ("PING", ("token",)),
    PONG: ("PONG", ("token",)),
    BYE: ("BYE", ("code", "text")),
}
"""What the server says: number -> name and fields, in order."""

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
