"""Is whatever plain peers, Majordomo's peers and libzmq's questions may hold either understood, or refused in words?"""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api import ProtocolViolation, decode_properties
from gateway_zeromq.endpoints.frames import SPLITTERS, WrongFrames
from gateway_zeromq.mdp.codec import MAX_SERVICE_BYTES, Request, Version, decode_client, decode_worker, service_of
from gateway_zeromq.mdp.translate import Origin, frames_of, origin_of_key, reply_key
from gateway_zeromq.security.zap import Malformed, parse
from gateway_zeromq.tgp.codec import MAX_HEADER_BYTES

pack = msgspec.msgpack.encode
SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=9
)
HEADERS = st.one_of(
    st.dictionaries(st.text(max_size=5), VALUES, max_size=4).map(pack),
    VALUES.map(pack),
    st.binary(max_size=40),
    st.binary(max_size=20).map(lambda data: b"{" + data),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"\x80",
            b"\xdf\xff\xff\xff\xff",
            b"\x81\xa1a\xc6\xff\xff\xff\xff",
            b"\x81\xa1a" + b"\x91" * 2_000,
            b'{"a":' + b"[" * 20_000,
            b'{"a":"\\ud800"}',
            b'{"a":1e999}',
            b'{"a":%d}' % 10**40,
            b'{"a":1,"a":2}',
            b"\x81\xa1a\xcb\x7f\xf8\0\0\0\0\0\0",
            b"\x81\xa1a\xd7\xff" + b"\xff" * 8,
            b"\x81\xa1\xff\1",
            b"\x80" + b"\0" * MAX_HEADER_BYTES,
        ]
    ),
)
FRAME = st.binary(max_size=12)


@given(st.binary(max_size=8), HEADERS, FRAME)
def test_headers_are_readable_by_everybody_or_refused(key, headers, body):
    try:
        found_key, found_body, wire = SPLITTERS["key,headers,body"]([key, headers, body])
    except WrongFrames:
        return
    assert (found_key, found_body) == (key, body)
    assert len(headers) <= MAX_HEADER_BYTES
    known = decode_properties(wire).headers if wire else None
    assert pack(known)


@pytest.mark.parametrize("layout", sorted(SPLITTERS))
@given(frames=FRAME | st.lists(FRAME, min_size=2, max_size=6))
def test_any_frames_are_split_as_the_layout_says_or_refused(layout, frames):
    parts = [frames] if isinstance(frames, bytes) else frames
    expected = {"body": 1, "key,body": 2, "key,headers,body": 3}.get(layout)
    try:
        key, body, _ = SPLITTERS[layout](frames)
    except WrongFrames:
        assert len(parts) != expected or layout == "key,headers,body"
        return
    if layout == "raw":
        assert frames_of(body, multipart=len(parts) > 1) == parts
    else:
        assert (len(parts), key, body) == (expected, parts[0] if expected > 1 else None, parts[-1])


# -- libzmq's questions


@given(st.lists(st.sampled_from([b"", b"1.0", b"1", b"PLAIN", b"CURVE", b"NULL", b"x"]) | st.binary(max_size=40), max_size=14))
@example([b"r", b"", b"1.0", b"1", b"", b"", b"", b"NULL"])
@example([b"r", b"", b"1.0", b"1", b"d", b"a", b"i", b"CURVE", b"k", b"more"])
def test_a_question_is_one_or_is_answered_with_a_no_to_whoever_asked(frames):
    try:
        request = parse(frames)
    except Malformed as error:
        said = error.reply
        request = None
    if request is None:
        assert said is None or [*said[:5], *said[6:]] == [frames[0], b"", b"1.0", frames[3], b"400", b"", b""]
        return
    assert (request.route, request.number) == (frames[0], frames[3])
    assert len(request.credentials) == {"NULL": 0, "PLAIN": 2, "CURVE": 1}.get(request.mechanism, len(request.credentials))


# -- Majordomo

WORD = st.sampled_from([b"", b"\1", b"\2", b"\3", b"\4", b"\5", b"\6", b"echo", b"\xff", b"x" * 252, b"a\0b", b"../x"]) | FRAME


@given(st.sampled_from(Version), st.lists(WORD, min_size=1, max_size=7))
def test_what_majordomo_s_peers_say_is_understood_or_refused(version, frames):
    for decode in (decode_client, decode_worker):
        try:
            command = decode(version, frames)
        except ProtocolViolation:
            continue
        name = getattr(command, "service", None)
        if name is not None:
            assert name.isprintable()
            assert 1 <= len(name.encode()) <= MAX_SERVICE_BYTES
        if isinstance(command, Request):
            assert command.body


@given(st.binary(max_size=300))
def test_a_service_is_printable_text_that_fits_a_queue_s_name_or_none(frame):
    try:
        name = service_of(Version.V01, frame)
    except ProtocolViolation:
        return
    assert name.encode() == frame
    assert len(f"mdp.{name}".encode()) <= 255


@given(st.binary(min_size=1, max_size=255), st.text(min_size=1, max_size=40), st.sampled_from([1, 2]), st.booleans())
def test_a_reply_s_key_names_its_client_and_nobody_else(client, service, version, enveloped):
    origin = Origin("end", "boot", client, version, enveloped, service)
    found = origin_of_key(reply_key(origin))
    assert found == origin


@given(st.text(max_size=60) | st.text("mdp.reply.abc.-_=12e", max_size=60).map("mdp.reply.".__add__))
def test_any_key_answers_somebody_or_nobody(key):
    origin = origin_of_key(key)
    assert origin is None or (origin.client and origin.version in (1, 2))
