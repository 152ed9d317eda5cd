"""Which frames are what, and what is no message?"""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Address, Message, Properties, decode_properties, encode_properties
from gateway_zeromq.endpoints.frames import MULTIPART, SPLITTERS, WrongFrames, join_body, join_headers, join_key, join_raw

ADDRESS = Address("/", "amq.topic", "a.b")


def message(body, wire=b""):
    return Message(ADDRESS, body, True, "common" if wire else "", wire)


@pytest.mark.parametrize(
    ("layout", "frames", "parts"),
    [
        ("body", b"b", (None, b"b", b"")),
        ("key,body", [b"k", b"b"], (b"k", b"b", b"")),
        ("key,headers,body", [b"k", b"", b"b"], (b"k", b"b", b"")),
        ("raw", b"b", (None, b"b", b"")),
    ],
)
def test_frames_become_key_and_body(layout, frames, parts):
    assert SPLITTERS[layout](frames) == parts


@pytest.mark.parametrize("encode", [msgspec.msgpack.encode, lambda value: json.dumps(value).encode()])
def test_headers_are_a_msgpack_map_or_a_json_object(encode):
    headers = {"format": "pdf", "n": 1}
    _, _, wire = SPLITTERS["key,headers,body"]([b"k", encode(headers), b"b"])
    assert decode_properties(wire).headers == headers


@pytest.mark.parametrize(
    ("layout", "frames", "reason"),
    [
        ("body", [b"a", b"b"], "2 frames; the endpoint expects 1: body"),
        ("key,body", b"a", "1 frames; the endpoint expects 2: key,body"),
        ("key,body", [b"a", b"b", b"c"], "3 frames; the endpoint expects 2"),
        ("key,headers,body", [b"a", b"b"], "2 frames; the endpoint expects 3"),
        ("key,headers,body", [b"k", b"\x90", b"b"], "headers are neither"),
        ("key,headers,body", [b"k", b"{", b"b"], "headers are neither"),
        ("key,headers,body", [b"k", b"\x81\x01\x02", b"b"], "headers are neither"),
        ("key,headers,body", [b"k", b"{" + b'"a":[' * 12_000, b"b"], "headers are neither"),
        ("key,headers,body", [b"k", b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", b"b"], "more than 64"),
        ("key,headers,body", [b"k", b'{"n":123456789012345678901}', b"b"], "headers are neither"),
    ],
)
def test_wrong_frames_are_said_in_words(layout, frames, reason):
    with pytest.raises(WrongFrames, match=reason):
        SPLITTERS[layout](frames)


def properties(message):
    return {"common": decode_properties, "other": lambda _: Properties(content_type=MULTIPART)}[message.wire_tag](message.wire)


def test_raw_makes_frames_of_what_another_protocol_says_are_several():
    said = Message(Address("/", "", "k"), msgspec.msgpack.encode([b"a", b""]), True, "other", b"x")
    assert join_raw(properties)(said, b"") == [b"a", b""]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_raw_keeps_all_frames_and_gives_them_back(frames):
    whole = frames[0] if len(frames) == 1 else frames
    key, body, wire = SPLITTERS["raw"](whole)
    assert key is None
    assert join_raw(properties)(message(body, wire), b"") == frames


def test_raw_sends_what_others_published_as_it_is():
    assert join_raw(properties)(message(b"plain"), b"") == [b"plain"]
    claims = encode_properties(Properties(content_type=MULTIPART))
    for body in (b"no array", msgspec.msgpack.encode([]), msgspec.msgpack.encode([1])):
        assert join_raw(properties)(message(body, claims), b"") == [body]


def test_what_a_worker_gets():
    wire = encode_properties(Properties(headers={"n": 1}))
    assert join_body(message(b"b"), b"k") == [b"b"]
    assert join_key(message(b"b"), b"k") == [b"k", b"b"]
    assert join_headers(properties)(message(b"b", wire), b"k") == [b"k", msgspec.msgpack.encode({"n": 1}), b"b"]
    assert join_headers(properties)(message(b"b"), b"k") == [b"k", msgspec.msgpack.encode({}), b"b"]
