"""What may publishers of each protocol say? Strategies for hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.api import reply_address
from tests.crossing.peers import RAW_KEY, REPLY_TIMEOUT_MS, REQUEST_TTL_S, SERVICE_KEY
from tests.crossing.table import (
    AMQP,
    HEADERS,
    JSON,
    LATEST_S,
    MAJORDOMO,
    MQTT_3,
    MQTT_5,
    MULTIPART,
    PLAIN,
    PLAIN_REQUEST,
    RAW,
    TGP,
    is_utf8,
    swapped,
)

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_topics = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), max_size=12)
_names = _text.filter(lambda name: name != "x-retain")
_bodies = st.binary(max_size=20) | _text.map(str.encode)
_frames = st.lists(st.binary(max_size=8), min_size=1, max_size=4)
_plain = (
    _text | st.integers(-(1 << 63), (1 << 63) - 1) | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
)
_binary = st.binary(max_size=12).filter(lambda data: not is_utf8(data))
_times = st.integers(0, LATEST_S).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
"""What tables of AMQP hold besides, as their readers and writers see it: bytes that are text are text."""
_expiry_ms = st.integers(600, 1 << 20).map(lambda seconds: seconds * 1_000)


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return leaves | st.lists(leaves, max_size=3) | st.dictionaries(_text, leaves, max_size=2)


def _headers(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(_names, _nested(leaves), min_size=1, max_size=3)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def _given(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.just(values)


_mqtt_keys = _topics.map(lambda rest: f"x/{rest}")
_keys = _mqtt_keys.map(swapped)
_level_4 = {"routing_key": _mqtt_keys, "body": _bodies, "qos": st.sampled_from([0, 1, 2]), "retain": st.booleans()}
_level_5 = {
    **_level_4,
    "content_type": _maybe(_text | st.just(MULTIPART)),
    "user": st.lists(st.tuples(st.sampled_from(["a", "b", ""]) | _text, _text), max_size=5),
    "correlation_id": _maybe(st.binary(max_size=12) | _text.map(str.encode)),
    "reply_to": _maybe(_topics.map(lambda rest: f"back/{rest}") | _topics.map(lambda rest: f"$reply/{rest}?")),
    "expiration_ms": _maybe(_expiry_ms),
}
_addresses = _topics.map(lambda rest: f"back/{rest}") | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def _reply_to(name: str) -> str:
    return reply_address("amq.topic", swapped(name)) if name.startswith("back/") else name


def _tgp(*, as_json: bool) -> dict[str, st.SearchStrategy[Any]]:
    leaves = _plain if as_json else _plain | st.binary(max_size=5)
    return {
        "routing_key": _keys,
        "body": _bodies | _frames.map(_packed),
        "persistent": st.booleans(),
        "retain": st.booleans(),
        "content_type": _maybe(_text | st.just(MULTIPART)),
        "content_encoding": _maybe(st.sampled_from(["utf-8", "UTF-8", "gzip"])),
        "headers": _maybe(_headers(leaves)),
        "priority": _maybe(st.integers(0, 255)),
        "correlation_id": _maybe(_text if as_json else _text | st.binary(max_size=12)),
        "reply_to": _maybe(_addresses.map(_reply_to)),
        "expiration_ms": _maybe(_expiry_ms),
        "message_id": _maybe(_text),
        "timestamp_s": _maybe(st.integers(0, 1 << 40)),
        "type": _maybe(_text),
        "user_id": _maybe(st.just("anonymous")),  # another than its own is refused
        "app_id": _maybe(_text),
    }


def _packed(frames: list[bytes]) -> bytes:
    return msgspec.msgpack.encode(frames)


_amqp = {
    **_tgp(as_json=False),
    "persistent": st.just(None),
    "delivery_mode": st.sampled_from([None, 1, 2]),
    "headers": _maybe(_headers(_plain | _binary | _times)),
    "correlation_id": _maybe(_text | _binary),
    "timestamp_s": _maybe(st.integers(0, LATEST_S)),
    "user_id": _maybe(st.just("guest")),
}
_no = st.just(False)
_with_headers = {
    "routing_key": _keys,
    "body": _bodies,
    "headers": _maybe(_headers(_plain)),
    "as_json": st.booleans(),
}
SAYINGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    AMQP: st.fixed_dictionaries(_amqp).map(lambda said: {**said, "persistent": said["delivery_mode"] == 2}),
    MQTT_3: st.fixed_dictionaries(_level_4),
    MQTT_5: st.fixed_dictionaries({**_level_5, "text": st.booleans()}).map(
        lambda said: {**said, "is_text": said["text"] and is_utf8(said["body"])}
    ),
    TGP: st.fixed_dictionaries(_tgp(as_json=False)),
    JSON: st.fixed_dictionaries(_tgp(as_json=True)),
    HEADERS: st.fixed_dictionaries({**_with_headers, "retain": st.booleans(), "given": _given(persistent=True)}),
    PLAIN: st.fixed_dictionaries({"routing_key": _keys, "body": _bodies, "given": _given(persistent=True, retain=False)}),
    RAW: st.fixed_dictionaries({"body": _frames, "given": _given(routing_key=RAW_KEY, persistent=True, retain=False)}),
    PLAIN_REQUEST: st.fixed_dictionaries(
        {**_with_headers, "retain": _no, "given": _given(persistent=False, expiration_ms=REPLY_TIMEOUT_MS)}
    ),
    MAJORDOMO: st.fixed_dictionaries(
        {"body": _frames, "given": _given(routing_key=SERVICE_KEY, persistent=False, expiration_ms=REQUEST_TTL_S * 1_000)}
    ),
}
