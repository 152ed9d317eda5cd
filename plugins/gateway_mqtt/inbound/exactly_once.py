"""Which messages of QoS 2 have come in, and when may their sender be told?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from gateway.api import Channel, Gateway, GatewayError, Message, Outcome, Overloaded, Principal, Route
from gateway_mqtt.codec.names import PUBCOMP, PUBREC
from gateway_mqtt.codec.reasons import NO_MATCHING_SUBSCRIBERS, PACKET_IDENTIFIER_NOT_FOUND
from gateway_mqtt.inbound.answers import FRONTS, Answers
from gateway_mqtt.translate.refusals import reason_code

AGAIN: Final = 0
REFUSED: Final = 1
RELEASED: Final = 2
PUBREC_FRONT: Final = FRONTS[PUBREC]


class Identifiers(Protocol):
    """The session's QoS 2 identifiers that came in and are not released (a `gateway_mqtt.store.SessionStore` has them)."""

    @property
    def lasts(self) -> bool:
        """They outlive the connection, in the journal."""

    def received(self, packet_id: int) -> None:
        """One came; on disk with what is published in the same turn."""

    def unreceived(self, packet_id: int) -> bool:
        """One is free again; return whether it was taken."""

    def was_received(self, packet_id: int) -> bool:
        """Say whether one is taken."""


class _Odd:
    """What a number of the channel stands for that is no message.

    ``kind``: AGAIN (a PUBLISH under an identifier that is taken), REFUSED (nothing was submitted) or RELEASED.
    ``completed``: the PUBCOMPs that RELEASED allows.
    """

    __slots__ = ("code", "completed", "kind", "packet_id")

    def __init__(self, kind: int, packet_id: bytes, code: int, completed: list[bytes] | None) -> None:
        self.kind: int = kind
        self.packet_id: bytes = packet_id
        self.code: int = code
        self.completed: list[bytes] = completed if completed is not None else []


