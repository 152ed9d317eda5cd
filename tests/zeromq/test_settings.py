"""Are the settings as they are documented, and is what is not built yet refused in words?"""

import pytest

from gateway.api import ConfigError
from gateway.complaint import Origin, validated
from gateway_zeromq.plugin import ZeroMqFrontEnd, tidegate_frontends
from gateway_zeromq.settings import ZeroMqSettings

BIND = "tcp://127.0.0.1:5551"


def read(*endpoints):
    return validated(ZeroMqSettings, {"endpoint": list(endpoints)}, Origin("my.toml"), ("frontend", "zeromq"))


def refusal(*endpoints):
    with pytest.raises(ConfigError) as error:
        read(*endpoints)
    return error.value.text


def test_without_a_word_there_are_pull_push_xpub_and_router_on_this_machine():
    named = dict(ZeroMqSettings().named())
    assert {name: (endpoint.socket, endpoint.bind) for name, endpoint in named.items()} == {
        "pull": ("PULL", ["tcp://127.0.0.1:5557"]),
        "push": ("PUSH", ["tcp://127.0.0.1:5558"]),
        "xpub": ("XPUB", ["tcp://127.0.0.1:5559"]),
        "router": ("ROUTER", ["tcp://127.0.0.1:5570"]),
    }
    assert (named["pull"].exchange, named["pull"].frames) == ("amq.topic", "key,body")
    assert (named["push"].queue, named["push"].bindings) == ("zeromq.push", [{"exchange": "amq.topic", "key": "zeromq.push.#"}])
    assert (named["xpub"].exchange, named["xpub"].frames, named["xpub"].sends_last_values) == ("amq.topic", "key,body", True)
    assert ZeroMqFrontEnd().addresses(ZeroMqSettings()) == [f"tcp://127.0.0.1:{port}" for port in (5557, 5558, 5559, 5570)]


def test_the_documented_examples_are_understood():
    settings = read(
        {"name": "jobs-in", "socket": "PULL", "bind": [BIND], "exchange": "jobs", "routing_key": "new", "frames": "body",
         "rcvhwm": 1000, "max_message_bytes": 1048576, "max_frames": 16},
        {"name": "jobs-out", "socket": "PUSH", "bind": BIND, "queue": "jobs", "frames": "body", "ack": "handover",
         "bindings": [{"exchange": "amq.topic", "key": "sensors.#"}]},
        {"name": "events", "socket": "XPUB", "bind": [BIND], "exchange": "amq.topic", "frames": "key,body"},
        {"name": "services", "socket": "ROUTER", "bind": [BIND], "protocols": ["tgp/1"], "security": "null",
         "heartbeat_ms": 5000, "session_ttl_s": 300, "max_credit": 1000},
    )  # fmt: skip
    assert [endpoint.bind for endpoint in settings.endpoint] == [[BIND]] * 4


def test_bind_and_connect_may_both_be_given_as_one_address_or_more():
    (endpoint,) = read({"socket": "PUSH", "bind": "ipc:///tmp/x", "connect": [BIND, "tcp://[::1]:5"]}).endpoint
    assert (endpoint.bind, endpoint.connect) == (["ipc:///tmp/x"], [BIND, "tcp://[::1]:5"])


def test_endpoints_without_a_name_are_called_by_kind_and_number():
    settings = read({"socket": "PULL", "bind": BIND}, {"socket": "PUSH", "connect": BIND, "name": "out"})
    assert [name for name, _ in settings.named()] == ["pull-1", "out"]


