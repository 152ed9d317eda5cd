"""Does a table stay right through any sequence of declarations, bindings and deletions?"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import NotFound
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec
from gateway.routing.pattern import Pattern
from gateway.routing.table import Table

NAMES = ["x", "y", "z"]
SOURCES = [*NAMES, "amq.topic", "amq.fanout"]
KEYS = ["", "a", "a.b", "b"]
PATTERNS = [*KEYS, "#", "*", "a.*", "#.b"]

sources = st.sampled_from(SOURCES)
names = st.sampled_from(NAMES)
queues = st.sampled_from(["p", "q"])
wanted = st.sampled_from([{}, {"h": 1}])


def binding_matches(kind, binding, key, headers):
    match kind:
        case "fanout":
            return True
        case "direct":
            return binding.key == key
        case "topic":
            return Pattern(binding.key).matches(key)  # proven against the definition elsewhere
        case _:
            return all(headers.get(name) == value for name, value in binding.arguments.items())


class TableMachine(RuleBasedStateMachine):
    """The model: a dictionary of specifications, a list of bindings, and a search through all of them."""

    @initialize()
    def begin(self):
        self.live = {"p": object(), "q": object()}
        self.table = Table(self.live.get)
        self.specs = {"amq.topic": ExchangeSpec("amq.topic", "topic"), "amq.fanout": ExchangeSpec("amq.fanout", "fanout")}
        self.bindings = {}

    @rule(
        name=names,
        kind=st.sampled_from(["direct", "fanout", "topic", "headers"]),
        alternate=st.sampled_from([None, *SOURCES]),
        auto_delete=st.booleans(),
    )
    def declare(self, name, kind, alternate, auto_delete):
        if name not in self.specs:
            self.specs[name] = ExchangeSpec(name, kind, alternate=alternate, auto_delete=auto_delete)
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
        try:
            new = self.table.bind(binding, self.live.get(binding.destination))
        except NotFound:
            assert missing
            return
        assert not missing
        assert new is (binding.identity() not in self.bindings)
        self.bindings[binding.identity()] = binding

    @precondition(lambda self: self.bindings)
    @rule(data=st.data())
    def unbind(self, data):
        identity = data.draw(st.sampled_from(list(self.bindings)))
        assert self.table.unbind(self.bindings.pop(identity))

    @rule(queue=queues)
    def unbind_all(self, queue):
        gone = {i: b for i, b in self.bindings.items() if b.destination == queue and not b.to_exchange}
        assert self.table.unbind_all(queue, False) == list(gone.values())
        for identity in gone:
            del self.bindings[identity]

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

    @rule(source=sources, key=st.sampled_from(KEYS), headers=st.sampled_from([{}, {"h": 1}, {"h": 2}]))
    def resolve(self, source, key, headers):
        if source not in self.specs:
            return
        expected, visited = {}, set()
        self._search(source, key, headers, expected, visited)
        found, cacheable = self.table.resolve(source, key, lambda: headers)
        assert {queue: options.qos for queue, options in found.items()} == expected
        assert cacheable is all(self.specs[name].type != "headers" for name in visited)

    def _search(self, name, key, headers, found, visited):
        visited.add(name)
        matching = [
            b for b in self.bindings.values() if b.source == name and binding_matches(self.specs[name].type, b, key, headers)
        ]
        onward = [b.destination for b in matching if b.to_exchange]
        if not matching:
            onward = [self.specs[name].alternate]
        for binding in matching:
            if not binding.to_exchange:
                queue = self.live[binding.destination]
                found[queue] = max(found.get(queue, 0), binding.options.qos)
        for destination in onward:
            if destination in self.specs and destination not in visited:
                self._search(destination, key, headers, found, visited)

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
TestTableMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
