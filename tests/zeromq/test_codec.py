"""Do the headers of TGP/1 mean what its table says, in both forms, and nothing else?"""

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import ProtocolViolation
from gateway_zeromq.tgp import codec
from gateway_zeromq.tgp.codec import decode
from gateway_zeromq.tgp.commands import (
    COMMANDS,
    NUMBERS,
    SERVER_FIELDS,
    Ack,
    Batch,
    Bind,
    Bye,
    Cancel,
    Consume,
    ConsumeChoices,
    Credit,
    Declare,
    Delete,
    Extend,
    Get,
    Hello,
    HelloOptions,
    Nack,
    Part,
    Ping,
    Pong,
    Props,
    Publish,
    Purge,
    Unbind,
    Unschedule,
)

pack = msgspec.msgpack.encode
PAGE = (Path(__file__).parents[2] / "docs" / "tgp.md").read_text()

EXAMPLES = [
    ([1, 7, 1, {"client": "a", "caps": ["x"], "session": "t", "heartbeat_ms": 5, "credit_bytes": 6}],
     Hello(7, 1, HelloOptions("a", ["x"], "t", 5, 6))),
    ([1, 7, 1, None], Hello(7, 1)),
    ([3, 1, "amq.topic", "plant.3", {"content_type": "a/b", "headers": {"n": 1}, "delivery_mode": 1}, 3, 9],
     Publish(1, "amq.topic", "plant.3", Props(content_type="a/b", headers={"n": 1}, delivery_mode=1), 3, 9)),
    ([25, 1, [[4, "amq.topic", "a", {"type": "t"}], [0, "", "b", None]], 2],
     Batch(1, [Part(4, "amq.topic", "a", Props(type="t")), Part(0, "", "b")], 2)),
    ([6, 1, "jobs", "c1", 50, {"no_ack": True, "exclusive": True, "priority": 2}],
     Consume(1, "jobs", "c1", 50, ConsumeChoices(True, True, 2))),
    ([7, 1, "c1"], Cancel(1, "c1")),
    ([9, "c1", 4, True], Ack("c1", 4, True)),
    ([10, "c1", 4, True, True, 500], Nack("c1", 4, True, True, 500)),
    ([26, "c1", 4, 30_000, True], Extend("c1", 4, 30_000, True)),
    ([27, 1, 12], Unschedule(1, 12)),
    ([11, "c1", 5], Credit("c1", 5)),
    ([12, 1, "jobs", True], Get(1, "jobs", True)),
    ([13, 1, "queue", "jobs", {"durable": True}], Declare(1, "queue", "jobs", {"durable": True})),
    ([14, 1, "exchange", "e", {"if_unused": True}], Delete(1, "exchange", "e", {"if_unused": True})),
    ([15, 1, "q", "e", "k", {"x": 1}], Bind(1, "q", "e", "k", {"x": 1})),
    ([16, 1, "q", "e", "k", None], Unbind(1, "q", "e", "k")),
    ([17, 1, "q"], Purge(1, "q")),
    ([22, "t"], Ping("t")),
    ([23, [1, 2]], Pong([1, 2])),
    ([24, 200, "done"], Bye(200, "done")),
]  # fmt: skip


def in_json(array, command):
    fields = dict(zip(type(command).__struct_fields__, array[1:], strict=True))
    if "messages" in fields:
        fields["messages"] = [dict(zip(Part.__struct_fields__, part, strict=True)) for part in fields["messages"]]
    return json.dumps({"cmd": type(command).__name__.upper(), **fields}).encode()


def test_there_is_an_example_of_every_command_of_a_client():
    assert {type(command) for _, command in EXAMPLES} == set(COMMANDS)


@pytest.mark.parametrize(("array", "command"), EXAMPLES)
def test_a_msgpack_array_becomes_its_command(array, command):
    assert decode(pack(array)) == command


@pytest.mark.parametrize(("array", "command"), EXAMPLES)
def test_a_json_object_means_the_same(array, command):
    header = in_json(array, command)
    assert decode(header) == command
    assert codec.is_json(header)


