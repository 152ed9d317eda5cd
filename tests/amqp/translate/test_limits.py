"""What becomes of what AMQP's properties and tables can't hold?"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Message, Properties
from gateway_amqp.translate.properties import MALFORMED, MOST_BYTES, from_common, read_wire
from gateway_amqp.translate.tables import OTHERS, TOO_LARGE
from tests.amqp.translate.reading import ADDRESS, NOON, headers_of, heard, pika_reads, said


def test_properties_that_are_too_long_are_headers():
    long = "x" * 256
    wire = said(
        content_type=long,
        content_encoding=long,
        reply_to=long,
        message_id=long,
        type=long,
        user_id=long,
        app_id=long,
        headers={"a": 1},
    )
    names = ("content-type", "content-encoding", "reply-to", "message-id", "type", "user-id", "app-id")
    assert read_wire(wire) == Properties(headers={**{f"x-{name}": long for name in names}, "a": 1})


def test_numbers_that_are_too_large_are_headers():
    wire = said(priority=256, timestamp_s=253_402_300_800, headers={"x-priority": "mine"})
    assert heard(wire)["application_headers"] == {
        "x-priority": 256,
        "x-timestamp": 253_402_300_800,
        OTHERS: [{"name": "x-priority", "value": "mine"}],
    }


def test_headers_that_tables_do_not_hold_are_told_otherwise():
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    told = headers_of(
        said(
            headers={
                "large": 1 << 63,
                "half": NOON + timedelta(milliseconds=500),
                "old": datetime(1960, 1, 1, tzinfo=UTC),
                "nan": math.nan,
                "inner": {1: "a", b"b": 2, "1": 3},
                "ext": msgspec.msgpack.Ext(4, b"\xff"),
                "n" * 256: 5,
                "bytes": b"ab",
                "deep": deep,
            }
        )
    )
    level = told.pop("deep")
    depth = 0
    while isinstance(level, list):
        (level,) = level
        depth += 1
    assert 20 < depth < 32
    assert level == "[" * (40 - depth) + "1" + "]" * (40 - depth)
    assert told == {
        "large": "9223372036854775808",
        "nan": "nan",
        "half": "2026-11-21T12:00:00.500000+00:00",
        "old": "1960-01-01T00:00:00+00:00",
        "inner": {"1": "a", "b": 2, OTHERS: [{"name": "1", "value": 3}]},
        "ext": "ext 4: /w==",
        "bytes": bytearray(b"ab"),
        OTHERS: [{"name": "n" * 256, "value": 5}],
    }


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=300)
    | st.binary(max_size=9)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 99), st.binary(max_size=3))
)

_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.binary(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)

_texts = st.none() | st.text(max_size=300)


@given(
    st.builds(
        Properties,
        content_type=_texts,
        headers=st.none()
        | st.dictionaries(st.text(max_size=300), _values | st.just({"time": 1}).map(lambda one: [one]), max_size=4),
        priority=st.none() | st.integers(-1, 300),
        correlation_id=_texts | st.binary(max_size=300),
        reply_to=_texts,
        expiration_ms=st.none() | st.integers(-5, 1 << 70),
        timestamp_s=st.none() | st.integers(-5, 1 << 70),
        user_id=_texts,
    )
)
def test_whatever_is_said_real_clients_can_read_it(properties):
    wire = from_common(properties, Message(ADDRESS, b"", True))
    read = heard(wire)
    pika_reads(wire)
    assert len(read.get("application_headers") or ()) >= len(properties.headers or ())
    assert read_wire(wire) != Properties(headers={MALFORMED: wire})


def test_headers_that_no_frame_holds_are_named():
    wire = said(headers={"a": 1, "large": "x" * 140_000, "more": b"y" * 140_000, "z": 2})
    assert len(wire) <= MOST_BYTES
    assert read_wire(wire).headers == {"a": 1, "z": 2, TOO_LARGE: ["large", "more"]}
    wire = said(headers={f"{number:0200}": number for number in range(1_000)})
    assert len(wire) <= MOST_BYTES
    told = read_wire(wire).headers
    assert told[TOO_LARGE] == f"{1_001 - len(told)} of 1000"
    assert len(told) > 400


def test_what_is_deeper_than_readers_read_is_no_error():
    deep: dict = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert "deep" in read_wire(said(headers={"deep": deep})).headers
