"""Does a real broker say, byte by byte, what the conversation of docs/tgp.md has it say?"""

import re
from pathlib import Path

import msgspec
import pytest

from gateway_zeromq.tgp import commands
from tests.zeromq.support import ANY, Client, serving

PAGE = (Path(__file__).parents[2] / "docs" / "tgp.md").read_text()


def conversation():
    """Who speaks, the command's name, the header as an array, header and body as bytes."""
    (block,) = re.findall(r"^```frames\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for who, name, array, header, body in re.findall(
        r"^([<>]) (\w+) +(\[.*\])\n((?: {4}[0-9a-f][0-9a-f ]*\n)+)(?: {4}\+ ([0-9a-f ]+)\n)?", block, re.MULTILINE
    ):
        yield who, name, msgspec.json.decode(array), bytes.fromhex(header), bytes.fromhex(body) if body else None


SAID = list(conversation())


@pytest.mark.parametrize(("who", "name", "array", "header", "body"), SAID, ids=[said[1] for said in SAID])
def test_the_bytes_are_those_of_the_array(who, name, array, header, body):
    assert msgspec.msgpack.decode(header) == array
    numbers = {kind.__name__.upper(): number for kind, number in commands.NUMBERS.items()}
    numbers |= {named: number for number, (named, _) in commands.SERVER_FIELDS.items()}
    assert array[0] == numbers[name]
    assert (body is not None) == (name in {"PUBLISH", "BATCH", "DELIVER", "GOT", "RETURN"})


def without_token(header):
    fields = msgspec.msgpack.decode(header)
    return [*fields[:-1], {**fields[-1], "session": "..."}] if fields[0] == commands.READY else header


async def test_a_broker_says_the_same(context):
    assert [who for who, *_ in SAID].count("<") > 8
    async with serving({"name": "services", "socket": "ROUTER", "bind": ANY}) as running:
        client = Client(context, running.address("ROUTER"))
        for who, name, _, header, body in SAID:
            if who == ">":
                await client.send(header, *([] if body is None else [body]))
                continue
            heard = await client.receive()
            said, content = (heard, None) if isinstance(heard, bytes) else heard
            assert (without_token(said), content) == (without_token(header), body), name
        assert await client.receive(0.05) is None
