"""Does a table stay right through any sequence of declarations, bindings and deletions?"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.api import Message, Principal, QueueSpec
from gateway.errors import AccessRefused, NotFound, PreconditionFailed
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec
from gateway.model.properties import Properties
from gateway.routing.consistent_hash import ConsistentHash
from gateway.routing.exchange import Link
from gateway.routing.table import Table
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns

NAMES = ["x", "y", "z"]
SOURCES = [*NAMES, "amq.topic", "amq.fanout"]
HASH = "x-consistent-hash"
DELAYED = "x-delayed-message"
KINDS = [
    *((kind, {}) for kind in ("direct", "fanout", "topic", "headers", HASH)),
    (HASH, {"hash-header": "h"}),
    (HASH, {"hash-property": "message_id"}),
    *((DELAYED, {"x-delayed-type": kind}) for kind in ("direct", "topic", "headers", HASH)),
]
KEYS = ["", "a", "a.b", "b"]
WEIGHTS = ["1", "3"]
PATTERNS = [*KEYS, "#", "*", "a.*", "#.b", "#.*.#", *WEIGHTS]

sources = st.sampled_from(SOURCES)
names = st.sampled_from(NAMES)
queues = st.sampled_from(["p", "q"])
wanted = st.sampled_from([
    {}, {"h": 1}, {"h": None}, {"h": True}, {"h": 1, "g": 2}, {"h": 1, "g": 2, "x-match": "any"}, {"x-match": "any"},
    {"x-h": 1}, {"x-h": 1, "x-match": "all-with-x"}, {"x-h": 1, "h": 2, "x-match": "any-with-x"}, {"x-match": "some"},
])  # fmt: skip
headers_of_messages = st.sampled_from([{}, {"h": 1}, {"h": 2}, {"h": True}, {"h": 1, "g": 2}, {"g": 2}, {"x-h": 1}])


def topic_matches(pattern, words):
    """The definition: every word, or ``*`` for one, or ``#`` for any number."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic_matches(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic_matches(pattern[1:], words[1:])


def words_of(key):
    return key.split(".") if key else []


def headers_match(arguments, headers):
    how = arguments.get("x-match", "all")
    asked = {name: value for name, value in arguments.items() if name != "x-match"}
    if not how.endswith("-with-x"):
        asked = {name: value for name, value in asked.items() if not name.startswith("x-")}
    met = [
        name in headers and (value is None or (headers[name] == value and type(headers[name]) is type(value)))
        for name, value in asked.items()
    ]
    return all(met) if how.startswith("all") else any(met)


def binding_matches(kind, binding, key, headers):
    match kind:
        case "fanout":
            return True
        case "direct":
            return binding.key == key
        case "topic":
            return topic_matches(words_of(binding.key), words_of(key))
        case _:
            return headers_match(binding.arguments, headers)


def kind_of(spec):
    return spec.arguments.get("x-delayed-type", spec.type)


def chosen(spec, bindings, key, properties):
    """Whom a hash chooses depends on nothing but the bindings: ask one that has just been made of them, the other way round."""
    made = ConsistentHash(
        ExchangeSpec(spec.name, HASH, arguments={k: v for k, v in spec.arguments.items() if k != "x-delayed-type"})
    )
    for binding in reversed(bindings):
        made.bind(Link((binding.to_exchange, binding.destination), binding))
    found = {}
    made.route(key, lambda: properties, found)
    assert len(found) == bool(bindings)
    matching = [binding for binding in bindings if (binding.to_exchange, binding.destination) in found]
    # Of several bindings to one destination the heaviest counts; which one of equals shows in its options only.
    heaviest = [binding for binding in matching if int(binding.key) == max(int(each.key) for each in matching)]
    owner = [binding for binding in heaviest if binding.options in found.values()]
    assert bool(owner) is bool(bindings)
    return owner[:1]


FEW = 4
"""With more bindings what takes many away is tried, too."""


