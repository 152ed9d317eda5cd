"""Is what is exported what was defined, and does an import take all of a file, or nothing, and tell what it does not take?"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admin.definitions import Report, export, import_
from gateway.admin.items import Malformed
from gateway.admin.trial import Nobody
from gateway.engine.definitions.policy import Policy
from gateway.engine.engine import Engine
from gateway.errors import GatewayError, NotFound, Overloaded, PreconditionFailed
from gateway.model.arguments import queue_spec
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec, Retry
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.properties import NO_PROPERTIES

REAL = json.loads(Path(__file__).with_name("rabbitmq_3_10_8.json").read_text(encoding="utf-8"))


def make_engine():
    return Engine(Nobody(), lambda _: NO_PROPERTIES)


@pytest.fixture
def engine():
    return make_engine()


def queue(name, vhost="/", **more):
    return {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": {}, **more}


def exchange(name, type_="direct", vhost="/", **more):
    return {"name": name, "vhost": vhost, "type": type_, "durable": True, "auto_delete": False, "internal": False, **more}


def binding(source, destination, key="", vhost="/", **more):
    kind = more.pop("kind", "queue")
    item = {"source": source, "vhost": vhost, "destination": destination, "destination_type": kind, "routing_key": key}
    return {**item, "arguments": {}, **more}


def reasons(report):
    return {one.path: one.reason for one in report.skipped}


def again(engine):
    """Return what another engine exports after it has imported what this one exports, as text between them."""
    other = make_engine()
    report = import_(other, json.loads(json.dumps(export(engine))))
    assert report.skipped == []
    return export(other)


# -- a file of RabbitMQ's -------------------------------------------------------


def test_what_rabbitmq_exported_is_taken(engine):
    report = import_(engine, REAL)
    assert report.taken == {"vhosts": 2, "exchanges": 2, "queues": 3, "bindings": 3, "policies": 2, "parameters": 1}
    spec = engine.vhosts["/"].queues["p.orders"].spec
    assert (spec.max_priority, spec.dead_letter_exchange, spec.durable) == (9, "dead", True)
    assert engine.vhosts["büro"].queues["größe"].spec.auto_delete
    assert engine.vhosts["/"].table.get("orders").spec.alternate == "dead"
    assert [b.key for b in engine.vhosts["/"].table.bindings_of("p.orders")] == ["2", "a.*.#"]
    assert engine.policies.terms("/", spec).message_ttl_ms == 60_000
    assert engine.policies.terms("/", QueueSpec("cheap")).max_length == 1000


def test_virtual_hosts_are_defined_for_good_also_if_nothing_is_in_them(engine):
    data = {"vhosts": [{"name": "/"}, {"name": "empty"}, {"name": "used"}, {"name": ""}], "queues": [queue("q", "used")]}
    report = import_(engine, data)
    assert report.taken["vhosts"] == 3
    assert reasons(report) == {"vhosts[3]": "the name of a virtual host has 1 to 255 bytes"}
    again = make_engine()
    for record in engine.take_batch().records:
        again.replay(record)
    assert {"empty", "used"} <= set(again.vhosts)
    engine.refuse_durable("no room")
    import_(engine, {"vhosts": [{"name": "empty"}]}, dry_run=True)
    with pytest.raises(Overloaded):
        import_(engine, {"vhosts": [{"name": "more"}]})


def test_what_rabbitmq_exported_and_is_not_taken_is_listed_item_by_item(engine):
    report = import_(engine, REAL)
    assert {one.what for one in report.skipped} == {
        "user 'guest'",
        "permissions of user 'guest'",
        "topic permissions of user 'guest'",
        "global parameter 'cluster_tags'",
        "vhost-limits 'limits' of vhost '/'",
        "limits of vhost '/'",
        "queue 'strom' of vhost '/'",
        "key 'ha-mode' of policy 'ha'",
        "binding from 'orders' to 'dead' by '#' of vhost '/'",  # its exchange is internal: rabbitmqctl leaves that out
    }
    items = sum(len(REAL[section]) for section in REAL if isinstance(REAL[section], list))
    partial = sum(one.path.count(".") > 0 for one in report.skipped)
    assert sum(report.taken.values()) + len(report.skipped) - partial == items


def test_importing_twice_changes_nothing(engine):
    import_(engine, REAL)
    before, generation = export(engine), engine.generation
    engine.take_batch()
    import_(engine, REAL)
    assert export(engine) == before
    assert engine.generation == generation
    assert not engine.take_batch()


def test_a_dry_run_tells_the_same_and_changes_nothing(engine):
    before = export(engine)
    dry = import_(engine, REAL, dry_run=True)
    assert export(engine) == before
    assert not engine.take_batch()
    assert dry == import_(engine, REAL)


def test_a_report_survives_json():
    report = import_(make_engine(), REAL)
    assert Report.read(json.loads(json.dumps(list(report.plain())))) == report
    assert next(report.lines()) == "taken: 2 vhosts, 2 exchanges, 3 queues, 3 bindings, 2 policies, 1 operator policies"


# -- all or nothing ---------------------------------------------------------------


def test_what_contradicts_what_exists_is_named_and_nothing_is_taken(engine):
    engine.definitions.declare_queue("/", queue_spec("there", arguments={"x-max-priority": 5}), None)
    engine.definitions.declare_exchange("/", ExchangeSpec("x", "topic"))
    before = export(engine)
    data = {"queues": [queue("new"), queue("there")], "exchanges": [exchange("x", "fanout")], "vhosts": [{"name": "more"}]}
    with pytest.raises(PreconditionFailed) as refused:
        import_(engine, data)
    assert "queues[1]: " in str(refused.value)
    assert "exchanges[0]: " in str(refused.value)
    assert "queues[0]" not in str(refused.value)
    assert export(engine) == before


def test_what_exists_and_is_the_same_is_no_contradiction(engine):
    engine.definitions.declare_queue("/", queue_spec("there", arguments={"x-max-length": 5}), None)
    assert import_(engine, {"queues": [queue("there", arguments={"x-max-length": 5})]}).taken == {"queues": 1}


def test_an_exclusive_queue_of_somebody_is_a_contradiction(engine):
    engine.definitions.declare_queue("/", QueueSpec("mine", exclusive=True), object())
    with pytest.raises(GatewayError, match=r"queues\[0\]: .*exclusive"):
        import_(engine, {"queues": [queue("mine")]})


def test_what_is_new_may_stand_between_what_exists(engine):
    for name in ("first", "third"):
        engine.definitions.declare_queue("/", QueueSpec(name), None)
    assert import_(engine, {"queues": [queue("first"), queue("second"), queue("third")]}).taken == {"queues": 3}
    assert list(engine.vhosts["/"].queues) == ["first", "third", "second"]


def test_bindings_go_to_what_exists_already_too(engine):
    engine.definitions.declare_queue("/", QueueSpec("there"), None)
    engine.definitions.declare_exchange("/", ExchangeSpec("x", "topic"))
    report = import_(engine, {"bindings": [binding("x", "there", "a.#"), binding("amq.topic", "x", "#", kind="exchange")]})
    assert report.taken == {"bindings": 2}
    assert [b.key for b in engine.vhosts["/"].table.bindings_of("there")] == ["a.#"]


def test_nothing_is_taken_while_the_journal_refuses(engine):
    engine.refuse_durable("the disk is full")
    with pytest.raises(Overloaded, match="full"):
        import_(engine, REAL)
    assert list(engine.vhosts) == []


# -- what is not taken --------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path", "words"),
    [
        ({"queues": [queue("s", arguments={"x-queue-type": "stream"})]}, "queues[0]", "stream"),
        ({"queues": [queue("s", type="stream")]}, "queues[0]", "stream"),
        ({"queues": [queue("q", arguments={"x-unheard-of": 1})]}, "queues[0].arguments.x-unheard-of", "no effect"),
        ({"exchanges": [exchange("x", arguments={"x-unheard-of": 1})]}, "exchanges[0].arguments.x-unheard-of", "no effect"),
        ({"queues": [queue("q", arguments={"x-max-priority": 1000})]}, "queues[0]", "x-max-priority"),
        ({"queues": [queue("amq.gen-1")]}, "queues[0]", "reserved"),
        ({"queues": [queue("")]}, "queues[0]", "has a name"),
        ({"queues": [queue("q"), queue("q", auto_delete=True)]}, "queues[1]", "inequivalent"),
        ({"exchanges": [exchange("x", "x-recent-history")]}, "exchanges[0]", "unknown exchange type"),
        ({"exchanges": [exchange("x" * 256)]}, "exchanges[0]", "255 bytes"),
        ({"bindings": [binding("nowhere", "q")]}, "bindings[0]", "no exchange 'nowhere'"),
        ({"bindings": [binding("amq.topic", "q")]}, "bindings[0]", "no queue 'q'"),
        ({"bindings": [binding("", "q", "q")], "queues": [queue("q")]}, "bindings[0]", "default exchange"),
        (
            {"exchanges": [exchange("h", "x-consistent-hash")], "queues": [queue("q")], "bindings": [binding("h", "q", "heavy")]},
            "bindings[0]",
            "must be an integer",
        ),
        ({"policies": [{"vhost": "/", "name": "p", "pattern": "(", "definition": {"max-length": 1}}]}, "policies[0]", "regular"),
        (
            {"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-lenght": 1}}]},
            "policies[0]",
            "'max-length'",
        ),
        ({"parameters": [{"vhost": "/", "component": "shovel", "name": "s", "value": {}}]}, "parameters[0]", "no shovel"),
        ({"global_parameters": [{"name": "g", "value": 1}]}, "global_parameters[0]", "no global parameters"),
        ({"bindigns": []}, "bindigns", "no section"),
    ],
)
def test_what_cannot_be_taken_is_listed_with_its_path_and_reason(engine, data, path, words):
    report = import_(engine, data)
    assert list(reasons(report)) == [path]
    assert words in reasons(report)[path]


def test_arguments_that_nobody_knows_are_kept_so_that_a_broker_takes_its_own_export(engine):
    another = make_engine()
    import_(engine, {"queues": [queue("q", arguments={"x-unheard-of": 1})]})
    exported = export(engine)
    assert import_(another, exported).taken["queues"] == 1
    assert export(another) == exported


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "the file: an object"),
        ({"queues": {}}, "queues: a list"),
        ({"queues": ["q"]}, r"queues\[0\]: an object is allowed here, not \"q\""),
        ({"queues": [{"vhost": "/"}]}, r"queues\[0\].name: is missing \(text\)"),
        ({"queues": [{"name": "q"}]}, r"queues\[0\].vhost: is missing"),
        ({"queues": [queue("q", durable="yes")]}, r"queues\[0\].durable: true or false is allowed here, not \"yes\""),
        ({"queues": [queue("q", arguments=[1])]}, r"queues\[0\].arguments: an object"),
        ({"queues": [queue("q", arguments={"a": {"$bytes": "x"}})]}, r"queues\[0\].arguments: "),
        ({"queues": [queue("q", arguments={"a": {"$datetime": "soon"}})]}, r"queues\[0\].arguments: "),
        ({"queues": [queue("q", tidegate={"max_length": -1})]}, r"queues\[0\].tidegate.max_length: "),
        ({"queues": [queue("q", tidegate={"colour": 1})]}, r"queues\[0\].tidegate.colour: "),
        ({"bindings": [binding("x", "q", kind="heap")]}, r"bindings\[0\].destination_type: queue or exchange"),
        ({"bindings": [binding("x", "q", tidegate={"qos": 7})]}, r"bindings\[0\].tidegate.qos"),
        ({"bindings": [binding("x", "q", tidegate={"subscription_ids": ["a"]})]}, r"bindings\[0\].tidegate.subscription_ids"),
    ],
)
def test_what_is_no_definitions_file_is_refused_with_the_path(engine, data, words):
    with pytest.raises(Malformed, match=words):
        import_(engine, data)
    assert list(engine.vhosts) == []


def test_items_of_a_file_of_one_vhost_go_where_the_caller_says(engine):
    item = queue("q")
    del item["vhost"]
    import_(engine, {"queues": [item]}, vhost="there")
    assert list(engine.vhosts["there"].queues) == ["q"]


def test_old_files_write_no_arguments_as_a_list(engine):
    assert import_(engine, {"queues": [queue("q", arguments=[])]}).taken == {"queues": 1}


# -- out and in again -----------------------------------------------------------------


def test_predeclared_exchanges_and_exclusive_queues_are_left_out(engine):
    owner = object()
    engine.definitions.declare_queue("/", QueueSpec("mine", exclusive=True), owner)
    engine.definitions.bind("/", Binding("amq.topic", "mine", "k"), owner)
    data = export(engine)
    assert data["exchanges"] == data["queues"] == data["bindings"] == []
    assert data["vhosts"] == [{"name": "/"}]


def test_one_vhost_is_exported_alone(engine):
    for vhost in ("/", "other"):
        engine.definitions.declare_queue(vhost, QueueSpec("q"), None)
    assert [item["vhost"] for item in export(engine, "other")["queues"]] == ["other"]
    with pytest.raises(NotFound, match="nowhere"):
        export(engine, "nowhere")


def test_bytes_and_times_in_arguments_come_back(engine):
    arguments = {"raw": b"\x00\xff", "when": datetime(2026, 1, 2, tzinfo=UTC), "deep": {"list": [b"x", 1.5, None, True]}}
    engine.definitions.declare_queue("/", queue_spec("q", arguments=arguments), None)
    engine.definitions.bind("/", Binding("amq.headers", "q", arguments=arguments), None)
    other = make_engine()
    import_(other, json.loads(json.dumps(export(engine))))
    assert other.vhosts["/"].queues["q"].spec.arguments == arguments
    assert other.vhosts["/"].table.bindings_of("q")[0].arguments == arguments
    assert again(engine) == export(engine)


def test_what_rabbitmqs_form_has_no_word_for_comes_back(engine):
    spec = QueueSpec("q", keep_transient=False, overflow=Overflow.END_QUEUE, max_length=7, retry=Retry(5, 3.0, 100, 2))
    engine.definitions.declare_queue("/", spec, None)
    options = BindingOptions(qos=1, no_local=True, subscription_ids=(3, 4), mqtt=True)
    engine.definitions.bind("/", Binding("amq.topic", "q", "a", options=options), None)
    other = make_engine()
    import_(other, json.loads(json.dumps(export(engine))))
    assert other.vhosts["/"].queues["q"].spec == spec
    assert other.vhosts["/"].table.bindings_of("q")[0].options == options


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: not name.startswith("amq."))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ü"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
free = st.dictionaries(names.filter(lambda name: not name.startswith("x-")), values, max_size=2)
known = st.fixed_dictionaries(
    {},
    optional={
        "x-max-length": st.integers(0, 100),
        "x-message-ttl": st.integers(0, 10**6),
        "x-max-priority": st.integers(0, 5),
        "x-overflow": st.sampled_from(["drop-head", "reject-publish"]),
        "x-dead-letter-exchange": names,
        "x-queue-type": st.sampled_from(["classic", "quorum"]),
        "x-retry-delay": st.integers(1, 1000),
    },
)


@st.composite
def engines(draw):
    engine = make_engine()
    for vhost in draw(st.lists(names, min_size=1, max_size=2, unique=True)):
        queues = draw(st.lists(names, max_size=3, unique=True))
        exchanges = draw(st.lists(names, max_size=3, unique=True))
        definitions = engine.definitions
        for name in queues:
            arguments = {**draw(free), **draw(known)}
            spec = queue_spec(name, durable=draw(st.booleans()), auto_delete=draw(st.booleans()), arguments=arguments)
            definitions.declare_queue(vhost, spec, None)
        for name in exchanges:
            arguments = draw(free) | draw(st.fixed_dictionaries({}, optional={"alternate-exchange": names}))
            kind = draw(st.sampled_from(["direct", "fanout", "topic", "headers", "x-consistent-hash"]))
            definitions.declare_exchange(vhost, exchange_spec(name, kind, internal=draw(st.booleans()), arguments=arguments))
        for source in exchanges:
            for name in draw(st.lists(st.sampled_from([*queues, *exchanges]), max_size=3)):
                to_exchange = name not in queues
                definitions.bind(vhost, Binding(source, name, "7", to_exchange, draw(free)), None)
        for name in draw(st.lists(names.filter(lambda name: "\0" not in name), max_size=2, unique=True)):
            pattern, operator = draw(names.map(re.escape)), draw(st.booleans())
            policy = Policy(name, pattern, {"max-length": 5}, "queues", draw(st.integers(-5, 5)), operator)
            engine.policies.set(vhost, policy)
    return engine


@given(engines())
@settings(max_examples=60, deadline=None)
def test_import_of_an_export_exports_the_same(engine):
    assert again(engine) == export(engine)
