"""Which commands are there in TGP/1, with which fields, in which order?

Trailing fields that have a default may be left out; what is not in the table is an error (docs/tgp.md, commands).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from gateway.api import Properties

VERSION = 1

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