@pytest.mark.parametrize(("array", "command"), EXAMPLES)
def test_trailing_fields_with_a_default_may_be_left_out(array, command):
    kind = type(command)
    required = sum(field.required for field in msgspec.structs.fields(kind))
    short = array[: 1 + required]
    decoded = decode(pack(short))
    assert [getattr(decoded, name) for name in kind.__struct_fields__[:required]] == [
        getattr(command, name) for name in kind.__struct_fields__[:required]
    ]
    if required:
        with pytest.raises(ProtocolViolation):
            decode(pack(array[:required]))


@pytest.mark.parametrize(("array", "command"), EXAMPLES)
def test_a_field_too_many_is_refused(array, command):
    with pytest.raises(ProtocolViolation, match=type(command).__name__.upper()):
        decode(pack([*array, None, None, None][: len(type(command).__struct_fields__) + 2]))


def test_the_code_and_the_page_agree_on_numbers_and_fields():
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \| ([^|]*) \|", PAGE, re.MULTILINE)
    table = {name: (int(number), sender, fields.strip().split(", ")) for number, name, sender, fields in rows}
    for kind in COMMANDS:
        number, sender, fields = (
            table.pop(kind.__name__.upper()) if kind not in (Cancel, Ping, Pong, Bye) else table[kind.__name__.upper()]
        )
        assert number == NUMBERS[kind]
        assert sender in ("client", "both")
        ours = [field.name + ("" if field.required else "?") for field in msgspec.structs.fields(kind)]
        assert [field.rstrip("?") for field in ours] == [field.rstrip("?") for field in fields]
        assert {field for field in fields if field.endswith("?")} <= set(ours), "what may be left out there may be left out here"
    for number, (name, fields) in SERVER_FIELDS.items():
        assert table[name][0] == number
        assert [field.rstrip("?") for field in table[name][2]] == list(fields), name
    assert {name for name, (_, sender, _) in table.items()} == {name for name, _ in SERVER_FIELDS.values()}


