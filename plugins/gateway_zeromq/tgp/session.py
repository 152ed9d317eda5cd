"""What of a TGP client outlives its connection: up to where did it publish, and what was it told?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

import msgspec

REFUSALS_KEPT = 1_000
NAMED_KEPT = 10_000
UNNAMED_KEPT = 10_000


class Admission(Enum):
    """What a sequence number is, seen from its session."""

    NEW = "never seen"
    UNDECIDED = "taken in, and not decided yet"
    DECIDED = "stored or refused before"


class Pending(NamedTuple):
    """A publish whose outcome is not known: the channel's number, the client's, and what it weighs."""

    number: int
    seq: int
    body_bytes: int
    quiet: bool


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of a session on disk."""

    mark: int
    used_ms: int
    user: str
    client: str
    refused: list[tuple[int, int, int]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Session:
    """A publisher. Its sequence numbers rise, so that one of them, the mark, says all that it has sent.

    ``mark``: the highest number taken in. ``pending``: those that are not decided, in order. ``refused``: runs of those that
    were refused, ``(first, last, code)``: they are below the mark and yet not stored; of too many the oldest become one. ``dirty``:
    there is something new to be kept. ``owner``: who publishes for it.

    Args:
        key: names it on disk.
        token: a secret by which the client proves on its next connection that it is the same.
        client: the stable name that it gave itself, or ``""``.
        user: whom it belongs to.
    """

    __slots__ = (
        "client",
        "dirty",
        "key",
        "left_ms",
        "mark",
        "owner",
        "pending",
        "pending_bytes",
        "refused",
        "token",
        "used_ms",
        "user",
    )

    def __init__(self, key: str, token: str, client: str, user: str, now_ms: int) -> None:
        self.key: str = key
        self.token: str = token
        self.client: str = client
        self.user: str = user
        self.used_ms: int = now_ms
        self.left_ms: int = now_ms
        self.mark: int = 0
        self.pending: deque[Pending] = deque()
        self.pending_bytes: int = 0
        self.refused: deque[tuple[int, int, int]] = deque()
        self.dirty: bool = False
        self.owner: Any = None

    @property
    def last_seq(self) -> int:
        """The highest number up to which everything is decided: stored, or among `refused`."""
        undecided = self._first_undecided()
        return undecided - 1 if undecided else self.mark

    @property
    def is_away(self) -> bool:
        """Nobody speaks for it now."""
        return self.owner is None or self.owner.peer is None

    def admission(self, seq: int) -> Admission:
        """Say what a number is; 0 is no number, and always new."""
        if seq > self.mark or not seq:
            return Admission.NEW
        return Admission.UNDECIDED if 0 < self._first_undecided() <= seq else Admission.DECIDED

    def _first_undecided(self) -> int:
        """Return the lowest number that is pending; 0: none is, but what has no number may be."""
        return next((pending.seq for pending in self.pending if pending.seq), 0)

    def submitted(self, number: int, seq: int, body_bytes: int, *, quiet: bool = False) -> None:
        """Note a publish whose outcome will come. `quiet`: nobody is told."""
        self.pending.append(Pending(number, seq, body_bytes, quiet))
        self.pending_bytes += body_bytes

    def note(self, seq: int, *, keep: bool = True) -> None:
        """Raise the mark. `keep`: it is to be kept, with the message."""
        if seq > self.mark:
            self.mark = seq
            self.dirty = self.dirty or keep

    def refuse(self, seq: int, code: int) -> None:
        """Note that a number was refused. Again: nothing happens."""
        if not seq or (seq <= self.mark and self.refusal(seq)):
            return
        self.note(seq)
        self.dirty = True
        if self.refused and self.refused[-1][1:] == (seq - 1, code):
            self.refused[-1] = (self.refused[-1][0], seq, code)
        else:
            self.refused.append((seq, seq, code))
            if len(self.refused) > REFUSALS_KEPT:
                self._merge_oldest()

    def _merge_oldest(self) -> None:
        """Make one run of the two oldest: what is between them may be sent twice, but what was refused is never called stored."""
        (first, last, code), (other_first, other_last, _) = self.refused.popleft(), self.refused.popleft()
        self.refused.appendleft((min(first, other_first), max(last, other_last), code))

    def refusal(self, seq: int) -> int:
        """Return the code by which a number was refused; 0: it was not. Cost: the number of runs of refusals."""
        return next((code for first, last, code in reversed(self.refused) if first <= seq <= last), 0)

    def decide(self, through: int) -> Iterator[Pending]:
        """Yield what is decided by now and take it out, in order."""
        pending = self.pending
        while pending and pending[0].number <= through:
            decided = pending.popleft()
            self.pending_bytes -= decided.body_bytes
            yield decided

    def record(self, now_ms: int) -> bytes:
        """Return what is to be kept, and take it for kept."""
        self.dirty = False
        self.used_ms = now_ms
        return _encode(Record(self.mark, now_ms, self.user, self.client, list(self.refused)))


class Sessions:
    """All sessions, those without a connection included.

    Args:
        ttl_ms: how long one without a client name waits for its client.
        make_token: returns a fresh secret.
    """

    def __init__(self, ttl_ms: int, make_token: Callable[[], str]) -> None:
        self._ttl_ms = ttl_ms
        self._make_token = make_token
        self._by_key: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        self.left = 0  # since somebody looked whether there are too many

    def __len__(self) -> int:
        return len(self._by_key)

    def load(self, records: Iterable[tuple[str, bytes]], now_ms: int) -> list[str]:
        """Take back what was kept. Returns the keys of what can't be read."""
        bad = []
        for key, value in records:
            try:
                record = _decode(value)
            except msgspec.MsgspecError:
                bad.append(key)
                continue
            session = Session(key, self._make_token() if record.client else key, record.client, record.user, now_ms)
            session.mark, session.used_ms = record.mark, record.used_ms
            session.refused.extend(record.refused)
            self._add(session)
        return bad

    def open(self, client: str, token: str | None, user: str, now_ms: int) -> tuple[Session, bool]:
        """Return the session that a client means, and whether it is resumed.

        A stable name says more than a token. Another user's session is never found.
        """
        found = self._by_key.get(named_key(user, client)) if client else self._by_token.get(token or "")
        if found is not None and found.user == user:
            return found, True
        fresh = self._make_token()
        session = Session(named_key(user, client) if client else fresh, fresh, client, user, now_ms)
        self._add(session)
        return session, False

    def leave(self, session: Session, now_ms: int) -> None:
        """Note that a session's connection has gone."""
        session.left_ms = now_ms
        self.left += 1

    def expire(self, now_ms: int) -> list[Session]:
        """Forget, and return, those whose clients stay away too long, and of too many those used longest ago.

        Of those without a name the ones that published nothing go first: anybody can make them, and nobody needs them.
        """
        self.left = 0
        away = [session for session in self._by_key.values() if session.is_away and not session.pending]
        gone = [session for session in away if not session.client and now_ms - session.left_ms >= self._ttl_ms]
        named = [session for session in away if session.client]
        if len(named) > NAMED_KEPT:
            gone += sorted(named, key=lambda session: session.used_ms)[: len(named) - NAMED_KEPT]
        unnamed = [session for session in away if not session.client and now_ms - session.left_ms < self._ttl_ms]
        if len(unnamed) > UNNAMED_KEPT:
            gone += sorted(unnamed, key=lambda session: (session.mark > 0, session.left_ms))[: len(unnamed) - UNNAMED_KEPT]
        for session in gone:
            self.forget(session)
        return gone

    def forget(self, session: Session) -> None:
        """Forget a session."""
        self._by_key.pop(session.key, None)
        self._by_token.pop(session.token, None)

    def _add(self, session: Session) -> None:
        self._by_key[session.key] = session
        self._by_token[session.token] = session


def named_key(user: str, client: str) -> str:
    """Return the key of a client with a stable name; it can't be a token."""
    return f"client:{len(user)}:{user}:{client}"
