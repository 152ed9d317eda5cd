"""What is each property of a message in each protocol? The table of docs/bridging.md, and what the tests expect, are made of this.

`python -m tests.crossing.table` writes the table into the page.

Each cell has two rules. ``says``: what the common model knows of what a publisher said. ``hears``: what a consumer is told of
what the common model knows. A rule is the words that stand in the table, and a function from what was said (or is known) to what
must come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

PAGE = Path(__file__).parents[2] / "docs" / "bridging.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
MULTIPART = "application/vnd.zeromq.multipart"

AMQP = "AMQP 0-9-1"
MQTT_3, MQTT_5, TGP, JSON = "MQTT 3.1, 3.1.1", "MQTT 5", "TGP, msgpack", "TGP, JSON"
HEADERS, PLAIN, RAW = "`key,headers,body`", "`body`, `key,body`", "`raw`"
PLAIN_REQUEST, MAJORDOMO = "REP asks, DEALER works", "Majordomo"
PROTOCOLS = (AMQP, MQTT_3, MQTT_5, TGP, JSON, HEADERS, PLAIN, RAW, PLAIN_REQUEST, MAJORDOMO)

LATEST_S = 253_402_300_799
"""The last second of the year 9999: what AMQP clients have as a date ends there."""

Known = dict[str, Any]
"""What was said, or is known, by row. Beside the rows: ``given``, what a gateway itself says of a request."""


@dataclass(frozen=True)
class Rule:
    """Words for the table, and a function: of the row's name and all that was said or is known."""

    words: str
    of: Callable[[str, Known], Any]


@dataclass(frozen=True)
class Cell:
    says: Rule
    hears: Rule

    def __str__(self) -> str:
        if self.says.words == self.hears.words:
            return self.says.words
        return f"in: {self.says.words}<br>out: {self.hears.words}"


def both(rule: Rule) -> Cell:
    return Cell(rule, rule)


# -- rules -------------------------------------------------------------------

SAME = Rule("=", lambda row, known: known.get(row))
NONE = Rule("-", lambda _row, _known: None)
GIVEN = Rule("the endpoint's own", lambda row, said: said["given"][row])


def always(words: str, value: Any) -> Rule:
    return Rule(words, lambda _row, _known: value)


def swapped(topic: str) -> str:
    return "".join({"/": ".", ".": "/", "+": "*", "*": "+"}.get(c, c) for c in topic)


def _topic(row: str, known: Known) -> str:
    return swapped(known[row])


def _qos_kept(_row: str, known: Known) -> int:
    """What a QoS is to MQTT, which remembers it, and what persistent is, which others have."""
    return known.get("qos", 1 if known["persistent"] else 0)


def _headers_of_user(_row: str, said: Known) -> dict[str, Any] | None:
    headers: dict[str, Any] = {}
    for name, value in said.get("user", ()):
        headers.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in headers.items()} or None


def as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return (
        json.dumps(value, default=as_text, ensure_ascii=False)
        if value is None or isinstance(value, bool | dict | list)
        else str(value)
    )


def _user_of_headers(_row: str, known: Known) -> list[tuple[str, str]]:
    if "user" in known:  # from MQTT 5 to MQTT 5, in their order
        return list(known["user"])
    headers = (known.get("headers") or {}).items()
    return [
        (name, as_text(one))
        for name, value in headers
        for one in (value if isinstance(value, list) else [value])
        if value is not None
    ]


def _json_headers(_row: str, known: Known) -> Any:
    headers = known.get("headers")
    return None if headers is None else json.loads(msgspec.json.encode(headers))


def _text_of_bytes(row: str, said: Known) -> Any:
    data = said.get(row)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return data


def _bytes_of_text(row: str, known: Known) -> bytes | None:
    value = known.get(row)
    return value.encode() if isinstance(value, str) else value


