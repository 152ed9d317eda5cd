"""Are programs with pika refused what RabbitMQ refuses, in its very words?"""

import pika
import pytest
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from tests.interop.pika_programs import refused


def test_what_is_missing_is_not_found(connect):
    missing = {
        "queue_declare": ((), {"queue": "nowhere", "passive": True}, "no queue 'nowhere' in vhost '/'"),
        "exchange_declare": ((), {"exchange": "nowhere", "passive": True}, "no exchange 'nowhere' in vhost '/'"),
        "queue_bind": (("nowhere", "amq.direct"), {}, "no queue 'nowhere' in vhost '/'"),
        "queue_purge": (("nowhere",), {}, "no queue 'nowhere' in vhost '/'"),
        "basic_consume": (("nowhere", print), {}, "no queue 'nowhere' in vhost '/'"),
        "basic_get": (("nowhere",), {}, "no queue 'nowhere' in vhost '/'"),
        "exchange_bind": (("amq.direct", "nowhere"), {}, "no exchange 'nowhere' in vhost '/'"),
    }
    connection = connect()
    for call, (arguments, options, text) in missing.items():
        method = getattr(connection.channel(), call)
        assert refused(method, *arguments, **options) == (404, f"NOT_FOUND - {text}"), call


def test_a_message_for_an_exchange_that_is_not_there_closes_the_channel(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    assert refused(channel.basic_publish, "nowhere", "key", b"lost") == (404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'")
    unconfirmed = connection.channel()
    unconfirmed.basic_publish("nowhere", "key", b"lost")
    assert refused(unconfirmed.queue_declare, "", exclusive=True)[0] == 404


def test_deleting_what_is_not_there_is_fine(channel):
    assert channel.queue_delete("nowhere").method.message_count == 0
    channel.exchange_delete("nowhere")
    channel.queue_unbind("nowhere", "amq.direct", "key")


def test_names_that_begin_like_the_brokers_are_refused(connection):
    assert refused(connection.channel().queue_declare, "amq.mine") == (
        403,
        "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    )
    assert refused(connection.channel().exchange_declare, "amq.mine") == (
        403,
        "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
    )


def test_an_exclusive_queue_is_locked_for_other_connections(connect, fresh):
    owner = connect().channel()
    name = fresh("locked")
    owner.queue_declare(name, exclusive=True)
    other = connect()
    text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'locked' in vhost '/'. "
    text += "It could be originally declared on another connection or the exclusive property value does not match that of the "
    text += "original declaration."
    for call in ("queue_declare", "queue_delete", "queue_purge", "basic_get"):
        assert refused(getattr(other.channel(), call), name) == (405, text), call
    owner.connection.close()
    assert refused(other.channel().queue_declare, name, passive=True) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


def test_a_queue_of_an_exclusive_consumer_is_in_exclusive_use(connect, fresh):
    name = fresh("exclusive-use")
    channel = connect().channel()
    channel.queue_declare(name)
    channel.basic_consume(name, print, exclusive=True)
    assert refused(connect().channel().basic_consume, name, print) == (
        403,
        "ACCESS_REFUSED - queue 'exclusive-use' in vhost '/' in exclusive use",
    )


def test_a_queue_that_is_in_use_or_not_empty_is_not_deleted_if_that_was_asked(connect, fresh):
    name = fresh("kept")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"one")
    assert refused(connection.channel().queue_delete, name, if_empty=True) == (
        406,
        "PRECONDITION_FAILED - queue 'kept' in vhost '/' not empty",
    )
    channel.basic_consume(name, lambda *_: None)
    assert refused(connection.channel().queue_delete, name, if_unused=True) == (
        406,
        "PRECONDITION_FAILED - queue 'kept' in vhost '/' in use",
    )


def test_an_exchange_in_use_is_not_deleted_if_that_was_asked(connect, fresh):
    fresh(exchange="used")
    channel = connect().channel()
    channel.exchange_declare("used")
    channel.queue_bind(channel.queue_declare("", exclusive=True).method.queue, "used", "key")
    assert refused(connect().channel().exchange_delete, "used", if_unused=True) == (
        406,
        "PRECONDITION_FAILED - exchange 'used' in vhost '/' in use",
    )


def test_nobody_publishes_to_an_internal_exchange(connect, fresh):
    fresh(exchange="inner")
    channel = connect().channel()
    channel.exchange_declare("inner", internal=True)
    channel.confirm_delivery()
    assert refused(channel.basic_publish, "inner", "key", b"body") == (
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'",
    )


def test_an_unknown_type_of_exchange_is_an_invalid_command(connect):
    channel = connect().channel()
    with pytest.raises((ConnectionClosedByBroker, ChannelClosedByBroker)) as closed:
        channel.exchange_declare("strange", "wondrous")
    assert closed.value.reply_code in {406, 503}
    assert "unknown exchange type 'wondrous'" in closed.value.reply_text


def test_every_way_to_settle_an_unknown_tag_is_refused(connection):
    for call in ("basic_ack", "basic_nack", "basic_reject"):
        channel = connection.channel()
        getattr(channel, call)(7)
        told = refused(channel.queue_declare, "", exclusive=True)
        assert told == (406, "PRECONDITION_FAILED - unknown delivery tag 7"), call


def test_a_wrong_password_and_an_unknown_host_are_told_apart(connect):
    with pytest.raises(ProbableAuthenticationError) as refusal:
        connect(credentials=pika.PlainCredentials("nobody", "wrong"))
    assert "403" in str(refusal.value)
    assert "ACCESS_REFUSED" in str(refusal.value)
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker)) as refusal:
        connect(virtual_host="elsewhere")
    assert "530" in repr(refusal.value)
    assert "NOT_ALLOWED - vhost elsewhere not found" in repr(refusal.value)


def test_a_user_id_of_somebody_else_is_refused(channel):
    channel.confirm_delivery()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", name, b"mine", pika.BasicProperties(user_id="guest"))
    assert refused(channel.basic_publish, "", name, b"not mine", pika.BasicProperties(user_id="admin")) == (
        406,
        "PRECONDITION_FAILED - user_id property set to 'admin' but authenticated user was 'guest'",
    )