class TableMachine(RuleBasedStateMachine):
    """The model: a dictionary of specifications, a list of bindings, and a search through all of them."""

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=3), alternate=st.sampled_from([None, *SOURCES]))
    def begin(self, kinds, alternate):
        self.live = {"p": object(), "q": object()}
        self.table = Table(self.live.get)
        self.specs = {"amq.topic": ExchangeSpec("amq.topic", "topic"), "amq.fanout": ExchangeSpec("amq.fanout", "fanout")}
        self.bindings = {}
        for name, kind in zip(NAMES, kinds, strict=True):
            self.declare(name, kind, alternate, auto_delete=False, internal=False)

    @rule(
        name=names,
        kind=st.sampled_from(KINDS),
        alternate=st.sampled_from([None, *SOURCES]),
        auto_delete=st.booleans(),
        internal=st.booleans(),
    )
    def declare(self, name, kind, alternate, auto_delete, internal):
        if name not in self.specs:
            self.specs[name] = ExchangeSpec(
                name, kind[0], alternate=alternate, auto_delete=auto_delete, internal=internal, arguments=kind[1]
            )
            assert self.table.declare(self.specs[name])
        assert not self.table.declare(self.specs[name])

    @rule(source=sources, queue=queues, key=st.sampled_from(PATTERNS), arguments=wanted, qos=st.integers(0, 2))
    def bind(self, source, queue, key, arguments, qos):
        self._bind(Binding(source, queue, key, arguments=arguments, options=BindingOptions(qos=qos)))

    @rule(source=sources, destination=sources, key=st.sampled_from(PATTERNS), arguments=wanted)
    def chain(self, source, destination, key, arguments):
        self._bind(Binding(source, destination, key, to_exchange=True, arguments=arguments))

    def _bind(self, binding):
        missing = binding.source not in self.specs or (binding.to_exchange and binding.destination not in self.specs)
        kind = kind_of(self.specs[binding.source]) if binding.source in self.specs else ""
        wrong = (kind == HASH and binding.key not in WEIGHTS) or (kind == "headers" and binding.arguments.get("x-match") == "some")
        try:
            new = self.table.bind(binding, self.live.get(binding.destination))
        except NotFound:
            assert missing
            return
        except PreconditionFailed:
            assert wrong
            return
        assert not missing
        assert not wrong
        assert new is (binding.identity() not in self.bindings)
        self.bindings[binding.identity()] = binding

    @precondition(lambda self: self.bindings)
    @rule(data=st.data())
    def unbind(self, data):
        identity = data.draw(st.sampled_from(list(self.bindings)))
        assert self.table.unbind(self.bindings.pop(identity))

    @precondition(lambda self: len(self.bindings) > FEW)
    @rule(queue=queues)
    def unbind_all(self, queue):
        gone = {i: b for i, b in self.bindings.items() if b.destination == queue and not b.to_exchange}
        assert self.table.unbind_all(queue, False) == list(gone.values())
        for identity in gone:
            del self.bindings[identity]

    @precondition(lambda self: len(self.bindings) > FEW)
    @rule(name=names)
    def delete(self, name):
        if name not in self.specs:
            return
        gone = {i for i, b in self.bindings.items() if b.source == name or (b.to_exchange and b.destination == name)}
        removed = self.table.delete(name)
        assert {binding.identity() for binding in removed} == gone
        assert len(removed) == len(gone)
        for identity in gone:
            del self.bindings[identity]
        del self.specs[name]

    @rule(headers=headers_of_messages, message_id=st.sampled_from([None, "1", "2"]))
    def resolve(self, headers, message_id):
        properties = Properties(headers=headers, message_id=message_id)
        for source in self.specs:
            for key in KEYS:
                expected, visited = {}, set()
                self._search(source, key, properties, expected, visited)
                found, cacheable = self.table.resolve(source, key, lambda: properties)
                assert {queue: options.qos for queue, options in found.items()} == expected
                assert cacheable is all(self._is_cacheable(self.specs[name]) for name in visited)

    @rule(queue=st.sampled_from(["p", "q", "nobody"]))
    def resolve_by_name(self, queue):
        found, cacheable = self.table.resolve("", queue, Properties)
        assert list(found) == ([self.live[queue]] if queue in self.live else [])
        assert cacheable

    def _is_cacheable(self, spec):
        return kind_of(spec) != "headers" and not any(argument.startswith("hash-") for argument in spec.arguments)

    def _matching(self, spec, key, properties):
        mine = [binding for binding in self.bindings.values() if binding.source == spec.name]
        if kind_of(spec) == HASH:
            return chosen(spec, mine, key, properties)
        return [binding for binding in mine if binding_matches(kind_of(spec), binding, key, properties.headers)]

    def _search(self, name, key, properties, found, visited):
        visited.add(name)
        matching = self._matching(self.specs[name], key, properties)
        onward = [b.destination for b in matching if b.to_exchange]
        if not matching:
            onward = [self.specs[name].alternate]
        for binding in matching:
            if not binding.to_exchange:
                queue = self.live[binding.destination]
                found[queue] = max(found.get(queue, 0), binding.options.qos)
        for destination in onward:
            if destination in self.specs and destination not in visited:
                self._search(destination, key, properties, found, visited)

    @invariant()
    def what_is_listed_is_what_is_bound(self):
        listed = [b for name in ("p", "q") for b in self.table.bindings_of(name)]
        listed += [b for name in SOURCES for b in self.table.bindings_of(name, True)]
        assert {b.identity(): b for b in listed} == self.bindings
        for exchange in self.table:
            own = {i for i, b in self.bindings.items() if b.source == exchange.spec.name}
            assert set(exchange.bindings) == own
            assert all(exchange.bindings[i] == self.bindings[i] for i in own)
            assert len(exchange.kind) == len(own)
            assert self.table.is_spent(exchange.spec.name) is (exchange.spec.auto_delete and not own)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


async def test_internal_exchanges_route_what_others_hand_them_and_refuse_what_clients_publish(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        outcomes = Outcomes()
        channel = broker.gateway("test", print, Log()).open_channel(Principal("p"), outcomes)
        for spec in (
            ExchangeSpec("inner", "fanout", internal=True),
            ExchangeSpec("bound", "fanout"),
            ExchangeSpec("poor", "direct", alternate="inner"),
        ):
            channel.declare_exchange(spec)
        channel.declare_queue(QueueSpec("q"))
        channel.bind(Binding("inner", "q"))
        channel.bind(Binding("bound", "inner", to_exchange=True))
        numbers = []
        for exchange in ("inner", "bound", "poor"):
            route = channel.route(exchange, "k")
            numbers.append(channel.publish(route, Message(route.address, exchange.encode(), True)))
        await turns()
        assert isinstance(outcomes.exceptions[numbers[0]].error, AccessRefused)
        assert not outcomes.exceptions.keys() & set(numbers[1:])
        assert channel.queue_info("q").messages == 2
