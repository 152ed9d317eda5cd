"""Methods: pamqp's commands, without what pamqp makes of names and broken bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame

from gateway_amqp.codec import names
from gateway_amqp.codec.methods import decode, encode, encode_arguments, name_of
from gateway_amqp.codec.names import HardError
from tests.amqp.codec.strategies import tables

pytestmark = pytest.mark.filterwarnings("ignore:This command is deprecated")  # of Recover without an answer

CLASSES = commands.INDEX_MAPPING
shorts = st.text(max_size=40).filter(lambda text: len(text.encode()) <= 255)
values = {
    "bit": st.booleans(),
    "octet": st.integers(0, 255),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": shorts,
    "longstr": st.text(max_size=300),
    "table": tables,
}


def command_of(method, data):
    """Return a command of a method with any arguments, not asked whether pamqp likes them."""
    class_ = CLASSES[method]
    command = object.__new__(class_)
    for name in class_.__slots__:
        setattr(command, name, data.draw(values[class_.amqp_type(name)]))
    return command


def seen(command):
    return type(command), dict(command)


def test_every_method_has_a_constant():
    constants = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, int) and value > 0xFFFF}
    assert constants == {*CLASSES, names.CONTENT_CLASS}


@pytest.mark.parametrize("method", CLASSES)
@settings(max_examples=10)
@given(st.data())
def test_a_command_comes_back(method, data):
    command = command_of(method, data)
    assert seen(decode(method, encode_arguments(command))) == seen(command)


@pytest.mark.parametrize("method", CLASSES)
def test_a_command_is_written_as_pamqp_does(method):
    class_ = CLASSES[method]
    try:
        command = class_()
        marshalled = frame.marshal(command, 258)
    except (TypeError, ValueError):
        command = object.__new__(class_)  # its arguments have no defaults
        for name in class_.__slots__:
            setattr(command, name, {"shortstr": "a", "longstr": "b", "bit": True}.get(class_.amqp_type(name), 1))
        marshalled = frame.marshal(command, 258)
    assert encode(258, command) == marshalled
    assert seen(decode(method, marshalled[11:-1])) == seen(command)


@pytest.mark.parametrize("method", CLASSES)
@settings(max_examples=10)
@given(st.data())
def test_pamqp_reads_a_command(method, data):
    command = command_of(method, data)
    _, number, read = frame.unmarshal(encode(7, command))
    assert number == 7
    for name, value in command:
        assert getattr(read, name) == value or (name, value) == ("delivery_tag", read.delivery_tag + 2**64)


@pytest.mark.parametrize("method", CLASSES)
@settings(max_examples=10)
@given(st.data())
def test_arguments_that_are_cut_or_too_long_are_refused(method, data):
    arguments = encode_arguments(command_of(method, data))
    cut = data.draw(st.integers(0, max(0, len(arguments) - 1)))
    for wrong in [arguments + b"\0"] + ([arguments[:cut]] if arguments else []):
        with pytest.raises(HardError) as caught:
            decode(method, wrong)
        assert (caught.value.code, caught.value.method) == (502, method)
        assert name_of(method) in caught.value.text


@given(st.sampled_from(list(CLASSES)), st.binary(max_size=60))
def test_no_bytes_do_anything_but_raise_a_syntax_error(method, arguments):
    try:
        command = decode(method, arguments)
    except HardError as error:
        told = error.code
    else:
        told = 502
        assert type(command) is CLASSES[method]
    assert told == 502


@pytest.mark.parametrize("method", [0, 0x003C0029, 0x003C0000, 0x00460001, 0xFFFFFFFF])
def test_a_method_that_amqp_has_not_is_an_invalid_command(method):
    with pytest.raises(HardError) as caught:
        decode(method, b"")
    assert (caught.value.code, caught.value.text) == (503, f"unknown method {method >> 16}.{method & 0xFFFF}")


def test_names_that_pamqp_would_not_take_come_and_go():
    arguments = b"\0\0\x03a$b\x07no type\x02\0\0\0\0"
    command = decode(names.EXCHANGE_DECLARE, arguments)
    assert (command.exchange, command.exchange_type, command.passive, command.durable) == ("a$b", "no type", False, True)
    assert encode_arguments(command) == arguments


def test_a_short_string_that_is_not_utf_8_is_a_syntax_error_and_a_long_one_is_bytes():
    with pytest.raises(HardError, match=r"^502 a short string that is not UTF-8 in queue\.purge$"):
        decode(names.QUEUE_PURGE, b"\0\0\1\xff\0")
    assert decode(names.CONNECTION_SECURE_OK, b"\0\0\0\1\xff").response == b"\xff"


def test_a_table_that_is_malformed_or_too_deep_is_told_of_the_method():
    deep = b"\1aV"
    for _ in range(4_000):
        deep = b"\1aF" + len(deep).to_bytes(4, "big") + deep
    for table in (len(deep).to_bytes(4, "big") + deep, b"\0\0\0\2\1a", b"\xff\xff\xff\xff\1a"):
        with pytest.raises(HardError, match=r"^502 .* in queue\.declare$"):
            decode(names.QUEUE_DECLARE, b"\0\0\1q\0" + table)


def test_names_are_those_of_rabbitmq():
    told = {
        names.BASIC_GET_EMPTY: "basic.get_empty",
        names.CONNECTION_UPDATE_SECRET_OK: "connection.update_secret_ok",
        0x004B0001: "75.1",
    }
    assert {method: name_of(method) for method in told} == told


def test_a_reply_text_names_its_code_and_fits_a_short_string():
    assert names.reply_text(404, "no queue 'q' in vhost '/'") == "NOT_FOUND - no queue 'q' in vhost '/'"
    assert names.reply_text(200, "") == "OK"
    assert names.reply_text(999, "other") == "other"
    assert names.reply_text(404, "é" * 200) == "NOT_FOUND - " + "é" * 120 + "..."
    assert names.reply_text(404, "e" * 243) == "NOT_FOUND - " + "e" * 243
    assert names.reply_text(404, "e" * 244) == "NOT_FOUND - " + "e" * 240 + "..."
    assert names.reply_text(404, "\udcff") == "NOT_FOUND - \udcff"