@pytest.mark.parametrize(("socket", "instead"), [("REQ", "DEALER"), ("PAIR", "PULL and PUSH"), ("STREAM", "TCP connection")])
def test_sockets_that_make_no_sense_are_refused_and_it_is_said_why(socket, instead):
    text = refusal({"name": "events", "socket": socket, "bind": BIND})
    assert "my.toml: frontend.zeromq.endpoint[0]" in text
    assert f"endpoint 'events': socket = \"{socket}\" makes no sense here: " in text
    assert instead in text


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ({"bind": BIND}, "socket is missing: PULL, PUSH, "),
        ({"socket": "XPUB", "bind": BIND, "exchange": "amq.fanout"}, "no topic exchange: give keys"),
        ({"socket": "XPUB", "bind": BIND, "queue": "q", "exchange": "e"}, "has both queue and exchange"),
        ({"socket": "PUB", "bind": BIND, "queue": "q", "keys": ["k"]}, "has both queue and keys"),
        ({"socket": "PUB", "bind": BIND, "bindings": [{"exchange": "e"}]}, "has bindings, but no queue"),
        ({"socket": "PUB", "bind": BIND, "queue": "q", "queue_arguments": {"x-magic": 1}}, "'x-magic' is not supported"),
        ({"socket": "PUB", "bind": BIND, "last_values": True}, "endpoint[0].last_values is no setting"),
        ({"socket": "XPUB", "bind": BIND, "last_values": True, "frames": "raw"}, "last_values, which need an exchange, and frames"),
        ({"socket": "SUB", "bind": BIND, "subscriptions": []}, "subscriptions"),
        ({"socket": "DEALER", "bind": BIND}, "frontend.zeromq.endpoint[0].queue is missing"),
        ({"socket": "DEALER", "bind": BIND, "queue": "q", "queue_arguments": {"x-magic": 1}}, "'x-magic' is not supported"),
        ({"socket": "REP", "bind": BIND, "frames": "key,body", "routing_key": "k"}, "has both routing_key and frames"),
        ({"socket": "XSUB", "bind": BIND, "routing_key": "k"}, "has both routing_key and frames"),
        ({"socket": "PUSHY", "bind": BIND}, "socket = 'PUSHY' is no kind of socket"),
        ({"socket": "pull", "bind": BIND}, "socket = 'pull' is no kind of socket; did you mean \"PULL\"?"),
        ({"socket": "PULL"}, "has no address: give bind or connect"),
        ({"socket": "PULL", "bind": BIND, "queue": "q"}, "frontend.zeromq.endpoint[0].queue is no setting"),
        ({"socket": "PUSH", "bind": BIND, "frame": "body"}, "did you mean frontend.zeromq.endpoint[0].frames?"),
        ({"socket": "PULL", "bind": "udp://127.0.0.1:5"}, "must be an address: tcp://HOST:PORT"),
        ({"socket": "PULL", "bind": "127.0.0.1:5"}, "must be an address"),
        ({"socket": "PULL", "bind": "tcp://127.0.0.1"}, "must be an address"),
        ({"socket": "PULL", "bind": "tcp://127.0.0.1:65536"}, "must be an address"),
        ({"socket": "PULL", "bind": "inproc://"}, "must be an address"),
        ({"socket": "PULL", "bind": [5]}, "frontend.zeromq.endpoint[0].bind[0] = 5"),
        ({"socket": "PULL", "bind": BIND, "frames": "body,key"}, "'key,body'"),
        ({"socket": "PULL", "bind": BIND, "frames": "key,body", "routing_key": "k"}, "has both routing_key and frames"),
        ({"socket": "PUSH", "bind": BIND, "bindings": [{"exchange": "e", "keys": "k"}]}, "bindings[0].keys"),
        ({"socket": "PUSH", "bind": BIND, "bindings": [{"key": "k"}]}, "bindings[0].exchange is missing"),
        (
            {"socket": "PUSH", "bind": BIND, "queue_arguments": {"x-magic": 1}},
            "'x-magic' is not supported; supported: x-consumer-timeout",
        ),
        (
            {"socket": "PUSH", "bind": BIND, "queue_arguments": {"x-max-length": "5"}},
            "an integer from 0 to 4611686018427387904 is allowed",
        ),
        ({"socket": "PUSH", "bind": BIND, "ack": "never"}, "frontend.zeromq.endpoint[0].ack = 'never'"),
        ({"socket": "ROUTER", "bind": BIND, "heartbeat_ms": 5}, "heartbeat_ms = 5"),
        ({"socket": "ROUTER", "bind": BIND, "max_credit": "1"}, "max_credit = '1': must be a whole number"),
        ({"socket": "ROUTER", "bind": BIND, "key_syntax": "mqtt"}, "keys in TGP/1 are always written as in AMQP"),
        (5, "must be a table"),
    ],
)
def test_mistakes_name_file_key_and_what_is_allowed(endpoint, words):
    text = refusal(endpoint)
    assert text.startswith("my.toml: frontend.zeromq.endpoint[0]")
    assert words in text


@pytest.mark.parametrize("side", ["bind", "connect"])
def test_inproc_addresses_are_for_programs_that_have_the_broker_inside(side):
    settings = read({"socket": "PULL", side: "inproc://x"})
    with pytest.raises(ConfigError, match=r"inproc://x would be heard by nobody: .* Use ipc://PATH"):
        ZeroMqFrontEnd().addresses(settings)
    assert ZeroMqFrontEnd(object()).addresses(settings) == (["inproc://x"] if side == "bind" else [])


def test_a_table_where_a_list_of_them_belongs_is_refused_with_what_to_write():
    with pytest.raises(ConfigError) as error:
        validated(ZeroMqSettings, {"endpoint": {"socket": "PULL", "bind": BIND}}, Origin("my.toml"), ("frontend", "zeromq"))
    assert "[[frontend.zeromq.endpoint]]" in error.value.text


@pytest.mark.parametrize("name", ["a\x1fb", "a\nb", "\0", "\x7f"])
def test_a_name_is_text_that_can_be_printed(name):
    assert "must be printable" in refusal({"name": name, "socket": "PULL", "bind": BIND})


def test_two_endpoints_of_one_name_are_refused():
    assert "two endpoints have the name 'x'" in refusal(
        {"name": "x", "socket": "PULL", "bind": BIND}, {"name": "x", "socket": "PUSH", "bind": BIND}
    )


def test_the_plugin_offers_the_front_end():
    (front_end,) = tidegate_frontends()
    assert front_end.name == "zeromq"
    assert front_end.settings_model is ZeroMqSettings


def test_hints_can_be_pasted():
    ports = [("PULL", 5557), ("PUSH", 5558), ("PUSH", 1), ("XPUB", 5559), ("ROUTER", 5570)]
    lines = [f"{kind} tcp://127.0.0.1:{port}" for kind, port in ports]
    hints = ZeroMqFrontEnd().hints(lines)
    assert [[port for port in ("5557", "5558", "5559", "5570") if port in hint] for hint in hints] == [
        ["5558"],
        ["5557"],
        ["5559"],
        ["5570"],
    ]
    assert "send_multipart" in hints[1]
    assert hints[1].endswith('destroy()"'), "a process that ends at once takes with it what has not left"
    for hint in hints:
        compile(hint.removeprefix('python -c "').removesuffix('"'), "hint", "exec")
    assert ZeroMqFrontEnd().hints(["PULL tcp://127.0.0.1:9"]) == [], "only of the usual one it is known which frames it wants"
    assert ZeroMqFrontEnd().hints([]) == []
