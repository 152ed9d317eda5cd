"""How are keys written, in AMQP and in MQTT?

Keys are AMQP's everywhere in the engine: words between dots, ``*`` is one word, ``#`` is zero or more
words; the empty key has zero words. MQTT swaps two pairs of characters at its border, in both directions,
which loses nothing because it is an exchange of characters: ``plant/3/v1.2`` is ``plant.3.v1/2``.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

DEFAULT_VHOST = "/"
DEFAULT_EXCHANGE = ""
TOPIC_EXCHANGE = "amq.topic"
BUILT_IN = {
    DEFAULT_EXCHANGE: "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    TOPIC_EXCHANGE: "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
"""The exchanges of every virtual host, and their types (AMQP 0-9-1 §3.1.3)."""
NOT_TOPIC = tuple(name for name, kind in BUILT_IN.items() if kind != "topic")
"""The built-in exchanges that have no last values."""

MAX_KEY_BYTES = 65_535
MAX_KEY_WORDS = 256
"""As many as AMQP can write. To find who wants a key of more takes as much longer."""
MAX_KEYS = 1_000
"""So many keys one message may have, where it may have several."""
OWN_KEYS = "$SYS."
"""Keys that begin so are what the broker says of itself."""

_SWAP = bytes.maketrans(b"/.+*", b"./*+")
_SWAP_TEXT = str.maketrans("/.+*", "./*+")


def swap_key(key: str) -> str:
    """Translate a key or pattern between MQTT's and AMQP's spelling; its own inverse."""
    if key.isascii():  # almost always; much faster
        return key.encode().translate(_SWAP).decode()
    return key.translate(_SWAP_TEXT)


def swap_key_bytes(key: bytes) -> bytes:
    """Translate UTF-8 bytes as `swap_key` does text."""
    return key.translate(_SWAP)


def words(key: str) -> list[str]:
    """Split a key into its words; the empty key has none."""
    return key.split(".") if key else []


REPLY_PREFIX = "/exchanges/"
_PLAIN = "!$&'()*+,;=:@#"


def reply_address(exchange: str, key: str) -> str:
    """Return what a ``reply_to`` says for an exchange and key: ``/exchanges/EXCHANGE/KEY``, percent-encoded where need be.

    Whoever answers publishes to the default exchange with it as key, as to the name of a queue: `Channel.route` understands both.
    """
    return f"{REPLY_PREFIX}{quote(exchange, _PLAIN)}/{quote(key, _PLAIN)}"


def parse_reply_address(address: str) -> tuple[str, str] | None:
    """Return exchange and key of a reply address; None: it is none."""
    exchange, slash, key = address.removeprefix(REPLY_PREFIX).partition("/")
    if not address.startswith(REPLY_PREFIX) or not slash or "/" in key:
        return None
    return unquote(exchange), unquote(key)


def is_mqtt_topic(topic: str) -> bool:
    """Say whether MQTT can carry this topic name: no wildcards, no U+0000, not empty (MQTT 3.1.1 §4.7)."""
    return bool(topic) and "+" not in topic and "#" not in topic and "\0" not in topic and len(topic.encode()) <= MAX_KEY_BYTES
