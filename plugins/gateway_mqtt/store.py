"""What of a lasting session is in the journal, so that it outlives the broker too?

Three namespaces: `SESSIONS` (one record per lasting session), `INCOMING` (QoS 2 identifiers that came in and are not released),
`OUTGOING` (identifiers of what was sent and is not done with). Keys begin with the client identifier and the virtual host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec

from gateway_mqtt.codec.packets import MAX_IDENTIFIER
from gateway_mqtt.runs import UNKNOWN, Run, pairs_of, runs_of

if TYPE_CHECKING:
    from gateway.api import Channel, Log
    from gateway_mqtt.session import SessionKey

SESSIONS: Final = "mqtt.session"
INCOMING: Final = "mqtt.in"
OUTGOING: Final = "mqtt.out"

VERSION: Final = b"\x01"
"""The first byte of every value; what is behind it is MessagePack."""
NEVER_EXPIRES: Final = 0xFFFFFFFF
"""Session expiry interval of a session that does not end (MQTT 5.0 §3.1.2.11.2)."""
_HERE: Final = VERSION + msgspec.msgpack.encode(None)
_DEFAULT_VHOST: Final = "/"


class StoredWill(msgspec.Struct, frozen=True, array_like=True):
    """A will as it is kept.

    Args:
        topic: an MQTT topic name.
        qos: 0, 1 or 2.
        delay_s: will delay interval.
        properties: MQTT 5 will properties, in whatever form who keeps them writes and reads them.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay_s: int = 0
    properties: bytes = b""


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    """A lasting session.

    Args:
        expiry_s: how long it lasts after its connection has ended; `NEVER_EXPIRES`: for ever.
        ended_at_ms: wall time at which its connection ended; None: it is connected (or was, when the broker died).
        level: protocol level of its last connection: 3, 4 or 5.
        will: what is to be published if the client is lost, or does not come back in time.
        will_due_ms: wall time at which the will is to be published; None: it is not decided that it will be.
        user: who owns the session, for a broker that publishes the will without a connection.
        shares: topic filters of its shared subscriptions, as subscribed (``$share/GROUP/FILTER``), with their options as
            who keeps them writes and reads them.
    """

    expiry_s: int = NEVER_EXPIRES
    ended_at_ms: int | None = None
    level: int = 4
    will: StoredWill | None = None
    will_due_ms: int | None = None
    user: str = ""
    shares: tuple[str, ...] = ()


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """What a packet identifier of QoS 2 stands for, on its way out.

    Args:
        position: of the entry in the session's queue.
        released: 0: the PUBLISH was, or is to be, sent. Else the entry is acknowledged and a PUBREL was, or is to be, sent;
            the number says in which order.
    """

    position: int
    released: int = 0


def session_prefix(key: SessionKey) -> str:
    """Return what a session's keys begin with; the rest has no slash.

    A client identifier may hold any character but U+0000, a slash too, so keys are to be read from their end.
    """
    vhost, client_id = key
    return f"{client_id}/{'' if vhost == _DEFAULT_VHOST else quote(vhost, safe='')}/"


def parse_key(text: str) -> tuple[SessionKey, str]:
    """Return the session that a key is of, and what comes behind the prefix.

    Raises:
        ValueError: it is no such key.
    """
    head, slash, rest = text.rpartition("/")
    client_id, second, vhost = head.rpartition("/")
    if not slash or not second:
        raise ValueError(f"no session's key: {text!r}")
    return (unquote(vhost) or _DEFAULT_VHOST, client_id), rest


class Kept:
    """What is in the journal of one session, as it is known in memory; it goes from one connection to the next.

    ``incoming``: QoS 2 identifiers that were received and not released.
    ``outgoing``: by packet identifier, what was sent with QoS 2 and is not done with, in the order of sending.
    ``runs``: what was in flight with QoS 1 when it was last written.
    """

    __slots__ = ("incoming", "outgoing", "runs")

    def __init__(self) -> None:
        self.incoming: dict[int, None] = {}  # an empty set is not small
        self.outgoing: dict[int, Sent] = {}
        self.runs: tuple[Run, ...] = ()

    @property
    def exact(self) -> bool:
        """Nothing is in flight beside that. Of a session that was connected when the broker died nobody knows."""
        return UNKNOWN not in self.runs

    @property
    def is_empty(self) -> bool:
        """There is nothing to be remembered."""
        return not (self.incoming or self.outgoing or self.runs)


