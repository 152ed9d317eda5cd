"""Which shared subscriptions are there, and who are their members?"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from gateway.api import BindingOptions, Channel, Gateway, Overflow, QueueSpec
from gateway_mqtt.codec.fields import SHARE
from gateway_mqtt.store import VERSION, parse_key, session_prefix
from gateway_mqtt.translate.sessions import SessionLimits

if TYPE_CHECKING:
    from gateway_mqtt.session import SessionKey
    from gateway_mqtt.shared.member import Member

MEMBERS: Final = "mqtt.share"
"""State of the journal: what each lasting member wants, by session and filter."""
QUEUE_PREFIX: Final = "mqtt.share."
MAX_NAME_BYTES: Final = 255
_UNLIMITED: Final = SessionLimits(0, 0, Overflow.REJECT_PUBLISH)

GroupKey = tuple[str, str]
"""Virtual host, and the whole filter: ``$share/GROUP/FILTER``."""


class Wish(msgspec.Struct, frozen=True, array_like=True):
    """What a member wants of a shared subscription.

    Args:
        pattern: the whole filter: ``$share/GROUP/FILTER``.
        qos: granted.
    """

    pattern: str
    qos: int = 0
    subscription_ids: tuple[int, ...] = ()
    retain_as_published: bool = False

    def options(self) -> BindingOptions:
        """Return it as options of a subscription."""
        return BindingOptions(
            self.qos, retain_as_published=self.retain_as_published, subscription_ids=self.subscription_ids, mqtt=True
        )


def parse_share(pattern: str) -> tuple[str, str]:
    """Return group and filter of a well-formed shared subscription [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]."""
    group, _, shared = pattern.removeprefix(SHARE).partition("/")
    return group, shared


def share_queue_name(pattern: str) -> str:
    """Return the name of the queue of a shared subscription: ``mqtt.share.GROUP.FILTER``.

    Dots in the group are written ``%2E``, so that no two are the same; a long one ends with a digest.
    """
    group, shared = parse_share(pattern)
    name = f"{QUEUE_PREFIX}{group.replace('%', '%25').replace('.', '%2E')}.{shared}"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = sha256(pattern.encode()).hexdigest()
    return name.encode()[: MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore") + "~" + digest


@dataclass(slots=True)
class Group:
    """One shared subscription: lasting sessions that are members, connected or not, and connections that consume.

    ``ours``: the queue was made here, and goes with the last member; else somebody else has made one of that name.
    """

    durable: bool = False
    ours: bool = False
    sessions: set[SessionKey] = field(default_factory=set)
    live: dict[Member, None] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Nobody is a member any more."""
        return not self.sessions and not self.live


class Shares:
    """All shared subscriptions. One for all connections; the journal is looked at when it is first asked.

    Args:
        limits: what the queue of one may hold.
        brief_limits: the same for one that does not last, all of which is in memory.
    """

    def __init__(self, gateway: Gateway, limits: SessionLimits = _UNLIMITED, brief_limits: SessionLimits = _UNLIMITED) -> None:
        self._gateway = gateway
        self._limits = limits
        self._brief_limits = brief_limits
        self._groups: dict[GroupKey, Group] = {}
        self._wishes: dict[SessionKey, dict[str, Wish]] = {}
        self._loaded = False

    def wishes(self, channel: Channel, key: SessionKey) -> list[Wish]:
        """Return what a lasting session is a member of."""
        self._load(channel)
        return list(self._wishes.get(key, {}).values())

    def end_session(self, channel: Channel, key: SessionKey) -> None:
        """A lasting session has ended (its time was up, or it began anew): it is a member of nothing."""
        for wish in self.wishes(channel, key):
            self.forget(channel, key, wish.pattern)

    # -- for members --------------------------------------------------------

    def group(self, channel: Channel, vhost: str, pattern: str) -> Group:
        """Return a group, a new one if there is none."""
        self._load(channel)
        return self._groups.setdefault((vhost, pattern), Group())

    def remember(self, channel: Channel, key: SessionKey, wish: Wish) -> None:
        """A lasting session is a member from now on, or wants something else."""
        self._load(channel)
        self._wishes.setdefault(key, {})[wish.pattern] = wish
        self._groups.setdefault((key[0], wish.pattern), Group()).sessions.add(key)
        channel.put_state(MEMBERS, _text(key, wish.pattern), VERSION + msgspec.msgpack.encode(wish))

    def forget(self, channel: Channel, key: SessionKey, pattern: str) -> int:
        """A lasting session is a member no more; the queue goes with the last one. Return as `tidy`."""
        wishes = self._wishes.get(key, {})
        if wishes.pop(pattern, None) is not None:
            channel.put_state(MEMBERS, _text(key, pattern), None)
        if not wishes:
            self._wishes.pop(key, None)
        group = self._groups.get((key[0], pattern))
        if group is not None:
            group.sessions.discard(key)
        return self.tidy(channel, key[0], pattern)

    def tidy(self, channel: Channel, vhost: str, pattern: str) -> int:
        """Delete the queue of a group that has no members; return the channel's number for that, 0: it has none to tell of."""
        group = self._groups.get((vhost, pattern))
        if group is None or not group.is_empty:
            return 0
        del self._groups[vhost, pattern]
        name = share_queue_name(pattern)
        return channel.delete_queue(name) if group.ours and channel.queue_exists(name) else 0

    def queue_spec(self, pattern: str, *, durable: bool) -> QueueSpec:
        """Return the queue of a shared subscription. What is of QoS 0 waits there too, so that members have their turns."""
        limits = self._limits if durable else self._brief_limits
        return QueueSpec(
            share_queue_name(pattern),
            durable=durable,
            max_length=limits.messages,
            max_length_bytes=limits.body_bytes,
            overflow=limits.overflow,
        )

    # -- the journal --------------------------------------------------------

    def _load(self, channel: Channel) -> None:
        if self._loaded:
            return
        self._loaded = True
        for text, value in channel.scan_state(MEMBERS):
            try:
                key, _ = parse_key(text)
                wish = _decode(value)
            except (ValueError, msgspec.MsgspecError) as error:
                channel.put_state(MEMBERS, text, None)
                self._gateway.count("session_state_lost")
                problem = str(error)
                self._gateway.log.warning(
                    "a shared subscription can't be read: dropped", namespace=MEMBERS, key=text, problem=problem
                )
                continue
            self._wishes.setdefault(key, {})[wish.pattern] = wish
            group = self._groups.setdefault((key[0], wish.pattern), Group(durable=True, ours=True))
            group.sessions.add(key)


def _text(key: SessionKey, pattern: str) -> str:
    return session_prefix(key) + quote(pattern, safe="")


def _decode(value: bytes) -> Wish:
    if value[:1] != VERSION:
        raise ValueError(f"a value of version {value[:1].hex() or 'none'}, not 1")
    return msgspec.msgpack.decode(value[1:], type=Wish)