def _json_correlation(row: str, known: Known) -> Any:
    """As whoever reads JSON has it when it has undone base64."""
    value = _bytes_of_text(row, known)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _amqp_timestamp(row: str, known: Known) -> int | None:
    seconds = known.get(row)
    return None if seconds is None or seconds > LATEST_S else seconds


def _amqp_headers(row: str, known: Known) -> Any:
    seconds = known.get("timestamp_s")
    beside = {"x-timestamp": seconds} if seconds is not None and seconds > LATEST_S else {}
    return {**(known.get(row) or {}), **beside} or None


def _reply_to_of(row: str, said: Known) -> str | None:
    topic = said.get(row)
    if topic is None:
        return None
    if topic.startswith("$reply/"):
        return unquote(topic.removeprefix("$reply/"))
    return "/exchanges/amq.topic/" + quote(swapped(topic), "!$&'()*,;=:@#+")


def _response_topic(row: str, known: Known) -> str | None:
    if "response_topic" in known:  # from MQTT 5 to MQTT 5, as it came
        return known["response_topic"]
    reply_to = known.get(row)
    if reply_to is None:
        return None
    named = reply_to.removeprefix("/exchanges/amq.topic/")
    return swapped(unquote(named)) if named != reply_to else "$reply/" + quote(reply_to, "/!$&'()*,;=:@ ")


def _frames_as_body(_row: str, said: Known) -> bytes:
    frames: list[bytes] = said["body"]
    return frames[0] if len(frames) == 1 else msgspec.msgpack.encode(frames)


def _type_of_frames(_row: str, said: Known) -> str | None:
    return None if len(said["body"]) == 1 else MULTIPART


def _body_as_frames(_row: str, known: Known) -> list[bytes]:
    if known.get("content_type") == MULTIPART:
        try:
            return msgspec.msgpack.decode(known["body"], type=list[bytes]) or [known["body"]]
        except msgspec.MsgspecError:
            pass
    return [known["body"]]


def user_property(name: str) -> Rule:
    return Rule(f"user property `{name}`", lambda row, known: None if known.get(row) is None else as_text(known[row]))


def _other_encodings(row: str, known: Known) -> str | None:
    return None if is_text_of(row, known) else known.get(row)


def is_text_of(row: str, known: Known) -> bool:
    return (known.get(row) or "").lower() == "utf-8" and is_utf8(known["body"])


def is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


ENCODING_OUT = Rule("Payload Format Indicator 1 for `utf-8`, else user property `content-encoding`", _other_encodings)

# -- the table ---------------------------------------------------------------

_SAME = both(SAME)
_NONE = both(NONE)
_AMQP_ONLY = {
    AMQP: _SAME,
    MQTT_3: _NONE,
    TGP: _SAME,
    JSON: _SAME,
    HEADERS: _NONE,
    PLAIN: _NONE,
    RAW: _NONE,
    PLAIN_REQUEST: _NONE,
    MAJORDOMO: _NONE,
}


def _amqp_only(name: str) -> dict[str, Cell]:
    return {**_AMQP_ONLY, MQTT_5: Cell(NONE, user_property(name))}


_FRAMES = Cell(Rule("one frame; several as a msgpack array", _frames_as_body), Rule("the frames again", _body_as_frames))
_FRAMES_TYPE = Cell(Rule("`…multipart` if several frames", _type_of_frames), NONE)
_TOPIC = both(Rule("topic: `/` and `.`, `+` and `*` change places", _topic))
_SETTING = Cell(Rule("a setting", lambda row, said: said["given"][row]), NONE)
_FIXED_KEY = Cell(Rule("a setting", lambda row, said: said["given"][row]), NONE)