class SessionStore:
    """One connection's access to what is kept of its session. Where the session does not last, it is kept in memory only.

    None of these waits for the disk: what is put is on it with the commit that holds what is published or acknowledged in the same
    turn, and `Channel.barrier` tells when.

    Args:
        lasts: the session outlives its connection.
    """

    __slots__ = ("_channel", "_key", "_lasts", "_order", "_owner", "_prefix", "kept")

    def __init__(self, channel: Channel, key: SessionKey, kept: Kept, *, lasts: bool, owner: Stores | None = None) -> None:
        self._channel: Channel = channel
        self._key: SessionKey = key
        self._owner: Stores | None = owner
        self._prefix: str = session_prefix(key)
        self._lasts: bool = lasts
        self._order: int = max((sent.released for sent in kept.outgoing.values()), default=0)
        self.kept: Kept = kept

    @property
    def lasts(self) -> bool:
        """What is put here is in the journal."""
        return self._lasts

    # -- QoS 2, in ----------------------------------------------------------

    def received(self, packet_id: int) -> None:
        """A PUBLISH of QoS 2 came under an identifier: not before its PUBREL is it taken again [MQTT-4.3.3-2].

        To be called in the turn of `Channel.publish`; to be undone by `unreceived` if the publish is refused.
        """
        self.kept.incoming[packet_id] = None
        if self._lasts:
            self._channel.put_state(INCOMING, f"{self._prefix}{packet_id}", _HERE)

    def unreceived(self, packet_id: int) -> bool:
        """The identifier is free again: its PUBREL came, or its publish was refused. Return whether it was taken."""
        incoming = self.kept.incoming
        if packet_id not in incoming:
            return False
        del incoming[packet_id]
        if self._lasts:
            self._channel.put_state(INCOMING, f"{self._prefix}{packet_id}", None)
        return True

    def was_received(self, packet_id: int) -> bool:
        """Say whether a PUBLISH of QoS 2 with this identifier came and is not released."""
        return packet_id in self.kept.incoming

    # -- QoS 2, out ---------------------------------------------------------

    def sending(self, packet_id: int, position: int) -> None:
        """An entry is to be sent with QoS 2 under an identifier, as soon as that is on disk."""
        self._put_sent(packet_id, Sent(position))

    def released(self, packet_id: int, position: int) -> None:
        """PUBREC came: to be called in the turn in which the entry is acknowledged; PUBREL as soon as that is on disk."""
        self._order += 1
        self.kept.outgoing.pop(packet_id, None)  # it is the last one then: PUBRELs keep the order of the PUBRECs [MQTT-4.6.0-4]
        self._put_sent(packet_id, Sent(position, self._order))

    def completed(self, packet_id: int) -> None:
        """The identifier is free again: PUBCOMP came, or the message was rejected, or it was never sent."""
        if self.kept.outgoing.pop(packet_id, None) is not None and self._lasts:
            self._channel.put_state(OUTGOING, f"{self._prefix}{packet_id}", None)

    def _put_sent(self, packet_id: int, sent: Sent) -> None:
        self.kept.outgoing[packet_id] = sent
        if self._lasts:
            self._channel.put_state(OUTGOING, f"{self._prefix}{packet_id}", _encode(sent))

    # -- QoS 1, out ---------------------------------------------------------

    def in_flight(self, positions: Iterable[tuple[int, int]], *, exact: bool = True) -> None:
        """Remember what is in flight with QoS 1, as pairs of position and packet identifier; nobody waits for it.

        Nothing is written if nothing has changed. Cost: the pairs.

        Args:
            exact: that is all.
        """
        if not self._lasts:
            return
        runs = runs_of(positions) if exact else (UNKNOWN, *runs_of(positions))
        if runs != self.kept.runs:
            self.kept.runs = runs
            self._channel.put_state(OUTGOING, self._prefix, _encode(runs) if runs else None)

    # -- the session --------------------------------------------------------

    def close(self) -> None:
        """The connection has ended: what is empty takes no memory. What is in the journal stays."""
        if self._owner is not None:
            self._owner.forget(self._key)

    def put_record(self, record: SessionRecord) -> None:
        """Keep what is known of the session itself. Nothing for a session that does not last."""
        if self._lasts:
            self._channel.put_state(SESSIONS, self._prefix, _encode(record))

    def drop(self) -> None:
        """Forget the session: its record and all identifiers."""
        if self._lasts:
            channel, prefix = self._channel, self._prefix
            if channel.get_state(SESSIONS, prefix) is not None:
                channel.put_state(SESSIONS, prefix, None)
            for packet_id in self.kept.incoming:
                channel.put_state(INCOMING, f"{prefix}{packet_id}", None)
            for packet_id in self.kept.outgoing:
                channel.put_state(OUTGOING, f"{prefix}{packet_id}", None)
            if self.kept.runs:
                channel.put_state(OUTGOING, prefix, None)
        self._order = 0
        self.kept.incoming.clear()
        self.kept.outgoing.clear()
        self.kept.runs = ()


