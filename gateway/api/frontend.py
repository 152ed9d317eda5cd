"""What is a front-end to the host, and the host to a front-end?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gateway.api.channel import Channel, OutcomeSink
from gateway.api.stream import Connection
from gateway.model.message import Message, WireDecoder
from gateway.model.properties import Properties

if TYPE_CHECKING:
    import trio


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one per connection
class Credentials:
    """What a peer says of itself.

    Args:
        mechanism: ``anonymous``, ``password``, ``zap`` ...
        user, password: None where not given.
        front_end: name of the front-end.
        peer: for logs.
        loopback: the peer is on this machine.
        certificate_subject: the common name of its verified client certificate.
        verified: the front-end has made sure by settings of its own that the peer is `user`: by a key, or a password of which
            only it knows the hash.
        strict: what it says of itself has to be checked, on this machine too: where nothing can check it, it is refused.
        vhost: the virtual host that it asks for; None: the user's own. A protocol that hears of it later asks `Gateway.enter`.
    """

    mechanism: str = "anonymous"
    user: str | None = None
    password: bytes | None = None
    front_end: str = ""
    peer: str = ""
    loopback: bool = False
    certificate_subject: str | None = None
    verified: bool = False
    vhost: str | None = None
    strict: bool = False


Authorize = Callable[[str, str, str], bool]
"""``(action, resource, key) -> allowed``; action is configure, write or read; resource an exchange's or queue's name."""


@dataclass(eq=False, slots=True)
class Principal:
    """Who has been let in; one object per user and virtual host, so that what is resolved for it can be cached in `cache`.

    Args:
        authorize: None: everything is allowed.
        cache: for front-ends, by front-end name (routes by topic, for instance).
    """

    user: str
    vhost: str = "/"
    authorize: Authorize | None = None
    cache: dict[str, Any] = field(default_factory=dict)


class Flushable(Protocol):
    """Something that collects during a turn and sends at its end."""

    def flush(self) -> None:
        """Send what was collected. Synchronous, must not block; called once per `touch`."""


class Log(Protocol):
    """A structured logger: an event and key-value pairs."""

    def info(self, event: str, **values: Any) -> None:
        """Something a user may want to know."""

    def warning(self, event: str, **values: Any) -> None:
        """Something a user should look at."""

    def error(self, event: str, **values: Any) -> None:
        """Something is broken."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is stored now, and what has become of how much since the start, for protocols that tell their peers.

    Args:
        messages: in all queues, ready and unacknowledged; one that is in several queues counts in each.
        body_bytes: of their bodies.
        retained: last values.
        retained_bytes: what they count against their limit.
        dropped: messages that were not delivered as far as they should have been: by queues, and by this front-end.
        sent_bytes: by this front-end on its streams, as it said them: before TLS and WebSocket. What was refused by a peer that
            went away is among them.
    """

    messages: int = 0
    body_bytes: int = 0
    retained: int = 0
    retained_bytes: int = 0
    dropped: int = 0
    sent_bytes: int = 0


class Gateway(Protocol):
    """The host, as a front-end sees it."""

    @property
    def log(self) -> Log:
        """The logger, bound to this front-end."""

    @property
    def node_id(self) -> str:
        """A random name of this start of the broker."""

    def now_ms(self) -> int:
        """Wall time in ms since 1970, never going backwards."""

    def authenticate_now(self, credentials: Credentials) -> Principal | None:
        """Let a peer in if that needs no waiting; None: `authenticate` must be asked. Raises as it does."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Let a peer in.

        Raises:
            AccessRefused: it is not let in; the text is for the log, not for the peer.
            NotFound: it is, but there is no virtual host of that name (``no vhost 'x'``).
        Cancellation: safe.
        """

    def enter(self, principal: Principal, vhost: str) -> Principal:
        """Return the same user in another virtual host, the same object for every peer that is let in as that user there.

        Virtual hosts are those of the setting ``broker.vhosts``, ``/``, those that imported definitions name, and those of which
        the journal holds anything.

        Raises:
            NotFound: there is no such virtual host (``no vhost 'x'``). AccessRefused: the user may not enter it.
        """

    def open_channel(self, principal: Principal, sink: OutcomeSink | None = None, *, owner: object | None = None) -> Channel:
        """Open a channel. `owner`: who owns exclusive queues, where several channels share one connection."""

    def release(self, owner: object) -> None:
        """Delete the exclusive queues of an owner that is not a channel."""

    def touch(self, flushable: Flushable) -> None:
        """Have `flushable.flush()` called once at the end of this turn."""

    @property
    def holding(self) -> bool:
        """The journal or memory is behind: publishers should not be read from (see `until_released`)."""

    async def until_released(self) -> None:
        """Wait while `holding`. Cancellation: safe. Does not wait, and is no checkpoint, if not holding."""

    @property
    def alarms(self) -> Sequence[str]:
        """Why messages are held back or refused now, a line each: the journal, its disk, memory. Empty: they are not."""

    async def until_alarms_change(self) -> None:
        """Wait until `alarms` says something else, for protocols that tell their peers. Cancellation: safe."""

    async def serve_streams(
        self,
        listen: Sequence[str],
        handler: Callable[[Connection], Awaitable[None]] | None = None,
        *,
        setting: str,
        task_status: trio.TaskStatus[list[str]],
        accept: Callable[[Connection], None] | None = None,
        websocket: Sequence[str] = (),
    ) -> None:
        """Listen on ``tcp://``, ``tls://``, ``ws://``, ``wss://`` and ``unix:`` addresses (port 0: any free port).

        Announces each listener when it is bound (``task_status.started`` gets the real addresses). An exception of a
        handler is logged and ends that connection only. Returns when draining has ended.

        Args:
            handler: run in a task of its own per connection.
            accept: in place of `handler`: called once per connection, synchronously; it attaches a receiver.
            websocket: sub-protocols that are spoken over WebSocket; with none, ``ws`` and ``wss`` addresses are refused. With some,
                what comes as HTTP on ``tcp`` and ``tls`` addresses is served too.

        Raises:
            ListenError: an address can't be bound; names it, `setting`, and how to disable the front-end.
            ConfigError: an address can't be understood.
        Cancellation: closes listeners and connections.
        """

    def announce(self, line: str) -> None:
        """Say that a listener is ready: ``ROUTER tcp://127.0.0.1:5570``; the host prints ``listening <front-end> <line>``."""

    async def draining(self) -> None:
        """Wait until the broker begins to stop: then stop taking in, and return from `serve` when all is sent.

        Cancellation: safe.
        """

    def count(self, name: str, amount: int = 1, *, reason: str = "") -> None:
        """Count something under this front-end (``dropped``, ``violations`` ...); never on the path of every message."""

    async def stats(self) -> Stats:
        """Count what is stored. It takes a turn for every 1,000 queues, so nothing waits for it; now and then is often enough.

        Cancellation: safe.
        """

    def properties(self, message: Message) -> Properties:
        """Return a message's properties in the common form, whoever sent it."""

    def register_wire(self, tag: str, decoder: WireDecoder) -> None:
        """Register the pure function that reads this front-end's `Message.wire`. Before the first message.

        Only for tags that are not known before it starts: what a front-end offers as `WritesWire` is registered already.
        """


