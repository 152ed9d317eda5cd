"""What do clients of others read in AMQP's properties?"""

from __future__ import annotations

from datetime import UTC, datetime

import pika.spec
from amqp.serialization import decode_properties_basic

from gateway.api import Address, Message, Properties
from gateway_amqp.codec.content import spans
from gateway_amqp.codec.tables import decode_table
from gateway_amqp.translate.properties import HEADERS, from_common

ADDRESS = Address("/", "amq.topic", "plant.3.temp")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def said(**properties):
    """Return the wire form of what another protocol's client says."""
    return from_common(Properties(**properties), Message(ADDRESS, b"", True))


def heard(wire):
    """Return what py-amqp reads."""
    properties, end = decode_properties_basic(wire, 0)
    assert end == len(wire)
    return properties


def pika_reads(wire):
    properties = pika.spec.BasicProperties()
    properties.decode(wire)
    return properties


def headers_of(wire):
    ((start, end),) = [(start, end) for flag, start, end in spans(wire) if flag == HEADERS]
    return decode_table(wire, start, end, faithful=True)
