"""Does a Majordomo peer keep to RFC 7 and RFC 18, whatever the other side says, and when?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.api import Overloaded, ProtocolViolation
from gateway_zeromq.mdp import codec
from gateway_zeromq.mdp.codec import DIALECTS, HEADERS, Dialect, Disconnect, Heartbeat, Ready, Reply, Request, Role, Version
from gateway_zeromq.mdp.protocol import Client, Rules, Worker
from gateway_zeromq.standing import State

V01, V02 = Version.V01, Version.V02
BOTH = pytest.mark.parametrize("version", [V01, V02])


class Sink:
    """Notes what is asked of it."""

    def __init__(self):
        self.asked = []
        self.touched = 0
        self.full = False

    def touch(self):
        self.touched += 1

    def violated(self, reason):
        self.asked.append(("violated", reason))

    def admit(self):
        return not self.full

    def request(self, command):
        self.asked.append(("request", command.service, command.body))

    def unclaimed(self, count):
        self.asked.append(("unclaimed", count))

    def register(self, service):
        if self.full:
            raise Overloaded("too many")
        self.asked.append(("register", service))

    def answer(self, body, *, final):
        self.asked.append(("answer", body, final))

    def refused(self, reason):
        self.asked.append(("refused", reason))

    def ended(self):
        self.asked.append(("ended",))

    def take(self):
        asked, self.asked = self.asked, []
        return asked


class Talk:
    """A worker, what it is told, and what is asked for it."""

    def __init__(self, version=V01, **rules):
        self.version = version
        self.sink = Sink()
        self.worker = Worker(self.sink, version, Rules(**rules), enveloped=version is V01)
        self.now = 0.0

    def say(self, command, *frames):
        self.worker.receive_frames([HEADERS[Dialect(Role.WORKER, self.version)], command, *frames], self.now)

    def ready(self):
        self.say(b"\1", b"echo")
        assert self.sink.take() == [("register", "echo")]

    def reply(self, *body, address=b"7", final=True):
        self.say((b"\4" if final else b"\3") if self.version is V02 else b"\3", address, b"", *body)

    def heard(self):
        heard, self.worker.out = self.worker.out, []
        self.worker.out_bytes = 0
        return heard


# -- workers


@BOTH
def test_a_worker_registers_is_asked_and_answers(version):
    talk = Talk(version)
    talk.ready()
    talk.worker.ask(b"7", [b"a", b""])
    assert talk.heard() == [[HEADERS[Dialect(Role.WORKER, version)], b"\2", b"7", b"", b"a", b""]]
    talk.reply(b"b")
    assert talk.sink.take() == [("answer", [b"b"], True)]
    assert (talk.worker.state, talk.worker.address) == (State.READY, None)


@BOTH
def test_a_service_that_can_t_be_had_is_no_violation(version):
    talk = Talk(version)
    talk.sink.full = True
    talk.say(b"\1", b"echo")
    assert talk.sink.take() == [("refused", "too many"), ("ended",)]
    assert talk.heard() == [codec.disconnect(version)]
    assert talk.worker.state is State.CLOSED


@BOTH
def test_a_request_that_was_not_sent_when_its_worker_said_goodbye_is_not_sent_to_who_comes_next_under_its_name(version):
    talk = Talk(version)
    talk.ready()
    talk.worker.ask(b"7", [b"a"])
    talk.say(b"\6" if version is V02 else b"\5")
    assert talk.heard() == []


@BOTH
def test_a_worker_that_is_sent_away_is_not_sent_the_request_that_goes_back(version):
    talk = Talk(version)
    talk.ready()
    talk.worker.ask(b"7", [b"a"])
    talk.say(b"\1", b"echo")
    assert talk.heard() == [codec.disconnect(version)]


@BOTH
def test_nothing_follows_a_disconnect(version):
    talk = Talk(version)
    talk.ready()
    talk.say(b"\1", b"echo")
    assert talk.heard() == [codec.disconnect(version)]
    assert [name for name, *_ in talk.sink.take()] == ["violated", "ended"]
    talk.say(b"\1", b"echo")
    talk.worker.beat(1000.0)
    talk.worker.goodbye(0, "")
    assert (talk.heard(), talk.sink.take()) == ([], [])


def test_a_reply_to_another_request_is_refused():
    talk = Talk()
    talk.ready()
    talk.worker.ask(b"8", [b"x"])
    talk.heard()
    talk.reply(b"b")
    assert talk.sink.take() == [("violated", "the reply is to 37, the request came from 38"), ("ended",)]


def test_heartbeats_come_at_their_interval_unless_something_else_does():
    talk = Talk(heartbeat_s=1.0)
    talk.ready()
    beats = []
    for tenth in range(1, 41):
        talk.now = tenth / 10
        if tenth == 15:
            talk.worker.ask(b"7", [b"x"])
        talk.worker.beat(talk.now)
        beats += [(talk.now, frames[1]) for frames in talk.heard()]
    assert beats == [(1.0, b"\4"), (1.5, b"\2"), (3.0, b"\4"), (4.0, b"\4")]


@pytest.mark.parametrize("liveness", [3, 4, 5])
def test_a_silent_worker_is_dead_after_its_lives(liveness):
    talk = Talk(heartbeat_s=1.0, liveness=liveness)
    talk.ready()
    assert talk.worker.tick(liveness - 0.1)
    talk.now = liveness - 0.1
    talk.say(b"\4")
    assert talk.worker.tick(2 * liveness - 0.2)
    assert not talk.worker.tick(2 * liveness)
    assert talk.sink.take() == [("ended",)]
    assert talk.heard() == []


def test_a_busy_worker_has_longer_if_that_is_longer():
    talk = Talk(heartbeat_s=1.0, liveness=3, busy_s=10.0)
    talk.ready()
    talk.worker.ask(b"7", [b"x"])
    assert talk.worker.tick(9.9)
    assert not talk.worker.tick(10.0)
    short = Talk(heartbeat_s=1.0, liveness=3, busy_s=0.0)
    short.ready()
    short.worker.ask(b"7", [b"x"])
    assert short.worker.tick(2.9)
    assert not short.worker.tick(3.0)


# -- clients


@BOTH
def test_a_client_is_known_from_its_first_request_until_it_is_silent_for_long(version):
    sink = Sink()
    client = Client(sink, version, Rules(quiet_s=10.0), enveloped=version is V01)
    header = HEADERS[Dialect(Role.CLIENT, version)]
    command = [b"\1"] if version is V02 else []
    client.receive_frames([header, *command, b"echo", b"x"], 0.0)
    assert (client.state, sink.take()) == (State.READY, [("request", "echo", [b"x"])])
    assert client.tick(9.9)
    client.answer(b"echo", [b"y"], final=True)
    assert client.out_bytes == sum(map(len, client.out[0]))
    assert not client.tick(10.0)
    assert sink.take() == [("unclaimed", 1)]


def test_a_client_that_finds_no_room_is_not_known():
    sink = Sink()
    sink.full = True
    client = Client(sink, V01, Rules(), enveloped=True)
    client.receive_frames([b"MDPC01", b"echo", b"x"], 0.0)
    assert (client.state, sink.take(), client.out) == (State.GREETING, [], [])


# -- frames


@pytest.mark.parametrize(
    ("version", "frames", "command"),
    [
        (V01, [b"MDPW01", b"\1", b"echo"], Ready("echo")),
        (V01, [b"MDPW01", b"\3", b"c", b"", b"x", b"y"], Reply(b"c", [b"x", b"y"], True)),
        (V01, [b"MDPW01", b"\4"], Heartbeat()),
        (V01, [b"MDPW01", b"\5"], Disconnect()),
        (V02, [b"MDPW02", b"\1", b"echo"], Ready("echo")),
        (V02, [b"MDPW02", b"\3", b"c", b"", b"x"], Reply(b"c", [b"x"], False)),
        (V02, [b"MDPW02", b"\4", b"c", b"", b""], Reply(b"c", [b""], True)),
        (V02, [b"MDPW02", b"\5"], Heartbeat()),
        (V02, [b"MDPW02", b"\6"], Disconnect()),
    ],
)
def test_commands_of_workers_are_as_the_rfcs_draw_them(version, frames, command):
    assert codec.decode_worker(version, frames) == command


def test_commands_to_workers_are_as_the_rfcs_draw_them():
    assert codec.request(V01, b"c", [b"x"]) == [b"MDPW01", b"\2", b"c", b"", b"x"]
    assert codec.request(V02, b"c", [b"x"]) == [b"MDPW02", b"\2", b"c", b"", b"x"]
    assert (codec.heartbeat(V01), codec.heartbeat(V02)) == ([b"MDPW01", b"\4"], [b"MDPW02", b"\5"])
    assert (codec.disconnect(V01), codec.disconnect(V02)) == ([b"MDPW01", b"\5"], [b"MDPW02", b"\6"])


def test_what_clients_say_and_hear_is_as_the_rfcs_draw_it():
    assert codec.decode_client(V01, [b"MDPC01", b"echo", b"x", b"y"]) == Request("echo", [b"x", b"y"])
    assert codec.decode_client(V02, [b"MDPC02", b"\1", b"echo", b""]) == Request("echo", [b""])
    assert codec.reply(V01, b"echo", [b"x"]) == [b"MDPC01", b"echo", b"x"]
    assert codec.reply(V02, b"echo", [b"x"]) == [b"MDPC02", b"\3", b"echo", b"x"]
    assert codec.reply(V02, b"echo", [b"x"], final=False) == [b"MDPC02", b"\2", b"echo", b"x"]


short = st.binary(max_size=3)
command_bytes = st.sampled_from([bytes([n]) for n in range(9)])
frame = st.one_of(
    short, command_bytes, st.sampled_from([b"echo", b"mmi.service", b"7", b"", b"\xff"]), st.sampled_from(sorted(DIALECTS))
)
messages = st.lists(st.lists(frame, min_size=1, max_size=7), max_size=12)


@given(messages, st.sampled_from([V01, V02]), st.booleans())
def test_no_frames_break_a_worker(said, version, enveloped):
    sink = Sink()
    worker = Worker(sink, version, Rules(), enveloped=enveloped)
    header = HEADERS[Dialect(Role.WORKER, version)]
    for number, frames in enumerate(said):
        worker.receive_frames([header, *frames] if number % 3 else frames, float(number))
        registered = [name for name, *_ in sink.asked if name in ("register", "ended")]
        assert registered == ["register", "ended"][: len(registered)]
        assert (worker.state is State.READY) == (registered == ["register"])
        if worker.state is State.READY and worker.address is None and number % 2:
            worker.ask(b"7", [b"x"])


@given(messages, st.sampled_from([V01, V02]), st.booleans())
def test_no_frames_break_a_client(said, version, enveloped):
    sink = Sink()
    client = Client(sink, version, Rules(), enveloped=enveloped)
    header = HEADERS[Dialect(Role.CLIENT, version)]
    for number, frames in enumerate(said):
        client.receive_frames([header, *frames] if number % 3 else frames, float(number))
    assert len(sink.asked) == len(said)
    assert client.out == []
    for name, *rest in sink.asked:
        assert name in ("violated", "request")
        if name == "request":
            assert rest[0].isprintable()
            assert rest[1]


@given(st.lists(frame, max_size=7), st.sampled_from([V01, V02]))
def test_what_is_read_is_what_was_said(rest, version):
    for decode, role in ((codec.decode_worker, Role.WORKER), (codec.decode_client, Role.CLIENT)):
        header = HEADERS[Dialect(role, version)]
        try:
            command = decode(version, [header, *rest])
        except ProtocolViolation as violation:
            command = violation
        match command:
            case Request(service, body):
                assert rest == [*([b"\1"] if version is V02 else []), service.encode(), *body]
            case Reply(address, body, _):
                assert rest[1:] == [address, b"", *body]
            case Ready(service):
                assert rest[1:] == [service.encode()]
            case ProtocolViolation():
                assert command.reason
                assert command.spec == codec.SPECS[version]
            case _:
                assert len(rest) == 1


class Registered(RuleBasedStateMachine):
    """One worker against a model that knows: is it registered, what does it hold, when was it heard, when was it told something."""

    def __init__(self):
        super().__init__()
        self.talk = None

    @initialize(version=st.sampled_from([V01, V02]), liveness=st.integers(3, 5), busy_s=st.sampled_from([0.0, 8.0]))
    def begin(self, version, liveness, busy_s):
        self.talk = Talk(version, heartbeat_s=1.0, liveness=liveness, busy_s=busy_s)
        self.version, self.liveness, self.busy_s = version, liveness, busy_s
        self.registered = self.ended = False
        self.held = None
        self.answers = self.gone_back = self.asked = 0
        self.heard_at = self.told_at = 0.0

    def check(self, expected, said):
        """Compare what was asked of the sink, and what the worker was told."""
        assert [name for name, *_ in self.talk.sink.take()] == expected
        heard = self.talk.heard()
        assert heard == said
        if heard:
            self.told_at = self.talk.now

    def gone(self):
        if self.held is not None:
            self.gone_back += 1
        self.held, self.registered, self.ended = None, False, True

    def wrong(self):
        """It broke the protocol."""
        was = self.registered
        self.check(["violated", "ended"] if was else ["violated"], [codec.disconnect(self.version)])
        if was:
            self.gone()

    def speak(self):
        self.heard_at = self.talk.now
        return not self.ended

    @rule(service=st.sampled_from([b"echo", b"mmi.x", b""]))
    def ready(self, service):
        alive = self.speak()
        self.talk.say(b"\1", service)
        if not alive:
            self.check([], [])
        elif self.registered or service != b"echo":
            self.wrong()
        else:
            self.registered, self.told_at = True, self.talk.now
            self.check(["register"], [])

    @rule()
    def heartbeat(self):
        alive = self.speak()
        self.talk.say(b"\4" if self.version is V01 else b"\5")
        self.check([], [codec.disconnect(self.version)] if alive and not self.registered else [])

    @rule(right=st.booleans(), final=st.booleans())
    def reply(self, right, final):
        final = final or self.version is V01
        alive = self.speak()
        self.talk.reply(b"x", address=self.held if right and self.held else b"wrong", final=final)
        if not alive:
            self.check([], [])
        elif not self.registered:
            self.check([], [codec.disconnect(self.version)])
        elif self.held is None or not right:
            self.wrong()
        else:
            self.check(["answer"], [])
            if final:
                self.held = None
                self.answers += 1

    @rule()
    def disconnect(self):
        self.speak()
        self.talk.say(b"\5" if self.version is V01 else b"\6")
        self.check(["ended"] if self.registered else [], [])
        if self.registered:
            self.gone()

    @precondition(lambda self: self.talk and self.registered and self.held is None)
    @rule()
    def ask(self):
        self.asked += 1
        self.held = b"%d" % self.asked
        self.talk.worker.ask(self.held, [b"q"])
        self.check([], [codec.request(self.version, self.held, [b"q"])])

    @rule(quarters=st.integers(1, 8))
    def wait(self, quarters):
        worker = self.talk.worker
        for _ in range(quarters):
            self.talk.now += 0.25
            worker.beat(self.talk.now)
            heard = self.talk.heard()
            assert [frames[1] for frames in heard] in ([], [b"\4" if self.version is V01 else b"\5"])
            assert self.registered or not heard
            self.told_at = self.talk.now if heard else self.told_at
            if self.registered:
                self.look()

    def look(self):
        limit = max(self.liveness, self.busy_s) if self.held else self.liveness
        alive = self.talk.now - self.heard_at < limit
        assert self.talk.worker.tick(self.talk.now) is alive
        if not alive:
            self.check(["ended"], [])
            self.gone()

    @invariant()
    def agrees(self):
        if self.talk is not None:
            worker = self.talk.worker
            assert (worker.state is State.READY) == self.registered
            assert worker.address == self.held
            assert self.asked == self.answers + self.gone_back + (self.held is not None)
            if self.registered:  # a worker that counts three intervals hears something in time
                assert self.talk.now - self.told_at < 2.25


TestRegistered = Registered.TestCase
