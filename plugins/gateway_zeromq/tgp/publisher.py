"""How do the publishes of a TGP session reach the engine, and how do their outcomes reach whoever speaks for it now?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.api import COMMON, Gateway, GatewayError, Message, Outcome, PreconditionFailed, Principal, Route
from gateway_zeromq.keys import complaint_of, remember
from gateway_zeromq.lasting import HEADER, check_kept, take_retain
from gateway_zeromq.tgp.commands import MANDATORY, NO_CONFIRM, Publish
from gateway_zeromq.tgp.replies import COMMAND_INVALID, CONTRADICTS, NO_ROOM, NO_ROUTE, NOT_BUILT, Rules
from gateway_zeromq.tgp.session import Admission, Pending, Session
from gateway_zeromq.tgp.translate import code_of, message_of

if TYPE_CHECKING:
    from gateway_zeromq.tgp.protocol import Peer

MARKS = "tgp.mark"
"""Namespace of the marks in the journal."""
_RETAIN = HEADER.encode()


class Marks:
    """The sessions whose marks have risen in this turn."""

    def __init__(self) -> None:
        self._risen: dict[Publisher, None] = {}

    def note(self, publisher: Publisher) -> None:
        """Have the mark of a session kept."""
        self._risen[publisher] = None

    def keep(self) -> None:
        """Put all of them, so that they are in one commit with the messages of this turn."""
        if self._risen:
            for publisher in self._risen:
                publisher.keep_mark()
            self._risen.clear()


class Publisher:
    """A session's channel for publishing: it outlives connections, so that no outcome is missed in between.

    Args:
        session: whose numbers these are.
        principal: as whom it publishes.
        marks: collects marks to be kept.
    """

    __slots__ = ("_early", "_gateway", "_kept", "_marks", "_routes", "_rules", "_singly_to", "channel", "peer", "session")

    def __init__(self, session: Session, gateway: Gateway, principal: Principal, rules: Rules, marks: Marks) -> None:
        self.session: Session = session
        self.peer: Peer | None = None
        self._gateway: Gateway = gateway
        self._rules: Rules = rules
        self._marks: Marks = marks
        self._kept: dict[int, tuple[Route, bytes]] = {}
        self._early: set[int] = set()  # known to be refused, and told when their outcomes come
        self._singly_to: int = 0
        self._routes: dict[tuple[str, str], Route] = principal.cache.setdefault("zeromq", {})
        self.channel = gateway.open_channel(principal, self)

    def resume(self, peer: Peer) -> None:
        """Speak to a new peer: what was refused amid what is undecided may be unknown to it, and no CONFIRM may cover that."""
        self.peer = peer
        session = self.session
        hidden = any(last > session.last_seq for _, last, _ in session.refused)
        self._singly_to = session.mark if hidden else 0

    def publish(self, command: Publish, body: bytes, *, refusing: bool) -> None:
        """Take a message; its outcome comes by the present peer.

        Args:
            refusing: the journal is behind; what comes is refused, as reading goes on for the sake of acknowledgements.
        """
        session, seq = self.session, command.seq
        if seq and seq <= session.mark:
            self._again(seq)
            return
        if session.pending and self._is_over(len(body)):
            self._close_over_limit(seq)
            return
        if command.props is not None and command.props.user_id not in (None, session.user):
            self._refuse(command, CONTRADICTS)  # who reads it may rely on it
            return
        route = self._routes.get((command.exchange, command.routing_key)) or self._route(command)
        if route is None or refusing:
            if route is not None:
                self._refuse(command, NO_ROOM)
            return
        message = message_of(route.address, command, body, self._gateway.now_ms)
        if message.wire and _RETAIN in message.wire and not self._retain(command, route, message):
            return
        if command.due_ms:
            self._schedule(command, route, message)
        elif command.flags == NO_CONFIRM:
            self.channel.post(route, message)
        else:
            self._submit(command, route, body, self.channel.publish(route, message))
        session.note(seq, keep=message.persistent)
        if session.dirty:
            self._marks.note(self)

    def _retain(self, command: Publish, route: Route, message: Message) -> bool:
        """Make it the last value of its key if a header says so; False: it is refused."""
        try:
            retain, message.wire = take_retain(message.wire)
            if retain:
                check_kept(route.address)
        except PreconditionFailed as error:
            self._refuse(command, code_of(error))
            return False
        message.wire_tag = COMMON if message.wire else ""
        if retain and command.due_ms:  # which value would be the last one then?
            self._refuse(command, NOT_BUILT)
            return False
        if retain:
            self.channel.retain(route, message)
        return True

    def _schedule(self, command: Publish, route: Route, message: Message) -> None:
        if command.flags & MANDATORY:
            self._refuse(command, NOT_BUILT)  # where it goes is decided when nobody waits any more
        else:
            self._submit(command, route, message.body, self.channel.schedule(route, message, command.due_ms))

    def _submit(self, command: Publish, route: Route, body: bytes, number: int) -> None:
        session, flags = self.session, command.flags
        session.submitted(number, command.seq, len(body), quiet=bool(flags & NO_CONFIRM))
        if flags & MANDATORY:
            self._kept[number] = (route, body)
        refusal = self.channel.refused(number)
        if refusal is not None:
            # The mark must not claim it, not even if the broker dies before anybody is told.
            session.refuse(command.seq, code_of(refusal))
            self._early.add(command.seq)

    def _route(self, command: Publish) -> Route | None:
        if complaint_of(command.routing_key) is not None:
            self._refuse(command, COMMAND_INVALID)
            return None
        try:
            route = self.channel.route(command.exchange, command.routing_key)
        except GatewayError as error:
            self._refuse(command, code_of(error))
            return None
        remember(self._routes, (command.exchange, command.routing_key), route)
        return route

    def _refuse(self, command: Publish, code: int) -> None:
        self.session.refuse(command.seq, code)
        if self.session.dirty:
            self._marks.note(self)
        if self.peer is not None and not command.flags & NO_CONFIRM:
            self.peer.confirm(command.seq, code)

    def _again(self, seq: int) -> None:
        """A number that was seen before: what is decided is said again, the rest when it is."""
        self._gateway.count("duplicates")
        code = self.session.refusal(seq)
        refused_at_once = code and seq not in self._early
        if self.peer is not None and (refused_at_once or self.session.admission(seq) is Admission.DECIDED):
            self.peer.confirm(seq, code)

    def _is_over(self, body_bytes: int) -> bool:
        session, rules = self.session, self._rules
        return len(session.pending) >= rules.max_unconfirmed or session.pending_bytes + body_bytes > rules.max_unconfirmed_bytes

    def _close_over_limit(self, seq: int) -> None:
        if self.peer is not None:
            self.peer.confirm(seq, NO_ROOM)
            self.peer.goodbye(NO_ROOM, f"more than {self._rules.max_unconfirmed} messages, or too many bytes, are unconfirmed")

    # -- outcomes

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: one CONFIRM for all that is stored, one for each that is not."""
        special = {outcome.number: outcome for outcome in exceptions}
        stored = 0
        for pending in self.session.decide(through):
            outcome = special.get(pending.number) if special else None
            kept = self._kept.pop(pending.number, None) if self._kept else None
            if outcome is None:
                stored = self._stored(pending, stored)
                continue
            if outcome.error is not None:
                self._confirm_all(stored)
                stored = 0
                self._refused(pending.seq, code_of(outcome.error), quiet=pending.quiet)
            elif outcome.result is not None:
                self._scheduled(pending, outcome.result)
            elif kept is not None and self._gave_back(pending.seq, *kept):
                continue
            else:
                stored = self._stored(pending, stored)
        self._confirm_all(stored)
        if special and self.session.dirty:
            # Not later: what is put while refusals are told is written by the very commit of which the mark claimed the refused.
            self.keep_mark()

    def _stored(self, pending: Pending, stored: int) -> int:
        """Return up to where all can be confirmed at once, now that this one is stored, too."""
        if pending.quiet:
            return stored
        if pending.seq > self._singly_to:
            return pending.seq
        if self.peer is not None:
            self.peer.confirm(pending.seq, 0)
        return stored

    def _scheduled(self, pending: Pending, scheduled_id: int) -> None:
        if self.peer is not None and not pending.quiet:
            self.peer.scheduled(pending.seq, scheduled_id)

    def _confirm_all(self, seq: int) -> None:
        if seq and self.peer is not None:
            self.peer.confirm(seq, 0, multiple=True)

    def _refused(self, seq: int, code: int, *, quiet: bool) -> None:
        if seq in self._early:
            self._early.discard(seq)
        else:
            self.session.refuse(seq, code)
        if self.peer is not None and not quiet:
            self.peer.confirm(seq, code)

    def _gave_back(self, seq: int, route: Route, body: bytes) -> bool:
        """Give a mandatory message back; True: its CONFIRM has been said as well."""
        if self.peer is None:
            return False
        if self.peer.enveloped:
            self.peer.confirm(seq, NO_ROUTE)
            return True
        self.peer.returned(seq, route.address.exchange, route.address.routing_key, body)
        return False

    def keep_mark(self) -> None:
        """Put the mark into the open batch."""
        self.channel.put_state(MARKS, self.session.key, self.session.record(self._gateway.now_ms()))
