"""Do correlation ids come back as they were said, whoever passes them on?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Properties
from gateway_amqp.translate.properties import BASE64, read_wire
from tests.amqp.translate.reading import heard, said


@given(
    st.binary(max_size=180) | st.binary(max_size=40).map(lambda data: BASE64.encode() + data) | st.text(max_size=60).map(str.encode)
)
def test_correlation_ids_come_back_from_who_reads_text(data):
    for identity in {data, data.decode() if is_utf8(data) else data}:
        told = heard(said(correlation_id=identity))["correlation_id"]  # as text, or py-amqp raises
        returned = read_wire(b"\4\0" + bytes((len(told.encode()),)) + told.encode()).correlation_id
        assert (returned.encode() if isinstance(returned, str) else returned) == data


@given(st.text(max_size=60) | st.sampled_from(["base64:AAAA", "base64:/w==", "base64:/x==", "base64: seven", "base64:"]))
def test_an_amqp_clients_correlation_id_comes_back_from_others(text):
    wire = b"\4\0" + bytes((len(text.encode()),)) + text.encode()
    asked = read_wire(wire).correlation_id
    as_mqtt = asked if isinstance(asked, bytes) else asked.encode()
    answered = as_mqtt.decode() if is_utf8(as_mqtt) else as_mqtt
    assert heard(said(correlation_id=answered))["correlation_id"] == text


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("long", ["é" * 200, b"\xff" * 187])
def test_a_correlation_id_that_is_too_long_is_a_header(long):
    assert read_wire(said(correlation_id=long)) == Properties(headers={"x-correlation-id": long})
