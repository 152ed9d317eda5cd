"""How do bytes become MQTT control packets, and back?"""

from __future__ import annotations

from gateway_mqtt.codec.decoding import check_publish_flags, connect_level, decode
from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.fields import encode_length, encode_string, is_utf8, split_share, topic_filter, topic_name

__all__ = [
    "check_publish_flags",
    "connect_level",
    "decode",
    "encode",
    "encode_length",
    "encode_string",
    "is_utf8",
    "split_share",
    "topic_filter",
    "topic_name",
]