TABLE: dict[str, dict[str, Cell]] = {
    "body": dict.fromkeys(PROTOCOLS, _SAME) | {RAW: _FRAMES, MAJORDOMO: _FRAMES},
    "routing_key": {
        AMQP: _SAME,
        MQTT_3: _TOPIC,
        MQTT_5: _TOPIC,
        TGP: _SAME,
        JSON: _SAME,
        HEADERS: _SAME,
        PLAIN: _SAME,
        RAW: _FIXED_KEY,
        PLAIN_REQUEST: _SAME,
        MAJORDOMO: Cell(Rule("the service's", lambda row, said: said["given"][row]), NONE),
    },
    "persistent": {
        AMQP: both(Rule("`delivery_mode`: 2 yes, else no", SAME.of)),
        MQTT_3: Cell(Rule("QoS 1, 2: yes", lambda _row, said: said["qos"] > 0), Rule("QoS 1, 0; MQTT's as published", _qos_kept)),
        MQTT_5: Cell(Rule("QoS 1, 2: yes", lambda _row, said: said["qos"] > 0), Rule("QoS 1, 0; MQTT's as published", _qos_kept)),
        TGP: Cell(Rule("`delivery_mode`, 2 without", SAME.of), NONE),
        JSON: Cell(Rule("`delivery_mode`, 2 without", SAME.of), NONE),
        HEADERS: _SETTING,
        PLAIN: _SETTING,
        RAW: _SETTING,
        PLAIN_REQUEST: _SETTING,
        MAJORDOMO: _SETTING,
    },
    "retain": {
        AMQP: Cell(Rule("header `x-retain`", SAME.of), Rule("to who binds later with `x-last-values`", NONE.of)),
        MQTT_3: Cell(Rule("RETAIN", SAME.of), Rule("RETAIN, to who subscribes later", NONE.of)),
        MQTT_5: Cell(Rule("RETAIN", SAME.of), Rule("RETAIN, to who subscribes later", NONE.of)),
        TGP: Cell(Rule("header `x-retain`", SAME.of), NONE),
        JSON: Cell(Rule("header `x-retain`", SAME.of), NONE),
        HEADERS: Cell(Rule("header `x-retain`, or a setting", SAME.of), Rule("XPUB, to who subscribes later", NONE.of)),
        PLAIN: Cell(Rule("a setting", lambda row, said: said["given"][row]), Rule("XPUB, to who subscribes later", NONE.of)),
        RAW: Cell(Rule("a setting", lambda row, said: said["given"][row]), NONE),
        PLAIN_REQUEST: _NONE,
        MAJORDOMO: _NONE,
    },
    "content_type": {
        AMQP: _SAME,
        MQTT_3: _NONE,
        MQTT_5: both(Rule("Content Type", SAME.of)),
        TGP: _SAME,
        JSON: _SAME,
        HEADERS: _NONE,
        PLAIN: _NONE,
        RAW: _FRAMES_TYPE,
        PLAIN_REQUEST: _NONE,
        MAJORDOMO: _FRAMES_TYPE,
    },
    "content_encoding": {
        **_AMQP_ONLY,
        MQTT_5: Cell(
            Rule("Payload Format Indicator 1: `utf-8`", lambda _row, said: "utf-8" if said.get("is_text") else None), ENCODING_OUT
        ),
    },
    "headers": {
        AMQP: Cell(SAME, Rule("=, and what no property can hold", _amqp_headers)),
        MQTT_3: _NONE,
        MQTT_5: Cell(
            Rule("user properties; a name that comes again: a list", _headers_of_user),
            Rule("user properties, in order; a list: one each; no text: as text or JSON", _user_of_headers),
        ),
        TGP: _SAME,
        JSON: Cell(SAME, Rule("=; bytes as base64", _json_headers)),
        HEADERS: Cell(Rule("msgpack map or JSON object", SAME.of), Rule("msgpack map", SAME.of)),
        PLAIN: _NONE,
        RAW: _NONE,
        PLAIN_REQUEST: both(Rule("as for PULL and PUSH, by `frames`", SAME.of)),
        MAJORDOMO: _NONE,
    },
    "correlation_id": {
        AMQP: both(Rule("text; other bytes `base64:…`", _json_correlation)),
        MQTT_3: _NONE,
        MQTT_5: Cell(Rule("Correlation Data: text if it is UTF-8", _text_of_bytes), Rule("Correlation Data", _bytes_of_text)),
        TGP: _SAME,
        JSON: Cell(SAME, Rule("text; other bytes `base64:…`", _json_correlation)),
        HEADERS: _NONE,
        PLAIN: _NONE,
        RAW: _NONE,
        PLAIN_REQUEST: Cell(GIVEN, Rule("the endpoint keeps it, for the reply", NONE.of)),
        MAJORDOMO: Cell(GIVEN, Rule("the endpoint keeps it, for the reply", NONE.of)),
    },
    "reply_to": {
        AMQP: _SAME,
        MQTT_3: _NONE,
        MQTT_5: Cell(
            Rule("Response Topic `a/b`: `/exchanges/amq.topic/a.b`", _reply_to_of),
            Rule("Response Topic; of what is no topic: `$reply/…`", _response_topic),
        ),
        TGP: _SAME,
        JSON: _SAME,
        HEADERS: _NONE,
        PLAIN: _NONE,
        RAW: _NONE,
        PLAIN_REQUEST: Cell(GIVEN, Rule("the endpoint keeps it, for the reply", NONE.of)),
        MAJORDOMO: Cell(GIVEN, Rule("the endpoint keeps it, for the reply", NONE.of)),
    },
    "expiration_ms": {
        AMQP: Cell(SAME, Rule("as AMQP or TGP said it; of others what is left", SAME.of)),
        MQTT_3: _NONE,
        MQTT_5: Cell(
            Rule("Message Expiry Interval", SAME.of),
            Rule("Message Expiry Interval: what is left, in seconds", SAME.of),
        ),
        TGP: Cell(SAME, Rule("as TGP said it; of others what is left", SAME.of)),
        JSON: Cell(SAME, Rule("as TGP said it; of others what is left", SAME.of)),
        HEADERS: _NONE,
        PLAIN: _NONE,
        RAW: _NONE,
        PLAIN_REQUEST: Cell(Rule("`reply_timeout_ms`", lambda row, said: said["given"][row]), NONE),
        MAJORDOMO: Cell(Rule("`mdp_request_ttl_s`", lambda row, said: said["given"][row]), NONE),
    },
    "priority": _amqp_only("priority"),
    "message_id": _amqp_only("message-id"),
    "timestamp_s": {
        **_amqp_only("timestamp"),
        AMQP: Cell(SAME, Rule("=; later than the year 9999: header `x-timestamp`", _amqp_timestamp)),
    },
    "type": _amqp_only("type"),
    "user_id": _amqp_only("user-id"),
    "app_id": _amqp_only("app-id"),
}

EXTRAS = ("content_encoding", "message_id", "timestamp_s", "type", "user_id", "app_id", "priority")
"""Rows that are user properties to MQTT 5, as far as it has nothing for them."""


def known_of(protocol: str, said: Known) -> Known:
    """Return what the common model must know when this was said."""
    known = {row: cells[protocol].says.of(row, said) for row, cells in TABLE.items()}
    known["retain"] = bool(known["retain"] and known["body"])  # an empty one clears what is there
    for beside in ("qos", "user"):
        if beside in said:
            known[beside] = said[beside]
    if protocol == MQTT_5:
        known["response_topic"] = said["reply_to"]
    return known


def heard_of(protocol: str, known: Known) -> Known:
    """Return what must be heard when this is known."""
    return {row: cells[protocol].hears.of(row, known) for row, cells in TABLE.items()}


def rendered() -> str:
    """Return the table as the page has it."""
    lines = ["| common model (AMQP) | " + " | ".join(PROTOCOLS) + " |", "|---" * (len(PROTOCOLS) + 1) + "|"]
    lines += [f"| `{row}` | " + " | ".join(str(cells[name]) for name in PROTOCOLS) + " |" for row, cells in TABLE.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{rendered()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
