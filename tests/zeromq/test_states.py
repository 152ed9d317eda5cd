"""Does the server do what the state table of docs/tgp.md says, row by row?"""

import re
from pathlib import Path

import msgspec
import pytest

from gateway_zeromq.tgp import codec, commands
from tests.zeromq.support import ANY, Client, serving, until

PAGE = (Path(__file__).parents[2] / "docs" / "tgp.md").read_text()
ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}
NAMES = {kind.__name__.upper(): number for kind, number in commands.NUMBERS.items()}
SAID = {number: name for number, (name, _) in commands.SERVER_FIELDS.items()}

EXAMPLES = {
    "HELLO": [1, 1, 1, {}],
    "PUBLISH": [3, 1, "", "jobs"],
    "BATCH": [25, 1, [[0, "", "jobs"], [0, "", "jobs"]]],
    "CONSUME": [6, 5, "jobs", "new", 0],
    "CANCEL": [7, 5, "c1"],
    "ACK": [9, "", 1],
    "NACK": [10, "", 1, False, True],
    "EXTEND": [26, "", 1, 1000],
    "CREDIT": [11, "c1", 0],
    "GET": [12, 5, "jobs"],
    "DECLARE": [13, 5, "queue", "new"],
    "DELETE": [14, 5, "queue", "spare"],
    "BIND": [15, 5, "jobs", "amq.topic", "#"],
    "UNBIND": [16, 5, "jobs", "amq.topic", "#"],
    "PURGE": [17, 5, "jobs"],
    "UNSCHEDULE": [27, 5, 1],
    "PING": [22],
    "PONG": [23],
    "BYE": [24],
    "no command": [99],
}
IMPOSSIBLE = {
    "CONSUME": [6, 5, "none", "new", 0],
    "CANCEL": [7, 5, "none"],
    "ACK": [9, "", 9],
    "NACK": [10, "", 9],
    "EXTEND": [26, "", 9, 1000],
    "CREDIT": [11, "none", 1],
    "GET": [12, 5, "none"],
    "DECLARE": [13, 5, "queue", "jobs", {"durable": False}],
    "DELETE": [14, 5, "queue", "none"],
    "BIND": [15, 5, "none", "amq.topic", "#"],
    "UNBIND": [16, 5, "none", "amq.topic", "#"],
    "PURGE": [17, 5, "none"],
    "UNSCHEDULE": [27, 5, 9],
}
BY_THEMSELVES = {"HELLO, and is not let in", "nothing for one heartbeat", "nothing for three heartbeats", "(the server stops)"}


def rows():
    table = PAGE[PAGE.index("## States") : PAGE.index("## Publishing")]
    return re.findall(r"^\| (connected|ready) \| ([^|]*) \| ([^|]*) \| (\w+) \|$", table, re.MULTILINE)


def steps():
    for state, sends, says, then in rows():
        for name in [sends] if sends in BY_THEMSELVES or sends == "no command" else sends.split(", "):
            if name not in BY_THEMSELVES:
                yield pytest.param(state, name, says, then, id=f"{state} {name}")


def test_every_command_has_its_row_in_both_states():
    for state in ("connected", "ready"):
        told = [
            word for at, sends, _, _ in rows() for word in re.findall(r"[A-Z]{3,}", sends) if at == state and "let in" not in sends
        ]
        assert sorted(told) == sorted(NAMES)
    assert {sends for _, sends, _, _ in rows()} >= BY_THEMSELVES


async def prepared(context, running, state):
    """A client in a state; there is a queue with one message more than it holds, a consumer without credit, a scheduled message."""
    client, other = (Client(context, running.address("ROUTER")) for _ in range(2))
    await other.hello()
    for name in ("jobs", "spare"):
        await other.ask(13, 1, "queue", name)
    for seq in (1, 2):
        await other.ask(3, seq, "", "jobs", body=b"x")
    await other.ask(3, 3, "", "jobs", None, 0, 1 << 52)
    if state == "ready":
        await client.hello()
        await client.ask(12, 1, "jobs")
        assert await client.ask(6, 2, "jobs", "c1", 0) == [20, 2, None]
    return client