class FrontEnd(Protocol):
    """One protocol, made by a plugin's `tidegate_frontends`."""

    name: str
    """Section of the configuration: ``frontend.<name>``."""

    settings_model: type[Any]
    """A pydantic model; unknown keys are errors. `enabled` is the host's own."""

    def addresses(self, settings: Any) -> Sequence[str]:
        """Return every address that `serve` would bind with these settings, before it does.

        The host looks here whether one is beyond loopback. Pure. ``tcp://host:port`` (and other schemes in front of
        ``://host:port``), ``unix:`` and ``ipc:`` paths, ``inproc:`` names; ``*`` and an interface's name count as beyond.

        Args:
            settings: an instance of `settings_model`.
        Raises:
            ConfigError: an address can't be understood.
        """

    def hints(self, listeners: Sequence[str]) -> Sequence[str]:
        """Return shell lines that a newcomer can paste to try this front-end; printed at start. May be empty.

        Args:
            listeners: the lines that it announced, in order: ``tcp://127.0.0.1:1883``, ``ROUTER tcp://127.0.0.1:5570``.
        Returns:
            lines that may begin with ``tidegate`` or ``python``: the host puts there what starts them on this machine.
        """

    async def serve(self, gateway: Gateway, settings: Any, *, task_status: trio.TaskStatus[None]) -> None:
        """Bind, call ``task_status.started()``, serve until `gateway.draining()` returns and everything is sent.

        Args:
            settings: an instance of `settings_model`.
        Raises:
            ListenError, ConfigError: before `started`: ends the start of the broker.
        Cancellation: closes everything at once.
        """


@runtime_checkable
class WritesWire(Protocol):
    """What a front-end also has if it writes `Message.wire` in a form of its own.

    The host registers these before the first message, whether the front-end is enabled or not; `tidegate peek` and
    `tidegate journal export` read by them without a broker.
    """

    wire_decoders: Mapping[str, WireDecoder]
    """The pure functions that read `Message.wire`, by tag. A tag is one front-end's alone."""


@runtime_checkable
class LetInFirst(Protocol):
    """What a front-end also has if it can't ask its peers who they are, and is let in for all of them when it starts."""

    def credentials(self, settings: Any) -> Sequence[Credentials]:
        """Return what `serve` would say of itself to `Gateway.authenticate` before it binds. Pure.

        The host asks before anything listens whether all of them are let in; `peer` names the endpoint.

        Args:
            settings: an instance of `settings_model`.
        """


@runtime_checkable
class AsksItsPeers(Protocol):
    """What a front-end also has if at some of its addresses nobody gets in who has not proved who it is.

    The host then doesn't ask on account of those whether anonymous peers are let in (``security.anonymous``).
    """

    def guarded(self, settings: Any) -> Sequence[str]:
        """Return those of `FrontEnd.addresses` where every peer must be known. Pure.

        Args:
            settings: an instance of `settings_model`.
        """


@runtime_checkable
class OwnSockets(Protocol):
    """What a front-end also has if it opens its sockets itself, and never by `Gateway.serve_streams`.

    The host's settings of transports (``tls``, ``proxy_protocol`` ...) are errors in its section: nothing would come of them.
    """

    own_sockets: bool
    """True."""
