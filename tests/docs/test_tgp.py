"""Is docs/tgp.md true?"""

import json
import re
from pathlib import Path

import msgspec
import pytest

from gateway.client.wire import Command, decode, encode

PAGE = (Path(__file__).parents[2] / "docs" / "tgp.md").read_text()


def table():
    """The frame table: name -> (number, fields), a field with its question mark."""
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \| ([^|]*) \|", PAGE, re.MULTILINE)
    return {name: (int(number), re.split(r", ", fields.strip()), sender) for number, name, sender, fields in rows}


def examples():
    for block in re.findall(r"^```tgp\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for name, array, hexadecimal in re.findall(r"^(\w+) +(\[.*\])\n((?: {4}[0-9a-f ]+\n)+)", block, re.MULTILINE):
            yield pytest.param(name, json.loads(array), bytes.fromhex(hexadecimal), id=name)


EXAMPLES = list(examples())


def test_the_table_has_the_client_s_numbers():
    assert {name: number for name, (number, _, _) in table().items()} == {command.name: command.value for command in Command}


@pytest.mark.parametrize(("name", "array", "wire"), EXAMPLES)
def test_the_bytes_are_those_of_the_array(name, array, wire):
    assert encode(array) == wire
    assert decode(wire) == array
    assert array[0] == Command[name]


@pytest.mark.parametrize(("name", "array", "wire"), EXAMPLES)
def test_an_example_has_all_fields_that_its_command_must_have(name, array, wire):
    _, fields, _ = table()[name]
    needed = [field for field in fields if not field.endswith("?")]
    assert len(needed) <= len(array) - 1 <= len(fields)


def test_there_is_an_example_of_every_kind_of_exchange():
    assert len(EXAMPLES) == 22


def test_the_json_example_says_the_same_as_the_array():
    (text,) = re.findall(r'^\{"cmd".*\}$', PAGE, re.MULTILINE)
    values = json.loads(text)
    number, fields, _ = table()[values.pop("cmd")]
    array = [number, *(values.pop(field.rstrip("?")) for field in fields if field.rstrip("?") in values)]
    assert values == {}
    assert array in [parameters.values[1] for parameters in EXAMPLES]


def test_every_field_of_the_table_is_explained():
    explained = set(re.findall(r"`(\w+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))))
    told_elsewhere = {"options", "args", "queue", "name", "key", "routing_key", "result", "code", "text", "ref_cmd", "redelivered"}
    fields = {field.rstrip("?") for _, names, _ in table().values() for field in names if field}
    assert fields <= explained | told_elsewhere


def test_the_properties_are_those_of_the_common_model():
    from gateway.model.properties import Properties

    row = next(line for line in PAGE.splitlines() if line.startswith("| `props`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"props", "delivery_mode"} == {
        field.name for field in msgspec.structs.fields(Properties)
    }


@pytest.mark.parametrize(("name", "array", "wire"), EXAMPLES)
def test_the_server_reads_and_writes_the_same_bytes(name, array, wire):
    from gateway_zeromq.tgp import codec

    number, fields, sender = table()[name]
    if sender in {"client", "both"}:
        command = codec.decode(wire)
        assert type(command).__name__.upper() == name
        values = msgspec.to_builtins(command)
        assert values[: len(array)] == array or name in {"HELLO", "BATCH"}
    if sender in {"server", "both"}:
        assert codec.encode(*array) == wire
        assert codec.SERVER_FIELDS[number] == (name, tuple(field.rstrip("?") for field in fields if field))


def test_the_server_reads_the_json_example_as_the_array():
    from gateway_zeromq.tgp import codec

    (text,) = re.findall(r'^\{"cmd".*\}$', PAGE, re.MULTILINE)
    wires = [parameters.values[2] for parameters in EXAMPLES if parameters.id == "PUBLISH"]
    assert codec.decode(text.encode()) in [codec.decode(wire) for wire in wires]