class Stores:
    """What is kept of all lasting sessions. One for all connections; the journal is looked at when it is first asked.

    Args:
        log, count: told of values that can't be read; they are dropped.
    """

    def __init__(self, log: Log | None = None, count: Callable[..., None] | None = None) -> None:
        self._log = log
        self._count = count
        self._kept: dict[SessionKey, Kept] | None = None

    def open(self, channel: Channel, key: SessionKey, *, lasts: bool) -> SessionStore:
        """Return a connection's access to its session's state.

        One that does not last begins with nothing; what is in the journal under its name is not touched: `SessionStore.drop` of a
        lasting one is for that.

        Args:
            channel: what is put goes through it.
            lasts: the session outlives its connection.
        """
        if not lasts:
            return SessionStore(channel, key, Kept(), lasts=False)
        return SessionStore(channel, key, self._of(channel, key), lasts=True, owner=self)

    def forget(self, key: SessionKey) -> None:
        """Let go of what is empty, as the session is gone or its client is."""
        if self._kept is not None:
            kept = self._kept.get(key)
            if kept is not None and kept.is_empty:
                del self._kept[key]

    def drop(self, channel: Channel, key: SessionKey) -> None:
        """Forget all that is in the journal of a session, whoever was connected."""
        self.open(channel, key, lasts=True).drop()
        self.forget(key)

    def scan_records(self, channel: Channel) -> Iterator[tuple[SessionKey, SessionRecord]]:
        """Yield every lasting session that the journal knows; the order means nothing. For the start.

        Of those that were connected it is noted that nobody knows what they were sent last.
        """
        for text, value in channel.scan_state(SESSIONS):
            found = self._read(channel, SESSIONS, text, value, SessionRecord)
            if found is None or found[1]:
                continue
            if found[2].ended_at_ms is None:
                store = self.open(channel, found[0], lasts=True)
                store.in_flight(list(pairs_of(store.kept.runs)), exact=False)
            yield found[0], found[2]

    def record(self, channel: Channel, key: SessionKey) -> SessionRecord | None:
        """Return what is known of one session; None: nothing is."""
        text = session_prefix(key)
        value = channel.get_state(SESSIONS, text)
        found = None if value is None else self._read(channel, SESSIONS, text, value, SessionRecord)
        return None if found is None else found[2]

    def _of(self, channel: Channel, key: SessionKey) -> Kept:
        if self._kept is None:
            self._kept = self._load(channel)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = Kept()
        return kept

    # -- reading ------------------------------------------------------------

    def _load(self, channel: Channel) -> dict[SessionKey, Kept]:
        loaded: dict[SessionKey, Kept] = {}
        for text, value in channel.scan_state(INCOMING):
            found = self._read(channel, INCOMING, text, value, None)
            if found is not None:
                loaded.setdefault(found[0], Kept()).incoming[int(found[1])] = None
        for text, value in channel.scan_state(OUTGOING):
            self._load_sent(channel, loaded, text, value)
        for kept in loaded.values():
            in_order = sorted(kept.outgoing.items(), key=lambda item: (item[1].released, item[1].position))
            kept.outgoing = dict(in_order)
        return loaded

    def _load_sent(self, channel: Channel, loaded: dict[SessionKey, Kept], text: str, value: bytes) -> None:
        if text.endswith("/"):
            runs = self._read(channel, OUTGOING, text, value, tuple[Run, ...])
            if runs is not None:
                loaded.setdefault(runs[0], Kept()).runs = runs[2]
            return
        sent = self._read(channel, OUTGOING, text, value, Sent)
        if sent is not None:
            loaded.setdefault(sent[0], Kept()).outgoing[int(sent[1])] = sent[2]

    def _read(self, channel: Channel, namespace: str, text: str, value: bytes, kind: Any) -> tuple[SessionKey, str, Any] | None:
        """Return session, packet identifier (or nothing) and value; None: it can't be read, and is dropped."""
        try:
            key, rest = parse_key(text)
            _check_rest(namespace, rest)
            return key, rest, _decode(value, kind)
        except (ValueError, msgspec.MsgspecError) as error:
            channel.put_state(namespace, text, None)
            if self._count is not None:
                self._count("session_state_lost")
            if self._log is not None:
                self._log.error(
                    "what was kept of a session can't be read: dropped", namespace=namespace, key=text, problem=str(error)
                )
            return None


def _check_rest(namespace: str, rest: str) -> None:
    """Raises ValueError: what is behind a key's prefix is no packet identifier where one should be."""
    if (rest or namespace == INCOMING) and not 1 <= int(rest) <= MAX_IDENTIFIER:
        raise ValueError(f"no packet identifier: {rest}")


def _encode(value: object) -> bytes:
    return VERSION + msgspec.msgpack.encode(value)


def _decode(value: bytes, kind: Any) -> Any:
    """Read a value.

    Raises:
        ValueError: another version wrote it. MsgspecError: it is damaged.
    """
    if value[:1] != VERSION:
        raise ValueError(f"a value of version {value[:1].hex() or 'none'}, not 1")
    return msgspec.msgpack.decode(value[1:], type=kind)
