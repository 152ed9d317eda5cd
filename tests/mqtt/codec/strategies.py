"""Every packet with every property, at every level, for hypothesis.

`packets(level)` draws any packet of a level, `connects(level)` and the others one kind; `properties(kind)` what a kind may have.
"""

from __future__ import annotations

from hypothesis import strategies as st

from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.names import AUTH, CONNACK, CONNECT, DISCONNECT, PUBLISH, SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE, WILL
from gateway_mqtt.codec.packets import (
    ACKS,
    FAILURE,
    SIGNALS,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.properties import (
    BINARY,
    BIT,
    LONG,
    NO_PROPERTIES,
    PAIR,
    RULES,
    SWITCH,
    TEXT,
    TOPIC,
    VARINT,
    WORD,
    Properties,
)

LEVELS = (3, 4, 5)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
topics = texts.map(lambda text: text.replace("+", "").replace("#", "") or "t")
filters = (
    st.lists(st.sampled_from(["a", "+", "", "$x", "é", "$share"]), min_size=1, max_size=4)
    .map("/".join)
    .map(lambda pattern: "#" if not pattern or pattern.startswith("$share") else pattern)
)
shared_filters = st.tuples(st.sampled_from(["g", "é", "$", " "]), filters).map(lambda pair: f"$share/{pair[0]}/{pair[1]}")
blobs = st.binary(max_size=300)
identifiers = st.integers(1, 65_535)

_VALUES = {
    BIT: st.integers(0, 1),
    SWITCH: st.booleans(),
    WORD: st.integers(0, 0xFFFF),
    LONG: st.integers(0, 0xFFFF_FFFF),
    TEXT: texts,
    TOPIC: topics,
    BINARY: st.binary(max_size=40),
}
_subscription_ids = st.sampled_from([1, 127, 128, 16_383, 16_384, 268_435_455])


def _value(rule, kind):
    if rule.form == PAIR:
        return st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
    if rule.form == VARINT:
        return st.lists(_subscription_ids, max_size=1 if kind == SUBSCRIBE else 3).map(tuple)
    values = _VALUES[rule.form]
    return st.none() | (values.filter(bool) if rule.zero else values)


def _sound(values):
    if values.get("authentication_data") is not None and values["authentication_method"] is None:
        values["authentication_method"] = "SCRAM-SHA-256"
    return Properties(**values) if any(value not in {None, ()} for value in values.values()) else NO_PROPERTIES


def properties(kind):
    """Draw properties that a kind of packet may have."""
    rules = [rule for rule in RULES.values() if kind in rule.kinds]
    return st.fixed_dictionaries({}, optional={rule.name: _value(rule, kind) for rule in rules}).map(
        lambda drawn: _sound({rule.name: drawn.get(rule.name, () if rule.form in {PAIR, VARINT} else None) for rule in rules})
    )


def _at(level, kind):
    return properties(kind) if level == 5 else st.just(NO_PROPERTIES)


def _codes(kind):
    return st.sampled_from(sorted(reasons.BY_CLIENT.get(kind, frozenset()) | reasons.BY_SERVER.get(kind, frozenset())))


def wills(level):
    return st.none() | st.builds(Will, topics, blobs, st.integers(0, 2), st.booleans(), _at(level, WILL))


@st.composite
def connects(draw, level):
    user = draw(st.none() | texts)
    password = draw(st.none() | blobs) if user is not None or level == 5 else None
    clean, keep_alive_s = draw(st.booleans()), draw(st.integers(0, 65_535))
    bridge = level < 5 and draw(st.booleans())
    held = draw(_at(level, CONNECT))
    return Connect(draw(texts), clean, keep_alive_s, draw(wills(level)), user, password, level, held, bridge)


@st.composite
def publishes(draw, level):
    qos = draw(st.integers(0, 2))
    dup = draw(st.booleans()) if qos else False
    held = draw(_at(level, PUBLISH))
    topic = "" if held.topic_alias is not None and draw(st.booleans()) else draw(topics)
    return Publish(topic, draw(blobs), qos, draw(st.booleans()), dup, draw(identifiers) if qos else 0, held)


@st.composite
def connacks(draw, level):
    code = draw(_codes(CONNACK) if level == 5 else st.integers(0, 5))
    return ConnAck(not code and draw(st.booleans()), code, draw(_at(level, CONNACK)))


def subscriptions(level):
    if level < 5:
        return st.builds(Subscription, filters, st.integers(0, 2))
    return st.one_of(
        st.builds(Subscription, filters, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2)),
        st.builds(Subscription, shared_filters, st.integers(0, 2), st.just(False), st.booleans(), st.integers(0, 2)),
    )


def subscribes(level):
    return st.builds(Subscribe, identifiers, _some(subscriptions(level)), _at(level, SUBSCRIBE))


def subacks(level):
    codes = _codes(SUBACK) if level == 5 else st.sampled_from([0, 1, 2, FAILURE])
    return st.builds(SubAck, identifiers, _some(codes).map(bytes), _at(level, SUBACK))


def unsubscribes(level):
    patterns = filters | shared_filters if level == 5 else filters
    return st.builds(Unsubscribe, identifiers, _some(patterns), _at(level, UNSUBSCRIBE))


def unsubacks(level):
    if level < 5:
        return st.builds(UnsubAck, identifiers)
    return st.builds(UnsubAck, identifiers, _some(_codes(UNSUBACK)).map(bytes), _at(level, UNSUBACK))


def acks(level, kind):
    if level < 5:
        return st.builds(Ack, st.just(kind), identifiers)
    return st.builds(Ack, st.just(kind), identifiers, _codes(kind), _at(level, kind))


def disconnects(level):
    return st.builds(Disconnect, _codes(DISCONNECT), _at(level, DISCONNECT)) if level == 5 else st.just(Disconnect())


@st.composite
def auths(draw):
    held = draw(properties(AUTH))
    if held.authentication_method is None:
        return Auth()
    return Auth(draw(_codes(AUTH)), held)


def _some(values):
    return st.lists(values, min_size=1, max_size=5).map(tuple)


def packets(level):
    """Draw any packet of a level."""
    kinds = [connects, publishes, connacks, subscribes, subacks, unsubscribes, unsubacks, disconnects]
    drawn = [kind(level) for kind in kinds] + [acks(level, kind) for kind in ACKS]
    return st.one_of(*drawn, st.builds(Signal, st.sampled_from(SIGNALS)), *([auths()] if level == 5 else []))


def leveled():
    """Draw a level and a packet of it."""
    return st.sampled_from(LEVELS).flatmap(lambda level: st.tuples(st.just(level), packets(level)))
