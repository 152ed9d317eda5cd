"""What is a command in the common model, and which code is which error?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.errors
from gateway.api import (
    COMMON,
    Address,
    Binding,
    CommandInvalid,
    ExchangeSpec,
    GatewayError,
    Message,
    NotSupported,
    Outcome,
    Overflow,
    PreconditionFailed,
    Properties,
    QueueInfo,
    decode_properties,
    encode_properties,
)
from gateway_zeromq.tgp import codec
from gateway_zeromq.tgp.commands import Bind, Declare, Delete, Props, Publish, Purge
from gateway_zeromq.tgp.translate import (
    CODES,
    binding_of,
    code_of,
    deletion_of,
    exchange_of,
    message_of,
    properties_of,
    queue_of,
    result_of,
)

ADDRESS = Address("/", "amq.topic", "a.b")
SAYS_SO, SILENT = encode_properties(Properties(expiration_ms=9_000)), encode_properties(Properties(type="t"))


def test_every_error_of_the_gateway_has_a_code_and_it_is_its_own():
    kinds = [kind for kind in vars(gateway.errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)]
    assert len(kinds) > len(CODES) - 1
    for kind in kinds:
        assert code_of(kind("text")) == (406 if kind is CommandInvalid else kind.code), kind


def test_an_error_that_is_not_in_the_table_has_the_code_of_its_kind():
    class Special(NotSupported):
        pass

    assert code_of(Special("x")) == 540


@pytest.mark.parametrize(
    ("props", "expected"),
    [
        (None, (True, "", b"", 0, 0)),
        (Props(), (True, "", b"", 0, 0)),
        (Props(delivery_mode=1), (False, "", b"", 0, 0)),
        (Props(type="t"), (True, COMMON, encode_properties(Properties(type="t")), 0, 0)),
        (Props(type="t", delivery_mode=1), (False, COMMON, encode_properties(Properties(type="t")), 0, 0)),
        (Props(priority=7), (True, COMMON, encode_properties(Properties(priority=7)), 7, 0)),
        (Props(expiration_ms=500), (True, COMMON, encode_properties(Properties(expiration_ms=500)), 0, 1500)),
    ],
)
def test_a_publish_becomes_a_message(props, expected):
    message = message_of(ADDRESS, Publish(1, "e", "k", props), b"body", lambda: 1000)
    assert message.body == b"body"
    assert message.address is ADDRESS
    assert (message.persistent, message.wire_tag, message.wire, message.priority, message.expires_at_ms) == expected


def test_properties_go_into_a_header_as_they_came_if_that_can_be():
    common = Message(ADDRESS, b"", True, COMMON, encode_properties(Properties(type="t")))
    decode = lambda _: Properties(type="t")  # noqa: E731
    assert msgspec.msgpack.encode(properties_of(common, decode, lambda: 1_000, as_json=False)) == common.wire
    assert msgspec.json.encode(properties_of(common, decode, lambda: 1_000, as_json=True)) == b'{"type":"t"}'
    foreign = Message(ADDRESS, b"", True, "mqtt", b"\x00")
    assert msgspec.msgpack.encode(properties_of(foreign, decode, lambda: 1_000, as_json=False)) == common.wire
    assert properties_of(foreign, lambda _: Properties(), lambda: 1_000, as_json=False) is None
    assert properties_of(Message(ADDRESS, b""), decode, lambda: 1_000, as_json=False) is None


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            Message(ADDRESS, b"", False, COMMON, encode_properties(Properties(expiration_ms=9_000)), 0, 3_000),
            {"expiration_ms": 9_000},
        ),
        (
            Message(ADDRESS, b"", False, COMMON, encode_properties(Properties(type="t")), 0, 3_000),
            {"expiration_ms": 2_000, "type": "t"},
        ),
        (Message(ADDRESS, b"", False, "", b"", 0, 3_000), {"expiration_ms": 2_000}),
        (Message(ADDRESS, b"", False, "other", b"x", 0, 3_000), {"expiration_ms": 2_000, "type": "t"}),
        (Message(ADDRESS, b"", False, "", b"", 0, 900), {"expiration_ms": 0}),
    ],
)
def test_what_expires_says_after_how_long_as_published_or_else_how_long_is_left(message, expected, as_json):
    def decode(message):
        return Properties(type="t") if message.wire_tag == "other" else decode_properties(message.wire)

    said = properties_of(message, decode, lambda: 1_000, as_json=as_json)
    encoder = msgspec.json if as_json else msgspec.msgpack
    assert encoder.decode(encoder.encode(said)) == expected


@given(st.binary(max_size=12) | st.text(max_size=12) | st.text(max_size=12).map("base64:".__add__))
def test_a_correlation_id_that_goes_through_json_and_back_has_the_same_bytes(correlation_id):
    message = Message(ADDRESS, b"", True, COMMON, encode_properties(Properties(correlation_id=correlation_id)))
    said = msgspec.json.encode(properties_of(message, lambda m: decode_properties(m.wire), lambda: 0, as_json=True))
    header = b'{"cmd":"PUBLISH","seq":1,"exchange":"","routing_key":"","props":' + said + b"}"
    again = codec.decode(header).props.correlation_id
    assert as_bytes(again) == as_bytes(correlation_id)


def as_bytes(correlation_id):
    return correlation_id if isinstance(correlation_id, bytes) else correlation_id.encode()


def test_a_correlation_id_of_a_json_client_that_is_no_base64_stays_what_it_is():
    header = b'{"cmd":"PUBLISH","seq":1,"exchange":"","routing_key":"","props":{"correlation_id":"base64:my own"}}'
    assert codec.decode(header).props.correlation_id == "base64:my own"


def test_declarations_take_arguments_in_a_map_of_their_own_or_beside_the_others():
    queue, passive = queue_of(
        Declare(1, "queue", "q", {"durable": False, "x-max-length": 5, "arguments": {"x-overflow": "reject-publish"}})
    )
    assert (queue.name, queue.durable, queue.max_length, queue.overflow, passive) == ("q", False, 5, Overflow.REJECT_PUBLISH, False)
    exchange, passive = exchange_of(
        Declare(1, "exchange", "e", {"type": "topic", "passive": True, "alternate": "other", "x-deduplication-window-ms": 9})
    )
    assert (exchange, passive) == (ExchangeSpec("e", "topic", alternate="other", arguments={"x-deduplication-window-ms": 9}), True)
    assert queue_of(Declare(1, "queue", ""))[0].durable is True


@pytest.mark.parametrize(
    ("call", "command", "error", "words"),
    [
        (
            queue_of,
            Declare(1, "queue", "q", {"durabel": True}),
            PreconditionFailed,
            "known are: durable, exclusive, auto_delete, passive",
        ),
        (queue_of, Declare(1, "queue", "q", {"durable": 1}), PreconditionFailed, "'durable' must be true or false, not 1"),
        (queue_of, Declare(1, "queue", "q", {"arguments": [1]}), PreconditionFailed, "'arguments' must be a map"),
        (queue_of, Declare(1, "queue", "q", {"x-max-length": -1}), PreconditionFailed, "x-max-length"),
        (queue_of, Declare(1, "queue", "q", {"x-magic": 1}), NotSupported, "x-magic"),
        (exchange_of, Declare(1, "exchange", "e", {"type": 5}), PreconditionFailed, "'type' must be text"),
        (
            exchange_of,
            Declare(1, "exchange", "e", {"exclusive": True}),
            PreconditionFailed,
            "an exchange has no argument 'exclusive'",
        ),
        (deletion_of, Delete(1, "exchange", "e", {"if_empty": True}), PreconditionFailed, "deletion of exchanges has no argument"),
        (deletion_of, Delete(1, "queue", "q", {"x-a": 1}), PreconditionFailed, "x-a"),
    ],
)
def test_arguments_that_can_not_be_are_refused_in_words(call, command, error, words):
    with pytest.raises(error, match=words):
        call(command)


def test_bindings_and_deletions():
    assert binding_of(Bind(1, "q", "e", "k", {"x-match": "any"})) == Binding("e", "q", "k", arguments={"x-match": "any"})
    assert deletion_of(Delete(1, "queue", "q", {"if_empty": True})) == {"if_empty": True}


def test_results_say_what_the_table_says():
    assert result_of(Declare(1, "queue", ""), Outcome(1, result=QueueInfo("amq.gen-1", 2, 3))) == {
        "name": "amq.gen-1",
        "messages": 2,
        "consumers": 3,
    }
    assert result_of(Declare(1, "exchange", "e"), Outcome(1)) == {"name": "e"}
    assert result_of(Purge(1, "q"), Outcome(1, result=0)) == {"messages": 0}
    assert result_of(Bind(1, "q", "e", "k"), Outcome(1)) is None
