"""Raw properties: what is read of them is what pamqp reads, what is changed is all that changes."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from gateway_amqp.codec import content
from gateway_amqp.codec.content import facts, put, replace_reply_to, spans, without_header
from gateway_amqp.codec.names import HardError
from gateway_amqp.codec.tables import decode_table
from tests.amqp.codec.strategies import FEW, tables

shorts = st.text(min_size=1, max_size=20)
TEXTS = (
    "content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id", "message_type", "user_id",
    "app_id",
)  # fmt: skip
properties = st.builds(
    commands.Basic.Properties,
    **dict.fromkeys(TEXTS, st.none() | shorts),
    headers=st.none() | st.dictionaries(shorts, st.text(max_size=9) | st.integers(-9, 9), min_size=1, max_size=4),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | st.integers(0, 2**32 - 1).map(lambda seconds: datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)),
)


def read(raw):
    """Return what pamqp reads."""
    made = commands.Basic.Properties()
    made.unmarshal(int.from_bytes(raw[:2], "big"), raw[2:])
    return made


@FEW
@given(properties)
def test_facts_are_what_pamqp_reads(wanted):
    raw = wanted.marshal()
    found = facts(raw)
    assert found.persistent == (wanted.delivery_mode == 2)
    assert found.priority == (wanted.priority or 0)
    for name in ("expiration", "reply_to", "user_id"):
        text = getattr(wanted, name)
        assert getattr(found, name) == (None if text is None else text.encode())
    assert found.has_headers == (wanted.headers is not None)
    if found.headers is not None:
        assert decode_table(raw, *found.headers) == wanted.headers


@FEW
@given(properties, st.data())
def test_properties_that_are_cut_or_too_long_are_refused_at_every_byte(wanted, data):
    raw = wanted.marshal()
    for wrong in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"\0"):
        for look in (facts, spans, lambda raw: replace_reply_to(raw, b"r")):
            with pytest.raises(HardError) as caught:
                look(wrong)
            assert caught.value.code == 502


@given(st.binary(max_size=60))
def test_facts_and_spans_agree_on_any_bytes(raw):
    told = []
    for look in (facts, spans):
        try:
            look(raw)
            told.append(0)
        except HardError as error:
            told.append(error.code)
    assert told in ([0, 0], [502, 502])


@pytest.mark.parametrize("raw", [b"\0\1", b"\0\1\0\0", b"\0\2", b"\x10\3\2"])
def test_flags_that_class_basic_has_not_are_refused(raw):
    with pytest.raises(HardError, match=r"502 .* flags that AMQP has not"):
        facts(raw)


def test_headers_that_are_malformed_are_refused_though_nobody_reads_them():
    with pytest.raises(HardError, match="502"):
        facts(b"\x20\0\0\0\0\3\1aZ")


def test_delivery_mode_2_alone_is_persistent():
    assert [facts(b"\x10\0" + bytes((mode,))).persistent for mode in (0, 1, 2, 3, 255)] == [False, False, True, False, False]


@FEW
@given(properties)
def test_spans_are_where_the_properties_stand(wanted):
    raw = wanted.marshal()
    found = spans(raw)
    assert b"".join([raw[:2], *(raw[start:end] for _, start, end in found)]) == raw
    assert sum(flag for flag, _, _ in found) == int.from_bytes(raw[:2], "big")


@given(properties, shorts)
def test_another_reply_to_is_all_that_changes(wanted, new):
    raw = replace_reply_to(wanted.marshal(), new.encode())
    wanted.reply_to = new
    assert raw == wanted.marshal()
    assert read(raw) == wanted


@FEW
@given(properties, properties, st.sampled_from(content.ORDER))
def test_any_property_can_be_replaced_put_in_and_taken_out(wanted, other, flag):
    raw, source = wanted.marshal(), other.marshal()
    values = {flag: source[start:end] for flag, start, end in spans(source)}
    changed = put(raw, flag, values.get(flag, b""))
    expected = {flag: raw[start:end] for flag, start, end in spans(raw)}
    expected.pop(flag, None)
    if flag in values:
        expected[flag] = values[flag]
    assert {flag: changed[start:end] for flag, start, end in spans(changed)} == expected


@FEW
@given(properties, st.sampled_from(["BCC", "a", ""]), tables)
def test_a_header_that_is_taken_out_leaves_the_others_as_they_were(wanted, name, table):
    wanted.headers = {"first": 1, **{key: str(value) for key, value in table.items()}, name: "x", "last": 2}
    rest = {key: value for key, value in wanted.headers.items() if key != name}
    raw = without_header(wanted.marshal(), name.encode())
    wanted.headers = rest
    assert raw == wanted.marshal()
    assert without_header(raw, name.encode()) == raw


def test_without_headers_there_is_none_to_take_out():
    assert without_header(b"\x10\0\2", b"BCC") == b"\x10\0\2"
