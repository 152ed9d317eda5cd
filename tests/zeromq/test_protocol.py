"""Does one TGP peer get the answers of the table, and nothing that it may not have?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api import NotFound
from gateway_zeromq.tgp.commands import Bind, Declare, Delete, Get, HelloOptions, Publish, Purge, Unbind
from gateway_zeromq.tgp.protocol import State
from gateway_zeromq.tgp.replies import Greeting
from tests.zeromq.sinks import Consumer, Conversation, Delivery, pack

REQUESTS = [
    ([13, 4, "queue", "jobs"], Declare(4, "queue", "jobs")),
    ([14, 4, "queue", "jobs"], Delete(4, "queue", "jobs")),
    ([15, 4, "jobs", "amq.topic", "#"], Bind(4, "jobs", "amq.topic", "#")),
    ([16, 4, "jobs", "amq.topic", "#"], Unbind(4, "jobs", "amq.topic", "#")),
    ([17, 4, "jobs"], Purge(4, "jobs")),
]


# -- HELLO


def test_hello_is_answered_with_ready():
    talk = Conversation(heartbeat_ms=700, max_body_bytes=99)
    assert talk.ready == [
        2,
        1,
        1,
        {
            "session": "token",
            "resumed": False,
            "heartbeat_ms": 700,
            "max_body_bytes": 99,
            "caps": ["batch", "credit_bytes", "extend", "nack_delay", "refused", "schedule"],
            "user": "anonymous",
            "last_seq": 0,
        },
    ]


def test_hello_hands_on_what_the_client_says_of_itself():
    talk = Conversation(greet=False)
    talk.hello(client="billing", session="old")
    assert talk.asked() == [("greet", HelloOptions("billing", [], "old"))]


def test_ready_tells_a_resumed_session_where_to_go_on_and_what_was_refused():
    talk = Conversation(greet=False)
    talk.sink.greeting = Greeting("token", True, 9, [(3, 4, 506)], "anonymous")
    talk.hello()
    assert talk.ready[3]["resumed"] is True
    assert talk.ready[3]["last_seq"] == 9
    assert talk.ready[3]["refused"] == [[3, 4, 506]]


@pytest.mark.parametrize(("wish", "granted"), [(None, 5000), (0, 5000), (1, 50), (300, 300), (10**9, 3_600_000)])
def test_a_client_may_wish_for_another_heartbeat_within_reason(wish, granted):
    talk = Conversation(greet=False)
    talk.hello(heartbeat_ms=wish)
    assert talk.ready[3]["heartbeat_ms"] == granted
    assert talk.peer.heartbeat_s == granted / 1000


@pytest.mark.parametrize(
    "fields", [[3, 1, "e", "k"], [6, 1, "q", "t", 1], [9, "t", 1], [12, 7, "q"], [22], [7, 1, "t"], [11, "t", 1]]
)
def test_whatever_comes_before_hello_is_answered_with_401_and_not_done(fields):
    talk = Conversation(greet=False)
    talk.say(*fields)
    r = fields[1] if fields[0] in (6, 7, 12) else None
    assert talk.heard() == [[21, r, 401, "HELLO first", fields[0]]]
    assert talk.asked() == []
    talk.hello()


@pytest.mark.parametrize("fields", [[23], [24, 200, "done"]])
def test_pong_and_bye_before_hello_need_no_answer(fields):
    talk = Conversation(greet=False)
    talk.say(*fields)
    assert talk.heard() == []
    assert talk.peer.state is State.GREETING


def test_a_version_that_is_not_spoken_is_refused():
    talk = Conversation(greet=False)
    talk.say(1, 3, 0)
    assert talk.heard() == [[21, 3, 530, "this server speaks version 1", 1]]
    assert talk.peer.state is State.GREETING
    talk.say(1, 3, 7)
    assert talk.heard()[0][:3] == [2, 3, 1]


def test_who_is_not_let_in_is_told_and_nothing_more():
    talk = Conversation(greet=False)
    talk.sink.refuse_greeting = True
    talk.say(1, 3, 1)
    assert talk.heard() == [[21, 3, 403, "not you", 1]]
    assert talk.peer.state is State.GREETING
    assert talk.sink.endings == 0


def test_a_second_hello_ends_what_was_and_begins_anew():
    talk = Conversation()
    talk.consumer()
    talk.say(3, 9, "e", "k")
    talk.hello()
    assert talk.sink.endings == 1
    assert talk.peer.epoch == 2
    talk.say(11, "c1", 1)
    assert talk.heard()[0][2] == 404, "its consumers are gone"
    talk.say(3, 1, "e", "k")
    assert talk.heard() == [], "numbers may begin anew: the session judges them"


# -- publishing


def test_a_publish_goes_to_the_sink_with_its_body():
    talk = Conversation()
    talk.say(3, 1, "amq.topic", "plant.3", {"type": "t"}, 1, body=b"21.5")
    talk.say(3, 2, "amq.topic", "plant.3")
    (_, first, body), (_, second, nothing) = talk.asked()[-2:]
    assert (first.seq, first.exchange, first.routing_key, first.props.type, first.flags) == (1, "amq.topic", "plant.3", "t", 1)
    assert second == Publish(2, "amq.topic", "plant.3")
    assert (body, nothing) == (b"21.5", b"")
    assert talk.heard() == []


def test_sequence_numbers_may_have_gaps_but_not_repeat_on_one_connection():
    talk = Conversation()
    for seq in (1, 5, 5, 3, 6):
        talk.say(3, seq, "e", "k")
    assert [command.seq for name, command, *_ in talk.asked() if name == "publish"] == [1, 5, 6]
    assert [(said[2], said[4]) for said in talk.heard()] == [(503, 3), (503, 3)]
    assert len(talk.sink.violations) == 2
    assert talk.peer.state is State.READY


def test_zero_is_a_number_only_for_what_wants_no_confirm():
    talk = Conversation()
    talk.say(3, 0, "e", "k", None, 2)
    talk.say(3, 0, "e", "k", None, 2)
    talk.say(3, 0, "e", "k")
    assert len([item for item in talk.asked() if item[0] == "publish"]) == 2
    assert talk.heard()[0][2] == 503


def test_a_body_too_large_is_refused_and_ends_the_connection():
    talk = Conversation(max_body_bytes=10)
    talk.say(3, 1, "e", "k", body=b"x" * 10)
    talk.say(3, 2, "e", "k", body=b"x" * 11)
    text = "a message of 11 bytes; at most 10 are allowed"
    assert talk.heard() == [[4, 2, False, 311], [21, None, 311, text, None], [24, 311, text]]
    assert len([item for item in talk.asked() if item[0] == "publish"]) == 1
    assert (talk.peer.state, talk.sink.endings, talk.sink.violations) == (State.CLOSED, 1, [text])


def test_confirms_and_returns_are_said_as_the_table_has_them():
    talk = Conversation()
    talk.peer.returned(4, "e", "k", b"body")
    talk.peer.confirm(4, 0, multiple=True)
    talk.peer.confirm(5, 506)
    assert talk.heard() == [([5, 4, 312, "e", "k"], b"body"), [4, 4, True, 0], [4, 5, False, 506]]


# -- consuming


def test_consume_is_answered_when_it_has_begun():
    talk = Conversation()
    talk.say(6, 5, "jobs", "c1", 50, {"no_ack": True, "exclusive": True})
    ((_, question, subscription, command, credit),) = talk.asked()[1:]
    assert (question.r, command.queue, command.options.exclusive, credit, subscription.no_ack) == (5, "jobs", True, 50, True)
    assert talk.heard() == []
    talk.peer.deliveries.consuming(question, subscription, object())
    assert talk.heard() == [[20, 5, None]]


def test_a_consumer_that_can_not_begin_is_refused_and_its_tag_is_free_again():
    talk = Conversation()
    talk.say(6, 5, "jobs", "c1", 50)
    ((_, question, subscription, _, _),) = talk.asked()[1:]
    talk.peer.deliveries.not_consuming(question, subscription, 404, "no queue")
    assert talk.heard() == [[21, 5, 404, "no queue", 6]]
    talk.consumer("c1")


@pytest.mark.parametrize(("tag", "options", "code"), [("c1", None, 503), ("", None, 503), ("c3", None, 506)])
def test_consumers_that_can_not_be_are_refused_at_once(tag, options, code):
    talk = Conversation(max_consumers=2)
    talk.consumer("c1")
    if tag == "c3":
        talk.consumer("c2")
    talk.say(6, 8, "jobs", tag, 1, options)
    (said,) = talk.heard()
    assert (said[0], said[1], said[2], said[4]) == (21, 8, code, 6)
    assert talk.asked() == []


def test_deliveries_are_numbered_over_all_consumers_of_the_connection():
    talk = Conversation()
    first, _ = talk.consumer("c1")
    second, _ = talk.consumer(7)
    first.deliver(Delivery(b"1", key="a"))
    second.deliver(Delivery(b"2", redelivered=True, props={"type": "t"}))
    assert talk.heard() == [
        ([8, "c1", 1, False, "amq.topic", "a", None], b"1"),
        ([8, 7, 2, True, "amq.topic", "plant.3", {"type": "t"}], b"2"),
    ]


def test_what_expires_and_says_nothing_else_is_delivered_with_the_time_that_is_left():
    talk = Conversation()
    subscription, _ = talk.consumer("c1")
    delivery = Delivery(b"1", key="a")
    delivery.message.expires_at_ms = 700
    subscription.deliver(delivery)
    assert talk.heard() == [([8, "c1", 1, False, "amq.topic", "a", {"expiration_ms": 700}], b"1")]


def test_ack_settles_and_gives_the_credit_back():
    talk = Conversation()
    subscription, consumer = talk.consumer(credit=2)
    deliveries = [Delivery(b"%d" % n) for n in range(2)]
    for delivery in deliveries:
        subscription.deliver(delivery)
    talk.heard()
    talk.say(9, "c1", 2)
    assert talk.asked() == [("ack", deliveries[1])]
    assert consumer.granted == [1]
    talk.say(9, "c1", 2)
    assert talk.heard() == [[21, None, 404, "no delivery 2 is held by consumer 'c1'", 9]]
    assert (talk.asked(), consumer.granted) == ([], [1])


def test_ack_of_multiple_settles_what_that_consumer_holds_up_to_there():
    talk = Conversation()
    subscription, consumer = talk.consumer("c1")
    other, _ = talk.consumer("c2")
    mine = [Delivery(b"%d" % n) for n in range(3)]
    subscription.deliver(mine[0])
    other.deliver(Delivery())
    subscription.deliver(mine[1])
    subscription.deliver(mine[2])
    talk.say(9, "c1", 3, True)
    assert talk.asked() == [("ack", mine[0]), ("ack", mine[1])]
    assert consumer.granted == [2]
    talk.say(9, "c1", 0, True)
    assert talk.asked() == [("ack", mine[2])], "0: all there are"


@pytest.mark.parametrize("requeue", [True, False])
def test_nack_gives_back_and_the_last_goes_first_to_its_old_place(requeue):
    talk = Conversation()
    subscription, consumer = talk.consumer()
    deliveries = [Delivery(b"%d" % n) for n in range(3)]
    for delivery in deliveries:
        subscription.deliver(delivery)
    talk.say(10, "c1", 3, True, requeue)
    assert talk.asked() == [("nack", delivery, requeue) for delivery in reversed(deliveries)]
    assert consumer.granted == [3]
    talk.say(10, "c1", 3, False, requeue)
    assert talk.heard()[-1][:3] == [21, None, 404]


def test_credit_is_added_within_the_limit():
    talk = Conversation(max_credit=10)
    subscription, consumer = talk.consumer(credit=50)
    assert subscription.left == 10
    talk.say(11, "c1", 5)
    assert consumer.granted == []
    for _ in range(4):
        subscription.deliver(Delivery())
    talk.say(11, "c1", 50)
    assert consumer.granted == [], "what is unsettled counts"
    talk.say(9, "c1", 4, True)
    assert consumer.granted == [4]
    talk.say(11, "nobody", 1)
    assert talk.heard()[-1][2:] == [404, "no consumer 'nobody'", 11]


def test_no_ack_deliveries_need_credit_and_no_settlement():
    talk = Conversation(max_credit=3)
    subscription, consumer = talk.consumer(credit=3, no_ack=True)
    for _ in range(3):
        subscription.deliver(Delivery())
    talk.say(11, "c1", 2)
    assert consumer.granted == [2]
    talk.say(9, "c1", 1)
    assert talk.heard()[-1][2] == 404


def test_credit_given_before_the_consumer_has_begun_is_not_lost():
    talk = Conversation()
    talk.say(6, 5, "jobs", "c1", 1)
    ((_, question, subscription, _, _),) = talk.asked()[1:]
    subscription.deliver(Delivery())
    talk.say(9, "c1", 1)
    talk.say(11, "c1", 4)
    consumer = Consumer()
    talk.peer.deliveries.consuming(question, subscription, consumer)
    assert consumer.granted == [5]


def test_bytes_of_unsettled_bodies_are_bounded_if_the_client_says_so():
    talk = Conversation(greet=False)
    talk.hello(credit_bytes=100)
    subscription, _ = talk.consumer()
    for size in (60, 60, 30, 500):
        subscription.deliver(Delivery(b"x" * size))
    assert [len(body) for _, body in talk.heard()] == [60], "the next would be too much, and order is kept"
    talk.say(9, "c1", 1)
    assert [len(body) for _, body in talk.heard()] == [60, 30]
    talk.say(9, "c1", 3, True)
    assert [len(body) for _, body in talk.heard()] == [500], "one is always sent"


def test_what_a_deleted_queue_had_delivered_takes_no_room_any_more():
    talk = Conversation(max_credit_bytes=100)
    doomed, _ = talk.consumer("doomed")
    other, _ = talk.consumer("other")
    for subscription in (doomed, other):
        subscription.deliver(Delivery(b"x" * 60))
    assert len(talk.heard()) == 1
    doomed.cancelled(NotFound("queue deleted"))
    said, cancel = talk.heard()
    assert (said[0][1], cancel) == ("other", [7, 0, "doomed"])


@pytest.mark.parametrize("wish", [None, 0, 1000])
def test_the_server_has_a_bound_of_its_own_for_unsettled_bytes(wish):
    talk = Conversation(greet=False, max_credit_bytes=100)
    talk.hello(credit_bytes=wish)
    subscription, _ = talk.consumer()
    for _ in range(3):
        subscription.deliver(Delivery(b"x" * 60))
    assert len(talk.heard()) == 1
    free, _ = talk.consumer("free", no_ack=True)
    free.deliver(Delivery(b"x" * 60))
    assert len(talk.heard()) == 1, "what is settled when it is sent does not count"


def test_more_than_the_credit_can_not_be_got_without_settling():
    talk = Conversation(max_credit=2)
    for n in range(2):
        talk.say(12, n, "jobs")
        talk.peer.deliveries.got(talk.asked()[-1][1], Delivery(), no_ack=False)
    talk.heard()
    talk.say(12, 7, "jobs")
    assert talk.heard() == [[21, 7, 506, "at most 2 messages may be unsettled", 12]]
    talk.say(12, 8, "jobs", True)
    assert talk.asked()[-1][0] == "get"
    talk.say(9, "", 1)
    talk.say(12, 9, "jobs")
    assert talk.asked()[-1][1].r == 9


def test_cancel_ends_the_consumer_and_what_it_holds_can_still_be_settled():
    talk = Conversation(greet=False)
    talk.hello(credit_bytes=1)
    subscription, consumer = talk.consumer()
    sent, held = Delivery(), Delivery()
    subscription.deliver(sent)
    subscription.deliver(held)
    talk.heard()
    talk.say(7, 9, "c1")
    assert talk.asked() == [("cancel", consumer), ("nack", held, True)]
    assert talk.heard() == [[20, 9, None]]
    talk.say(7, 10, "c1")
    assert talk.heard() == [[21, 10, 404, "no consumer 'c1'", 7]]
    talk.say(9, "c1", 1)
    assert talk.asked() == [("ack", sent)]
    assert consumer.granted == []
    talk.consumer("c1")


def test_a_consumer_that_is_cancelled_before_it_has_begun_is_ended_when_it_has():
    talk = Conversation()
    talk.say(6, 5, "jobs", "c1", 1)
    ((_, question, subscription, _, _),) = talk.asked()[1:]
    talk.say(7, 6, "c1")
    assert talk.asked() == []
    consumer = object()
    talk.peer.deliveries.consuming(question, subscription, consumer)
    assert talk.asked() == [("cancel", consumer)]


def test_a_consumer_whose_queue_goes_is_told():
    talk = Conversation()
    subscription, _ = talk.consumer()
    subscription.cancelled(NotFound("queue deleted"))
    subscription.cancelled(NotFound("queue deleted"))
    assert talk.heard() == [[7, 0, "c1"]]


def test_what_needs_no_acknowledgement_is_sent_with_number_zero():
    talk = Conversation()
    subscription, _ = talk.consumer(credit=0)
    subscription.deliver_transient(Delivery(b"t").message, None)
    assert talk.heard() == [([8, "c1", 0, False, "amq.topic", "plant.3", None], b"t")]


# -- requests


def test_get_is_answered_with_got_or_empty_and_settled_under_the_empty_tag():
    talk = Conversation()
    talk.say(12, 4, "jobs", False)
    ((_, question, command),) = talk.asked()[1:]
    assert command == Get(4, "jobs")
    delivery = Delivery(b"b", props={"type": "t"})
    talk.peer.deliveries.got(question, delivery, no_ack=False)
    talk.peer.deliveries.got(question, None, no_ack=False)
    assert talk.heard() == [([19, 4, 1, False, "amq.topic", "plant.3", {"type": "t"}], b"b"), [18, 4]]
    talk.say(9, "", 1)
    assert talk.asked() == [("ack", delivery)]
    talk.peer.deliveries.got(question, delivery, no_ack=False)
    talk.say(10, None, 2, False, True)
    assert talk.asked() == [("nack", delivery, True)]
    talk.heard()
    talk.peer.deliveries.got(question, delivery, no_ack=True)
    talk.say(9, "", 3)
    assert talk.heard()[-1][2] == 404


@pytest.mark.parametrize(("fields", "command"), REQUESTS)
def test_requests_are_handed_on_and_answered_with_ok_or_error(fields, command):
    talk = Conversation()
    talk.say(*fields)
    ((_, question, handed),) = talk.asked()[1:]
    assert handed == command
    talk.peer.ok(question, {"name": "jobs"})
    talk.peer.error(question, 406, "in use")
    assert talk.heard() == [[20, 4, {"name": "jobs"}], [21, 4, 406, "in use", fields[0]]]


def test_ping_is_answered_with_its_token():
    talk = Conversation()
    talk.say(22, {"any": [1]})
    talk.say(22)
    assert talk.heard() == [[23, {"any": [1]}], [23, None]]


# -- forms


def test_answers_come_in_the_form_of_the_question_and_the_rest_in_that_of_hello():
    talk = Conversation(as_json=True)
    assert talk.ready["cmd"] == "READY"
    assert talk.ready["options"]["last_seq"] == 0
    talk.say_json("PING", token=5)
    talk.say(22, 6)
    assert talk.heard() == [{"cmd": "PONG", "token": 5}, [23, 6]]
    talk.say(6, 5, "jobs", "c1", 1)
    ((_, question, subscription, _, _),) = talk.asked()[1:]
    subscription.deliver(Delivery(b"\x00", props={"correlation_id": b"\xff", "headers": {"n": 1}}))
    talk.peer.deliveries.consuming(question, subscription, object())
    talk.peer.confirm(1, 0)
    (deliver, body), ok, confirm = talk.heard()
    assert (deliver["cmd"], deliver["tag"], body) == ("DELIVER", "c1", b"\x00")
    assert deliver["props"] == {"headers": {"n": 1}, "correlation_id": "base64:/w=="}
    assert ok == [20, 5, None]
    assert confirm == {"cmd": "CONFIRM", "seq": 1, "multiple": False, "status": 0}


# -- REQ clients


def test_a_req_client_gets_exactly_one_answer_to_everything():
    talk = Conversation(enveloped=True)
    talk.say(12, 1, "jobs")
    talk.peer.deliveries.got(talk.asked()[-1][1], Delivery(), no_ack=False)
    assert len(talk.heard()) == 1
    for fields in ([9, "", 1], [9, "", 1], [3, 1, "e", "k", None, 2], [11, "c", 1], [22]):
        talk.say(*fields)
        assert len(talk.heard()) == 1, fields
    talk.say(6, 1, "jobs", "c1", 5)
    assert talk.heard()[0][:3] == [21, 1, 540]
    talk.now = 100.0
    assert talk.peer.tick(100.0)
    assert talk.heard() == [], "a PING would be taken for an answer"
    talk.say(24)
    assert talk.heard() == [[24, 200, ""]]
    talk = Conversation(enveloped=True)
    talk.say(99)
    assert [said[0] for said in talk.heard()] == [21]


def test_a_req_client_is_answered_in_the_form_of_its_question_where_the_table_has_no_answer():
    talk = Conversation(enveloped=True)
    talk.peer.receive(b'{"cmd":"PUBLISH","seq":0,"exchange":"e","routing_key":"k","flags":2}', b"x", 0.0)
    talk.peer.receive(b'{"cmd":"BYE"}', None, 0.0)
    assert [said["cmd"] for said in talk.heard()] == ["OK", "BYE"]


# -- violations, death, goodbye


@pytest.mark.parametrize("header", [b"", b"\xc1", pack([99]), pack([2, 1]), pack([3]), b"\x91" * 70_000])
def test_a_header_that_is_none_is_answered_and_ends_that_peer(header):
    talk = Conversation()
    talk.peer.receive(header, None, 0.0)
    error, bye = talk.heard()
    assert (error[:3], error[4]) == ([21, None, 501], None)
    assert bye == [24, 501, error[3]]
    assert (talk.peer.state, talk.sink.endings, len(talk.sink.violations)) == (State.CLOSED, 1, 1)
    talk.say(22)
    assert talk.heard() == [], "it is not heard any more"


def test_a_json_header_that_is_none_is_answered_in_json():
    talk = Conversation()
    talk.peer.receive(b'{"cmd":"GET","r":1}', None, 0.0)
    error, bye = talk.heard()
    assert error == {"cmd": "ERROR", "r": None, "code": 501, "text": "Object missing required field `queue`", "ref_cmd": None}
    assert bye[:2] == [24, 501]


def test_a_header_that_is_none_from_a_stranger_is_answered_once():
    talk = Conversation(greet=False)
    talk.peer.receive(b"GET / HTTP/1.1", None, 0.0)
    assert [said[0] for said in talk.heard()] == [21]
    assert talk.sink.endings == 0


def test_a_body_where_none_belongs_is_a_violation():
    talk = Conversation()
    talk.say(22, body=b"")
    assert [said[:3] for said in talk.heard()] == [[21, None, 501], [24, 501, "PING has a body"]]


def test_silence_is_asked_about_after_one_heartbeat_and_is_death_after_three():
    talk = Conversation(heartbeat_ms=1000)
    assert talk.peer.tick(0.9)
    assert talk.heard() == []
    assert talk.peer.tick(1.0)
    assert talk.peer.tick(1.5)
    assert talk.heard() == [[22, None]], "asked once"
    talk.now = 2.0
    talk.say(23)
    assert talk.peer.tick(2.9)
    assert talk.peer.tick(3.1)
    assert talk.heard() == [[22, None]]
    assert talk.peer.tick(5.0)
    assert not talk.peer.tick(5.2), "two heartbeats after it was asked"
    assert (talk.peer.state, talk.sink.endings) == (State.CLOSED, 1)
    assert talk.heard() == []


def test_bye_ends_and_needs_no_answer():
    talk = Conversation()
    talk.say(24, 200, "done")
    assert talk.heard() == []
    assert (talk.peer.state, talk.sink.endings) == (State.CLOSED, 1)


def test_the_server_says_goodbye_with_a_reason():
    talk = Conversation()
    talk.peer.goodbye(320, "the broker stops")
    assert talk.heard() == [[24, 320, "the broker stops"]]
    talk.peer.end()
    assert talk.sink.endings == 1


def test_whoever_sends_is_told_once_until_it_has_sent():
    talk = Conversation()
    touched = talk.sink.touched
    talk.say(22)
    talk.say(22)
    assert talk.sink.touched == touched + 1
    assert talk.peer.out_bytes == sum(len(header) for header, _ in talk.peer.out)
    talk.heard()
    talk.say(22)
    assert talk.sink.touched == touched + 2


commands = st.sampled_from(
    [
        [1, 1, 1],
        [3, 1, "e", "k"],
        [3, 2, "e", "k", None, 2],
        [6, 1, "q", "c1", 2],
        [6, 2, "q", "c2", 0],
        [7, 3, "c1"],
        [9, "c1", 1],
        [9, "c2", 0, True],
        [10, "c1", 0, True, True],
        [11, "c1", 3],
        [12, 4, "q"],
        [13, 5, "queue", "q"],
        [17, 6, "q"],
        [22],
        [23],
        [24],
        [99],
        "deliver",
        "begin",
        "gone",
    ]
)


class Engine:
    """Delivers as much as credit allows, and knows what is held."""

    def __init__(self, talk):
        self.talk = talk
        self.began = []
        self.held = {}

    def hear(self):
        for item in self.talk.asked():
            if item[0] == "consume":
                self.began.append((item[1], item[2]))
            elif item[0] in ("ack", "nack"):
                del self.held[id(item[1])]

    def begin(self):
        for question, subscription in self.began:
            if subscription.consumer is None and subscription.active:
                self.talk.peer.deliveries.consuming(question, subscription, Consumer())

    def deliver(self):
        for _, subscription in self.began:
            while subscription.active and subscription.left > 0:
                delivery = Delivery()
                self.held[id(delivery)] = delivery
                subscription.deliver(delivery)

    def gone(self):
        if self.began:
            self.began.pop()[1].cancelled(NotFound("gone"))


@settings(max_examples=200)
@given(st.lists(commands, max_size=40), st.booleans())
def test_whatever_a_peer_says_in_whatever_order_it_never_holds_more_than_its_credit(script, enveloped):
    talk = Conversation(enveloped=enveloped, max_credit=4, max_consumers=2)
    engine = Engine(talk)
    for step in script:
        if isinstance(step, str):
            getattr(engine, step)()
        else:
            talk.say(*step)
        engine.hear()
        for _, subscription in engine.began:
            assert subscription.left + subscription.holding <= 4
            assert len(subscription.unacked) <= subscription.holding
        if talk.peer.state is State.CLOSED:
            return
