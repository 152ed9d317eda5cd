"""Does our ZMTP say what the standards say, understand every peer, and end with those that break them?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_zeromq.zmtp import commands, greeting
from gateway_zeromq.zmtp.conversation import Command, Conversation, Message, Ready, Stage
from gateway_zeromq.zmtp.frames import Limits, Splitter, Violation, frame, head, message
from gateway_zeromq.zmtp.mechanisms import Login, Null, PlainClient, PlainServer

LIMITS = Limits(command_bytes=300, frame_bytes=1_000, message_bytes=1_500, frames=4)
PULL = frozenset({"PULL"})
PULL_READY = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\4PULL"
# What libzmq 4.3.4 sends, seen on the wire.
LIBZMQ = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32) + PULL_READY
LIBZMQ_3 = b"\xff" + bytes(7) + b"\x01\x7f\x01\x07\x00\x00"


def push(*, first=False, mechanism=None):
    return Conversation(mechanism or Null({"Socket-Type": b"PUSH"}, first=first), "PUSH", PULL, LIMITS)


def told(conversation):
    said = b"".join(conversation.out)
    conversation.out.clear()
    return said


def talk(one, other):
    """Let two sides talk until they have nothing to say; return what each heard."""
    heard = {id(one): [], id(other): []}
    while one.out or other.out:
        for this, that in ((one, other), (other, one)):
            heard[id(that)] += that.feed(told(this))
    return heard[id(one)], heard[id(other)]


def ready(data=LIBZMQ):
    conversation = push()
    assert [type(event) for event in conversation.feed(data)] == [Ready]
    told(conversation)
    return conversation


def broken(conversation, data):
    """Return why it is over, and what it says last."""
    told(conversation)
    with pytest.raises(Violation) as caught:
        list(conversation.feed(data))
    assert conversation.stage is Stage.OVER
    assert list(conversation.feed(LIBZMQ)) == [], "nothing is heard any more"
    return str(caught.value), told(conversation)


# -- frames


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([b""], b"\0\0"),
        ([b"ab"], b"\0\x02ab"),
        ([b"a", b"", b"b"], b"\x01\x01a\x01\0\0\x01b"),
        ([b"x" * 255], b"\0\xff" + b"x" * 255),
        ([b"x" * 256], b"\x02" + (256).to_bytes(8, "big") + b"x" * 256),
        ([b"x" * 300, b"y"], b"\x03" + (300).to_bytes(8, "big") + b"x" * 300 + b"\0\x01y"),
    ],
)
def test_messages_are_frames_as_in_the_standard(frames, expected):
    assert message(frames) == expected
    conversation = ready()
    assert list(conversation.feed(expected)) == [Message(frames)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "reserved"),
        (b"\x80\0", "reserved"),
        (b"\x05\0", "a command has one frame"),
        (b"\x01\0\x04\0", "between the frames"),
        (b"\x06" + (301).to_bytes(8, "big"), "command of 301 bytes"),
        (b"\x02" + (1001).to_bytes(8, "big"), "frame of 1001 bytes"),
        (b"\x02" + b"\xff" * 8, "frame of 18446744073709551615 bytes"),
        (b"\x03" + (1000).to_bytes(8, "big") + bytes(1000) + b"\x02" + (501).to_bytes(8, "big"), "more than 1500 bytes"),
        (b"\x01\0" * 4 + b"\0\0", "more than 4 frames"),
    ],
)
def test_what_no_frame_may_be_is_refused_before_its_body_comes(data, why):
    splitter = Splitter(LIMITS)
    splitter.add(data)
    with pytest.raises(Violation, match=why):
        list(iter(splitter.take, None))


def test_the_limits_are_those_of_one_message_not_of_all():
    splitter = Splitter(LIMITS)
    for _ in range(3):
        splitter.add(message([b"x" * 700, b"y" * 800]))
        assert [splitter.take()[1][:1], splitter.take()[1][:1], splitter.take()] == [b"x", b"y", None]


def test_a_long_frame_in_many_parts_is_put_together():
    splitter = Splitter(Limits())
    body = b"z" * 300_000
    data = frame(0, body)
    for at in range(0, len(data), 1_000):
        assert splitter.take() is None
        splitter.add(data[at : at + 1_000])
    assert splitter.take() == (0, body)


# -- the handshake


def test_the_first_bytes_are_enough_for_every_version_and_the_rest_comes_when_the_version_is_known():
    conversation = push()
    assert told(conversation) == b"\xff" + bytes(7) + b"\x01\x7f\x03"
    assert list(conversation.feed(LIBZMQ[:10])) == []
    assert told(conversation) == b""
    assert list(conversation.feed(LIBZMQ[10:11])) == []
    assert told(conversation) == b"\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


def test_who_is_connected_to_waits_for_ready_and_who_connects_does_not():
    server, client = push(), push(first=True)
    list(server.feed(LIBZMQ[:64]))
    list(client.feed(LIBZMQ[:64]))
    mine = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\4PUSH"
    assert b"READY" not in told(server)
    assert told(client).endswith(mine)
    assert list(server.feed(PULL_READY)) == [Ready((3, 1), {"socket-type": b"PULL"})]
    assert told(server) == mine
    assert list(client.feed(PULL_READY)) == [Ready((3, 1), {"socket-type": b"PULL"})]
    assert told(client) == b""


@pytest.mark.parametrize(("version", "agreed"), [((3, 0), (3, 0)), ((3, 1), (3, 1)), ((3, 7), (3, 1)), ((4, 0), (3, 1))])
def test_a_newer_version_is_as_good_as_ours(version, agreed):
    (event,) = push().feed(LIBZMQ[:10] + bytes(version) + LIBZMQ[12:])
    assert event.version == agreed


def test_a_peer_of_version_2_is_told_its_own_way_and_has_no_commands():
    conversation = push()
    told(conversation)
    assert list(conversation.feed(LIBZMQ_3)) == [Ready((2, 0), {"identity": b""})]
    assert told(conversation) == b"\x08\0\0", "PUSH, and no identity"
    assert list(conversation.feed(b"\0\x01x")) == [Message([b"x"])]
    assert broken(conversation, b"\x04\x05\x04PONG")[0].startswith("flags")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x01\0", "version 1"),
        (b"GET / HTTP/1.1\r\n", "version 1"),
        (b"\xff" + bytes(8) + b"\x02", "version 1"),
        (LIBZMQ[:10] + b"\x00", "revision 0"),
        (LIBZMQ[:10] + b"\x02", "revision 2"),
        (LIBZMQ[:9] + b"\x01\x03", "does not end with"),
        (LIBZMQ[:12] + b"CURVE".ljust(20, b"\0") + bytes(32), "CURVE; here NULL"),
        (LIBZMQ[:12] + b"null".ljust(20, b"\0") + bytes(32), "no name"),
        (LIBZMQ[:12] + bytes(52), "no name"),
        (LIBZMQ[:32] + b"\x02" + bytes(31), "as-server is 2"),
        (LIBZMQ[:32] + b"\x01" + bytes(31), "as-server is set with NULL"),
        (LIBZMQ_3[:11] + b"\x08\0\0", "socket type PUSH"),
        (LIBZMQ_3[:11] + b"\x0b\0\0", "socket type 11"),
        (LIBZMQ_3[:12] + b"\x01\0", "an identity"),
    ],
)
def test_a_greeting_that_can_not_be_ends_it_without_a_word(data, why):
    reason, said = broken(push(), data)
    assert why in reason
    assert b"ERROR" not in said


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (PULL_READY.replace(b"PULL", b"PUSH"), "socket type PUSH; PUSH goes with PULL"),
        (PULL_READY.replace(b"PULL", b"pull"), "socket type pull"),
        (commands.command(b"READY"), "socket type not said"),
        (b"\0\x01x", "a message before"),
        (commands.ping(b""), "PING in place of READY"),
        (b"\x04\0", "without a name"),
        (b"\x04\x01\0", "without a name"),
        (b"\x04\x03\x05RE", "without a name"),
        (b"\x04\x03\x02R\0", "without a name"),
        (commands.command(b"READY", b"\0\0\0\0\0"), "metadata"),
        (commands.command(b"READY", b"\x05abc"), "metadata"),
        (commands.command(b"READY", b"\x01a\0\0\0"), "metadata"),
        (commands.command(b"READY", b"\x01a\0\0\0\x02x"), "metadata"),
        (commands.command(b"READY", b"\x01 \0\0\0\0"), "metadata"),
        (commands.command(b"READY", commands.metadata({"Socket-Type": b"PULL", "socket-type": b"PULL"})), "metadata"),
        (b"\x06" + (301).to_bytes(8, "big"), "command of 301"),
    ],
)
def test_a_handshake_that_can_not_be_is_answered_with_error(data, why):
    conversation = push()
    list(conversation.feed(LIBZMQ[:64]))
    reason, said = broken(conversation, data)
    assert why in reason
    (name, rest) = commands.split_command(said[2:])
    assert name == b"ERROR"
    assert commands.read_error(rest) == reason.replace(" ", "_")


def test_an_error_of_the_peer_ends_it_and_is_not_answered():
    conversation = push()
    list(conversation.feed(LIBZMQ[:64]))
    assert broken(conversation, commands.error("go away")) == ("it says ERROR: go_away", b"")


def test_a_reason_is_cut_to_what_an_error_can_hold():
    name, data = commands.split_command(commands.error("ä" + "x" * 400)[9:])
    assert (name, len(commands.read_error(data))) == (b"ERROR", 255)


def test_metadata_in_any_case_and_unknown_ones_are_taken():
    data = commands.metadata({"SOCKET-TYPE": b"PULL", "X-mine": b"1", "Identity": b""})
    (event,) = push().feed(LIBZMQ[:64] + commands.command(b"READY", data))
    assert event.properties == {"socket-type": b"PULL", "x-mine": b"1", "identity": b""}


# -- PLAIN


def plain(user=b"admin", password=b"secret"):
    server = push(mechanism=PlainServer({"Socket-Type": b"PUSH"}))
    mechanism = PlainClient({"Socket-Type": b"PULL"}, user, password)
    return server, Conversation(mechanism, "PULL", frozenset({"PUSH"}), LIMITS)


def test_plain_lets_in_who_is_admitted():
    server, client = plain()
    heard, _ = talk(server, client)
    assert heard == [Login(b"admin", b"secret")]
    server.admit()
    heard, there = talk(server, client)
    assert heard == [Ready((3, 1), {"socket-type": b"PULL"})]
    assert there == [Ready((3, 1), {"socket-type": b"PUSH"})]


def test_plain_does_not_listen_before_it_has_decided():
    server, client = plain()
    talk(server, client)
    early = commands.command(b"INITIATE", commands.metadata({"Socket-Type": b"PULL"}))
    assert list(server.feed(early)) == []
    server.admit()
    assert [type(event) for event in server.feed(b"")] == [Ready]


def test_plain_tells_who_is_refused():
    server, client = plain()
    talk(server, client)
    server.refuse("wrong password")
    with pytest.raises(Violation, match="it says ERROR: wrong_password"):
        list(client.feed(told(server)))
    assert client.out == []
    server.admit()
    assert list(server.feed(b"x")) == [] == server.out


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01a", b"\x01a\x02b", b"\x01a\x01bc"])
def test_a_hello_that_can_not_be_read_is_answered_with_error(data):
    server = push(mechanism=PlainServer({}))
    list(server.feed(LIBZMQ[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32)))
    reason, said = broken(server, commands.command(b"HELLO", data))
    assert (reason, b"ERROR" in said) == ("a HELLO that can't be read", True)


def test_two_servers_and_two_clients_of_plain_end_without_a_word():
    for one, other in ((PlainServer({}), PlainServer({})), (PlainClient({}, b"", b""), PlainClient({}, b"", b""))):
        with pytest.raises(Violation, match="server"):
            talk(push(mechanism=one), push(mechanism=other))


def test_version_2_has_no_plain():
    assert "ZMTP 2 has no PLAIN" in broken(push(mechanism=PlainServer({})), LIBZMQ_3)[0]


# -- commands


def test_commands_are_what_libzmq_says_and_understands():
    assert commands.ping(b"12345678", 300) == b"\x04\x0f\x04PING\x01\x2c12345678"
    assert commands.pong(b"12345678") == b"\x04\x0d\x04PONG12345678"
    assert commands.command(commands.SUBSCRIBE, b"a") == b"\x04\x0b\x09SUBSCRIBEa"
    assert commands.command(commands.CANCEL, b"a") == b"\x04\x08\x06CANCELa"
    conversation = ready()
    assert list(conversation.feed(commands.pong(b"") + commands.ping(b"c", 7) + b"\0\0")) == [
        Command(b"PONG", b""),
        Command(b"PING", b"\0\x07c"),
        Message([b""]),
    ]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0" + bytes(17)])
def test_a_ping_of_another_size_is_none(data):
    with pytest.raises(Violation):
        commands.read_ping(data)


def test_ping_and_pong_have_at_most_16_bytes_of_context():
    assert commands.read_ping(b"\x01\0" + bytes(16)) == (256, bytes(16))
    assert commands.read_pong(bytes(16)) == bytes(16)
    with pytest.raises(Violation):
        commands.read_pong(bytes(17))


def test_after_the_handshake_nothing_is_answered_with_error():
    assert broken(ready(), b"\x09")[1] == b""


def test_what_came_before_a_violation_is_heard():
    feed = ready().feed(b"\0\x01a\xff")
    assert next(feed) == Message([b"a"])
    with pytest.raises(Violation):
        next(feed)


# -- every cut, and whatever comes


def outcome(data, cuts):
    """Feed in pieces; return events, what was said, and how it ended."""
    conversation = push()
    events, said, end = [], b"", None
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        try:
            for event in conversation.feed(data[start:stop]):
                events.append(event)  # noqa: PERF402 - it may raise on the way
        except Violation as violation:
            end = str(violation)
        said += told(conversation)
        if end is not None:
            break
    return events, said, end


TALKS = [
    LIBZMQ + commands.pong(b"1") + b"\0\x01x" + commands.ping(b"abc", 3) + b"\x01\x01a\0\x01b",
    LIBZMQ_3 + b"\x02" + (300).to_bytes(8, "big") + b"y" * 300 + b"\x01\0\0\0",
    LIBZMQ[:64] + PULL_READY.replace(b"PULL", b"PAIR") + b"more",
    LIBZMQ + commands.pong(b"1") + b"\x0f",
    LIBZMQ[:64] + b"\x04\x06\x05ERROR" + b"rest",
]


@pytest.mark.parametrize("data", TALKS)
def test_where_the_stream_is_cut_makes_no_difference(data):
    whole = outcome(data, [])
    for cut in range(1, len(data)):
        assert outcome(data, [cut]) == whole
    assert outcome(data, list(range(1, len(data)))) == whole


@given(st.binary(max_size=400), st.sampled_from([0, 11, 64, len(LIBZMQ)]), st.lists(st.integers(0, 500), max_size=6))
def test_whatever_a_peer_sends_is_understood_or_ends_the_conversation(data, valid, cuts):
    data = LIBZMQ[:valid] + data
    cuts = sorted({cut for cut in cuts if 0 < cut < len(data)})
    assert outcome(data, cuts) == outcome(data, [])


frames_strategy = st.lists(st.binary(max_size=400), min_size=1, max_size=4).filter(lambda frames: sum(map(len, frames)) <= 1_500)
names = st.sampled_from([b"PING", b"PONG", b"SUBSCRIBE", b"CANCEL", b"X"])
said = st.one_of(
    frames_strategy.map(lambda frames: (message(frames), Message(frames))),
    st.tuples(names, st.binary(max_size=200)).map(lambda pair: (commands.command(*pair), Command(*pair))),
)


@given(st.lists(said, max_size=8), st.integers(1, 50))
def test_what_is_written_is_read_again(items, step):
    data = b"".join(written for written, _ in items)
    conversation = ready()
    heard = []
    for at in range(0, len(data), step):
        heard += conversation.feed(data[at : at + step])
    assert heard == [event for _, event in items]


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9._+-]{1,255}", fullmatch=True).map(str.lower), st.binary(max_size=300), max_size=6)
)
def test_metadata_are_read_as_written(properties):
    assert commands.read_metadata(commands.metadata(properties)) == properties


def test_heads_are_the_same_for_short_and_long_bodies():
    assert head(0, 255) == b"\0\xff"
    assert head(4, 256) == b"\x06" + (256).to_bytes(8, "big")
    assert greeting.OPENING + greeting.rest_of_greeting(b"NULL", as_server=False) == LIBZMQ[:64]