@pytest.mark.parametrize("number", SERVER_FIELDS)
def test_what_the_server_says_is_no_command_of_a_client_unless_both_may_say_it(number):
    name, fields = SERVER_FIELDS[number]
    assert msgspec.msgpack.decode(codec.encode(number, *fields)) == [number, *fields]
    assert json.loads(codec.encode_json(number, *fields)) == {"cmd": name, **{field: field for field in fields}}
    if name not in ("CANCEL", "PING", "PONG", "BYE"):
        with pytest.raises(ProtocolViolation, match=f"^{number} is no command of a client$"):
            decode(pack([number, *fields]))


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "must be a msgpack array"),
        (b"\xc1", "must be a msgpack array"),
        (pack({"cmd": 1}), "must be a msgpack array"),
        (pack([]), "must be a msgpack array"),
        (pack(["PUBLISH", 1]), "'PUBLISH' is no command"),
        (pack([99, 1]), "99 is no command"),
        (pack([3, 1]), "PUBLISH: .*at least length"),
        (pack([3, "1", "e", "k"]), "PUBLISH: .*`int`.* at `seq`"),
        (pack([3, -1, "e", "k"]), "PUBLISH: .*`seq`"),
        (pack([3, 1 << 63, "e", "k"]), "PUBLISH: .*`seq`"),
        (pack([3, 1, b"e", "k"]), "PUBLISH: .*`exchange`"),
        (pack([3, 1, "e", "k", {"what": 1}]), "PUBLISH: .*unknown field `what`"),
        (pack([3, 1, "e", "k", {"priority": "high"}]), "PUBLISH: .*`props"),
        (pack([3, 1, "e", "k", {"headers": {"x": nested(64)}}]), "more than 64 maps and lists within each other"),
        (pack([13, 1, "queue", "q", {"x": nested(64)}]), "more than 64 maps and lists within each other"),
        (
            b'{"cmd":"PUBLISH","seq":1,"exchange":"e","routing_key":"k","props":{"headers":{"n":123456789012345678901}}}',
            "serialize ints",
        ),
        (b'{"cmd":"CREDIT","tag":123456789012345678901,"delta":1}', "`\\$.tag`"),
        (pack([3, 1, "e", "k", {"priority": 256}]), "PUBLISH: .*`props"),
        (pack([3, 1, "e", "k", {"expiration_ms": -1}]), "PUBLISH: .*`props"),
        (pack([3, 1, "e", "k", {"delivery_mode": 3}]), "PUBLISH: .*`props"),
        (pack([3, 1, "e", "k", {"correlation_id": 5}]), "PUBLISH: .*`props"),
        (pack([3, 1, "e", "k", None, 4]), "PUBLISH: .*`flags`"),
        (pack([13, 1, "que", "q"]), "DECLARE: .*'que'.*`kind`"),
        (pack([6, 1, "q", "t" * 256, 1]), "CONSUME: .*`tag`"),
        (pack([6, 1, "q", "t", 1, {"prefetch": 1}]), "CONSUME: .*unknown field `prefetch`"),
        (b"\x93\x07\x01\xa1\xff", "can't be read|CANCEL"),
        (b"\xdd\xff\xff\xff\xff", "must be a msgpack array"),
        (b"\x92\x16" + b"\x91" * 60_000, "recursion"),
        (b'{"cmd":"PING","token":' + b"[" * 60_000, "recursion"),
        (pack([22, "x" * 70_000]), "70.* bytes; at most 65536"),
        (b"{", "truncated"),
        (b"{}", "`cmd`"),
        (b'{"cmd":"READY"}', "READY"),
        (b'{"cmd":"PUBLISH","seq":1,"exchange":"e"}', "missing required field `routing_key`"),
        (b'{"cmd":"PUBLISH","seq":1,"exchange":"e","routing_key":"k","flag":1}', "unknown field `flag`"),
        (b'{"cmd":"PUBLISH","seq":1,"exchange":"e","routing_key":"k","props":{"what":1}}', "unknown field `what`"),
        (b'{"cmd":"PUBLISH","seq":1,"exchange":"\xff","routing_key":"k"}', "utf-8|UTF-8|can't be read"),
    ],
)
def test_what_is_wrong_is_said_with_command_and_field(header, reason):
    with pytest.raises(ProtocolViolation, match=f"(?s){reason}") as violation:
        decode(header)
    assert violation.value.spec == "TGP/1"


def test_lone_surrogates_are_no_text():
    with pytest.raises(ProtocolViolation):
        decode(b'{"cmd":"GET","r":1,"queue":"\\ud800"}')


def test_what_is_nested_within_reason_is_taken():
    command = decode(pack([3, 1, "e", "k", {"headers": {"x": nested(60)}}]))
    assert command.props.headers == {"x": nested(60)}


def test_options_of_a_later_hello_are_let_pass():
    assert decode(pack([1, 1, 2, {"client": "a", "shiny": True}])) == Hello(1, 2, HelloOptions("a"))


def check(header):
    try:
        command = decode(header)
    except ProtocolViolation:
        return
    assert type(command) in COMMANDS
    msgspec.msgpack.encode(command)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.dictionaries(st.integers(0, 9) | st.binary(max_size=2) | st.none(), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_a_violation(header):
    check(header)


@given(st.integers(0, 30), st.lists(anything, max_size=8))
def test_any_array_is_a_command_or_a_violation(number, fields):
    check(pack([number, *fields]))


@given(
    st.sampled_from([kind.__name__.upper() for kind in COMMANDS] + ["READY", "x"]),
    st.dictionaries(st.text(max_size=8), st.integers()),
)
def test_any_object_is_a_command_or_a_violation(name, fields):
    check(json.dumps({"cmd": name, **fields}).encode())


@given(st.sampled_from(EXAMPLES), st.booleans(), st.data())
def test_a_header_cut_or_changed_anywhere_is_a_command_or_a_violation(example, as_json, data):
    array, command = example
    header = pack(array)
    if as_json:
        header = in_json(array, command)
    position = data.draw(st.integers(0, len(header) - 1))
    check(header[:position])
    check(header[:position] + bytes([data.draw(st.integers(0, 255))]) + header[position + 1 :])