def name_of(said):
    number, *fields = said if isinstance(said, list) else said[0]
    if number == commands.ERROR:
        return f"{SAID[number]} {fields[1]}"
    return f"BYE {fields[0]}" if number == commands.BYE else SAID[number]


async def heard(client, clock, *, answered=True):
    """Return what a client is told, and whether it is ready. `answered`: wait for something first."""
    said = [name_of(await client.hear())] if answered else []
    clock.jump(1.1)
    await client.say(22, "still there?")
    while (one := await client.hear(0.5)) != [23, "still there?"]:
        if one is None:  # strangers are answered once a second
            clock.jump(1.1)
            await client.say(22, "still there?")
        elif one == [21, None, 401, "HELLO first", 22]:
            return said, False
        else:
            said.append(name_of(one))
    return said, True


@pytest.fixture
def clock(mock_clock):
    """Real time, that can be made to go by at once."""
    mock_clock.rate = 1.0
    return mock_clock


@pytest.mark.parametrize(("state", "name", "says", "then"), list(steps()))
async def test_a_command_is_answered_as_the_table_says(context, clock, state, name, says, then):
    async with serving(ROUTER) as running:
        client = await prepared(context, running, state)
        await client.say(*EXAMPLES[name])
        said, ready = await heard(client, clock, answered=not says.startswith("nothing"))
        if says.startswith("nothing"):
            assert said == []
        elif " or " in says:
            assert len(said) == 1
            assert said[0] in re.split(r", | or ", says)
            assert not said[0].startswith("ERROR")
        else:
            assert said == says.split(", ")
        assert ready == (then == "ready")


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_what_can_not_be_is_an_error_and_no_more(context, clock, name):
    async with serving(ROUTER) as running:
        client = await prepared(context, running, "ready")
        await client.say(*IMPOSSIBLE[name])
        (said,), ready = await heard(client, clock)
        (says,) = [row[2] for row in rows() if row[0] == "ready" and name in row[1].split(", ")]
        assert said.startswith("ERROR")
        assert "ERROR" in says
        if "404" in says:
            assert said == "ERROR 404"
        assert ready


async def test_who_is_not_let_in_is_told_and_stays_where_it_was(context, clock):
    assert ("connected", "HELLO, and is not let in", "ERROR", "connected") in rows()
    async with serving({**ROUTER, "max_peers": 1}) as running:
        first, second = (Client(context, running.address("ROUTER")) for _ in range(2))
        await first.hello()
        await second.say(*EXAMPLES["HELLO"])
        assert await heard(second, clock) == (["ERROR 506"], False)
        await first.say(24)
        await second.hello()


async def test_silence_is_asked_about_and_then_death(context, clock):
    assert ("ready", "nothing for one heartbeat", "PING", "ready") in rows()
    assert ("ready", "nothing for three heartbeats", "nothing", "gone") in rows()
    async with serving(ROUTER) as running:
        client = await prepared(context, running, "connected")
        await client.hello(heartbeat_ms=1_000)
        clock.jump(1.1)
        assert name_of(await client.hear()) == "PING"
        before = running.count("silent_peers")
        await until(lambda: running.count("silent_peers") > before)  # time goes on: a jump would be the broker's own silence
        assert await heard(client, clock, answered=False) == ([], False)


async def test_who_stops_says_goodbye(context):
    assert ("ready", "(the server stops)", "BYE 320", "gone") in rows()
    async with serving(ROUTER) as running:
        client = await prepared(context, running, "connected")
        await client.hello()
        running.broker.start_draining()
        assert name_of(await client.hear()) == "BYE 320"
        await running.stop()


def test_the_examples_are_of_their_commands():
    for name, fields in [*EXAMPLES.items(), *IMPOSSIBLE.items()]:
        if name != "no command":
            assert type(codec.decode(msgspec.msgpack.encode(fields))).__name__.upper() == name