class Arrivals:
    """A session's publishes of QoS 2, and their releases (an `OutcomeSink`).

    A message is published when its PUBLISH first comes, and its identifier noted in the same commit; until its PUBREL it is not
    published again, whatever happens to connection and broker [MQTT-4.3.3-2] [MQTT5-4.3.3-10]. It has a channel of its own, which
    outlives the connection until all is decided: what turns out to be refused leaves no identifier behind, even if nobody is there
    any more to be told.

    ``pending`` has one element for each number of that channel that is not decided yet: a packet identifier as received, or ``b""``
    for what is in ``odd``.

    Args:
        owner: of that channel; the connection's others have the same one.
    """

    __slots__ = (
        "_answers",
        "_channel",
        "_completed",
        "_first",
        "_gateway",
        "_gone",
        "_identifiers",
        "_let_go",
        "_odd",
        "_open",
        "_pending",
        "_repeats",
        "_silent",
    )

    def __init__(
        self, gateway: Gateway, principal: Principal, identifiers: Identifiers, answers: Answers, owner: object | None = None
    ) -> None:
        self._gateway: Gateway = gateway
        self._identifiers: Identifiers = identifiers
        self._answers: Answers = answers
        self._pending: list[bytes] = []
        self._odd: dict[int, _Odd] = {}
        self._first: int = 1
        self._open: set[bytes] = set()
        self._completed: list[bytes] = []
        self._repeats: int = 0
        self._let_go: set[bytes] = set()
        self._silent: bool = False
        self._gone: bool = False
        self._channel: Channel = gateway.open_channel(principal, self, owner=owner)

    @property
    def unanswered(self) -> int:
        """How many count against the Receive Maximum (MQTT 5.0 §4.9): until PUBCOMP, or a PUBREC that says no."""
        return len(self._open)

    # -- in -----------------------------------------------------------------

    def is_known(self, packet_id: bytes) -> bool:
        """Take a PUBLISH under an identifier that is taken: it is answered, and not published again. False: it is free."""
        if not self._identifiers.was_received(int.from_bytes(packet_id, "big")):
            return False
        self._open.add(packet_id)
        self._repeats += 1
        self._submitted(AGAIN, packet_id)  # what became of the first is certain with this number, whoever submitted that
        return True

    def publish(self, route: Route, message: Message, packet_id: bytes, *, retain: bool) -> None:
        """Publish a message under an identifier that is free."""
        channel = self._channel
        if retain:
            channel.retain(route, message)
        number = channel.publish(route, message)
        self._pending.append(packet_id)
        self._open.add(packet_id)
        if channel.refused(number) is None:  # else the identifier must not claim it, not even if the broker dies now
            self._identifiers.received(int.from_bytes(packet_id, "big"))

    def refuse(self, packet_id: bytes, code: int) -> None:
        """Say no in its turn [MQTT5-4.6.0-3]; nothing was published."""
        self._open.add(packet_id)
        self._submitted(REFUSED, packet_id, code)

    def released(self, packet_id: int) -> None:
        """PUBREL: the identifier is free, and the client is told so when that is on disk [MQTT-4.3.3-2].

        Else a crash would make of the next message under it a repeated one. `fed` must follow in the same turn.
        """
        known = self._identifiers.unreceived(packet_id)
        code = 0 if known or not self._answers.five else PACKET_IDENTIFIER_NOT_FOUND
        raw = packet_id.to_bytes(2, "big")
        self._completed.append(self._answers.packet(PUBCOMP, raw, code))
        if known and self._repeats:
            self._let_go.add(raw)

    def fed(self) -> None:
        """Everything of one read has been taken."""
        if not self._completed:
            return
        completed, self._completed = self._completed, []
        if self._identifiers.lasts:
            self._submitted(RELEASED, b"", 0, completed)
        else:
            self._send(self._complete(completed))

    def _submitted(self, kind: int, packet_id: bytes, code: int = 0, completed: list[bytes] | None = None) -> None:
        self._odd[self._channel.barrier()] = _Odd(kind, packet_id, code, completed)
        self._pending.append(b"")

    def _complete(self, completed: list[bytes]) -> list[bytes]:
        """Return the PUBCOMPs; what they complete counts no more."""
        self._open.difference_update([packet[2:4] for packet in completed])
        return completed

    # -- back ---------------------------------------------------------------

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """Send the PUBRECs of what is stored, in the order of the publishes [MQTT-4.6.0-3], and PUBCOMPs."""
        count = through + 1 - self._first
        first = self._first
        decided = self._pending[:count]
        del self._pending[:count]
        self._first = through + 1
        if exceptions or self._odd:
            self._answer_all(decided, first, exceptions)
        elif decided:
            self._send([PUBREC_FRONT, PUBREC_FRONT.join(decided)], len(decided))
        if self._gone and not self._pending:
            self._gateway.touch(self)

    def _answer_all(self, decided: list[bytes], first: int, exceptions: Sequence[Outcome]) -> None:
        told = {outcome.number: outcome for outcome in exceptions}
        replies: list[bytes] = []
        for number, packet_id in enumerate(decided, first):
            outcome = told.get(number)
            error = outcome.error if outcome is not None else None
            if not packet_id:
                self._answer_odd(self._odd.pop(number), error, replies)
            elif error is not None:
                self._identifiers.unreceived(int.from_bytes(packet_id, "big"))
                self._say_no(packet_id, error, replies)
            else:
                unmatched = outcome is not None and outcome.unroutable and self._answers.five
                replies.append(self._answers.packet(PUBREC, packet_id, NO_MATCHING_SUBSCRIBERS if unmatched else 0))
        self._send(replies)

    def _answer_odd(self, odd: _Odd, error: GatewayError | None, replies: list[bytes]) -> None:
        if odd.kind == RELEASED:
            if error is None:
                replies += self._complete(odd.completed)
            else:
                self._close(error, replies)
            return
        if odd.kind == AGAIN and not self._is_stored(odd.packet_id):
            self._say_no(odd.packet_id, error or Overloaded("it was refused the first time"), replies)
            return
        if odd.kind == REFUSED:
            self._open.discard(odd.packet_id)
        replies.append(self._answers.packet(PUBREC, odd.packet_id, odd.code))

    def _is_stored(self, packet_id: bytes) -> bool:
        """Say of a message that was sent again whether it was taken the first time, which is decided by now.

        Had it been refused, the identifier would be free, though nobody let it go.
        """
        stored = packet_id in self._let_go or self._identifiers.was_received(int.from_bytes(packet_id, "big"))
        self._repeats -= 1
        if not self._repeats:
            self._let_go.clear()
        return stored

    def _say_no(self, packet_id: bytes, error: GatewayError, replies: list[bytes]) -> None:
        if not self._answers.five:
            self._close(error, replies)
            return
        self._open.discard(packet_id)
        code = reason_code(error) if self._gone else self._answers.count(error)
        replies.append(self._answers.packet(PUBREC, packet_id, code))

    def _close(self, error: GatewayError, replies: list[bytes]) -> None:
        """Answer what came before, and nothing any more; the client will come back and ask again."""
        self._send(replies)
        replies.clear()
        if not self._silent and not self._gone:
            self._answers.close(error)
        self._silent = True

    def _send(self, replies: list[bytes], packets: int = 0) -> None:
        if replies and not self._silent and not self._gone:
            self._answers.send(b"".join(replies), packets or len(replies))

    # -- the end ------------------------------------------------------------

    def end(self) -> None:
        """The connection is gone: nobody is told any more."""
        if self._gone:
            return
        self._gone = True
        if not self._pending or not self._identifiers.lasts:
            self._channel.close()

    def flush(self) -> None:
        """Everything is decided after the end (it is a `Flushable`)."""
        self._channel.close()
