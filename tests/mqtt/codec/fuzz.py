"""A coverage-guided fuzzer of the codec: `python -m tests.mqtt.codec.fuzz --seconds 60` (needs atheris).

No bytes raise anything but MalformedPacket, what is decoded can be said again, and both ways through the properties of a PUBLISH
agree. A compiled codec is fuzzed too, but coverage guides only where the Python files are the ones that run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway_mqtt"]):
    from gateway_mqtt.codec.coding import connect_level, decode, encode, topic_filter
    from gateway_mqtt.codec.names import CLIENT, EITHER, PUBLISH, SERVER, MalformedPacket
    from gateway_mqtt.codec.packets import (
        Ack,
        Auth,
        ConnAck,
        Connect,
        Disconnect,
        Publish,
        SubAck,
        Subscribe,
        Subscription,
        UnsubAck,
        Unsubscribe,
        Will,
    )
    from gateway_mqtt.codec.properties import Properties, decode_properties, encode_properties, raw_properties
    from gateway_mqtt.codec.publishing import encode_publish_properties, publish_properties
    from gateway_mqtt.codec.reasons import TEXTS
    from gateway_mqtt.codec.splitter import Splitter

SENDERS = (EITHER, CLIENT, SERVER)
USERS = (("a", "b"), ("a", "c"), ("é", ""))
SAID = Properties(reason_string="why", user=USERS)
MESSAGE = Properties(1, 60, "text/plain", "reply/here", b"\0\1", topic_alias=3, user=USERS)
SEEDS = [
    Connect("client", will=Will("w/t", b"gone", 2, True), user="u", password=b"p"),
    Connect("", False, 0, level=3, bridge=True),
    Connect(
        "client",
        will=Will("w", b"", 1, properties=Properties(1, 2, "c", "r", b"x", will_delay_s=5, user=USERS)),
        level=5,
        properties=Properties(
            session_expiry_s=1, authentication_method="m", authentication_data=b"d", request_problem_information=False,
            request_response_information=True, receive_maximum=9, topic_alias_maximum=8, maximum_packet_size=128, user=USERS,
        ),
    ),
    ConnAck(True, 0),
    ConnAck(False, 0x87, Properties(
        session_expiry_s=1, assigned_client_id="x", server_keep_alive_s=7, authentication_method="m", authentication_data=b"d",
        response_information="i", server_reference="s", reason_string="r", receive_maximum=2, topic_alias_maximum=3, maximum_qos=1,
        retain_available=True, user=USERS, maximum_packet_size=99, wildcard_available=False, subscription_ids_available=True,
        shared_available=True,
    )),
    Publish("a/b", b"body"),
    Publish("a/b", b"body", 2, True, True, 77, MESSAGE),
    Publish("", b"", 1, packet_id=1, properties=Properties(topic_alias=1, subscription_ids=(1, 128, 16_384))),
    *(Ack(kind, 5, code, SAID) for kind, code in ((4, 0x10), (5, 0x97), (6, 0x92), (7, 0x92))),
    Subscribe(9, (Subscription("a/+/#", 2, True, True, 2), Subscription("$share/g/b", 1)), Properties(subscription_ids=(200,))),
    Subscribe(9, (Subscription("a/+/#", 2), Subscription("+", 0))),
    SubAck(9, b"\0\1\2\x80", SAID),
    Unsubscribe(9, ("a", "$share/g/#"), Properties(user=USERS)),
    UnsubAck(9, b"\0\x11", SAID),
    Disconnect(0x04, Properties(session_expiry_s=3, reason_string="r", user=USERS)),
    Auth(0x18, Properties(authentication_method="m", authentication_data=b"d", user=USERS)),
]  # fmt: skip


def outcome(function, *args):
    """Return what a function returns, or its MalformedPacket."""
    try:
        return function(*args)
    except MalformedPacket as caught:
        error = caught
    assert error.spec.startswith(("MQTT 3.1.1 ", "MQTT 5.0 ")), error.spec
    assert error.code in TEXTS, error.code
    return error


def check_stream(data, level, sender):
    """Split and decode; what came out is said again and comes out again."""
    splitter = Splitter(100_000, level)
    splitter.feed(data)
    while isinstance(frame := outcome(splitter.next), tuple):
        head, payload = frame
        packet = outcome(decode, head, payload, level, sender)
        if isinstance(packet, MalformedPacket):
            connect_level(payload)
            return
        again = Splitter()
        again.feed(encode(packet, level))
        assert decode(*again.next(), level, sender) == packet, packet


def check_publish_properties(data):
    """Both ways through the properties of a PUBLISH refuse, or find the same."""
    whole, fast = outcome(decode_properties, PUBLISH, data, CLIENT), outcome(publish_properties, data)
    assert isinstance(whole, MalformedPacket) is isinstance(fast, MalformedPacket), (whole, fast)
    if not isinstance(fast, MalformedPacket):
        length_and_all = encode_publish_properties(fast.kept, fast.message_expiry_s, fast.topic_alias or None)
        assert decode_properties(PUBLISH, length_and_all[len(length_and_all) - len(data) :]) == whole


def check_properties(data, kind):
    """What is read as properties of a kind can be written and read again."""
    found = outcome(decode_properties, kind, data)
    if not isinstance(found, MalformedPacket):
        assert decode_properties(kind, raw_properties(found)) == found
        assert encode_properties(found).endswith(raw_properties(found))


@atheris.instrument_func
def check(data):
    """One round; the first byte chooses what is done with the others."""
    choice, rest = data[:1] or b"\0", bytes(data[1:])
    what = choice[0]
    if what < 192:
        check_stream(rest, 3 + what % 3, SENDERS[what // 3 % 3])
    elif what < 208:
        check_properties(rest, what - 192)
    elif what < 232:
        check_publish_properties(rest)
    else:
        outcome(topic_filter, rest, 3 + what % 3)


def write_seeds(folder):
    """Fill a corpus with one packet of each kind at each level."""
    for number, packet in enumerate(SEEDS):
        for choice, level in enumerate((3, 4, 5)):
            (folder / f"packet-{number}-{level}").write_bytes(bytes((choice,)) + encode(packet, level))
        held = getattr(packet, "properties", None)
        if held is not None:
            for choice in (*range(192, 208), 208):
                (folder / f"properties-{number}-{choice}").write_bytes(bytes((choice,)) + raw_properties(held))
    (folder / "filter").write_bytes(b"\xff$share/group/+/a/#")


def main():
    """Fuzz for a while; libFuzzer ends the process, with 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another each time")
    parser.add_argument("--folder", type=Path, help="for corpus and findings; without it a new temporary one")
    wanted = parser.parse_args()
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="codec-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    write_seeds(corpus)
    sys.stderr.write(f"corpus and findings: {folder}\n")
    flags = [f"-max_total_time={wanted.seconds}", f"-seed={wanted.seed}", "-max_len=2048", "-rss_limit_mb=1024", "-timeout=10"]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
