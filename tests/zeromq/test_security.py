"""Who gets in at endpoints with keys and passwords, as whom, and who does not?"""

import pytest
import trio
import zmq

from gateway.api import AccessRefused, ConfigError, Message, Principal, queue_spec
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.security import gatekeeper
from gateway_zeromq.security.keys import load_pair
from gateway_zeromq.security.realm import Realm
from tests.zeromq.hashes import hash_of
from tests.zeromq.keyring import Keyring, other_key
from tests.zeromq.support import ANY, Client, Plain, serving, until

ALICE = hash_of("wonderland")
SHORT_S = 0.4


async def by_name(credentials):
    if credentials.verified or credentials.user is None:
        return Principal(credentials.user or "anonymous")
    raise AccessRefused(f"{credentials.user} is nobody")


@pytest.fixture
def keys(tmp_path):
    return Keyring(tmp_path)


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(0)


def router(keys, **more):
    return {"name": "services", "socket": "ROUTER", "bind": [ANY], **keys.settings(), **more}


def pull(**more):
    return {"name": "in", "socket": "PULL", "bind": [ANY], "exchange": "", "routing_key": "jobs", **more}


def plain(**more):
    return pull(security="plain", users={"alice": ALICE}, **more)


def handshakes(running):
    """How many were refused."""
    return sum(count for name, count in running.broker.counters.items() if name.startswith("zeromq.refused_handshakes."))


async def is_let_in(client):
    await client.say(1, 1, 1, {})
    return await client.hear(SHORT_S) is not None


async def test_a_client_with_a_known_key_is_the_user_that_its_file_names(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(router(keys), authenticate=by_name) as running:
        for name in ("alice", "bob"):
            client = Client(context, running.address("ROUTER"), **keys.options(name))
            assert (await client.hello())["user"] == name
            client.close()
        assert not handshakes(running)


async def test_a_stranger_is_refused_counted_and_named_once_and_others_notice_nothing(keys, context):
    keys.allow("alice")
    keys.make("mallory")
    async with serving(router(keys), authenticate=by_name) as running:
        alice = Client(context, running.address("ROUTER"), **keys.options("alice"))
        await alice.hello()
        for _ in range(3):
            mallory = Client(context, running.address("ROUTER"), **keys.options("mallory"))
            assert not await is_let_in(mallory)
            mallory.close()
        await until(lambda: handshakes(running) >= 3)
        (line,) = running.log.of("peer refused")
        assert line["address"] == "127.0.0.1"
        assert line["domain"] == "services"
        assert len(running.log.of("handshake failed")) == 1
        assert (await alice.ask(22, b"x"))[0] == 23
        alice.close()


async def test_a_key_of_another_server_never_gets_an_answer(keys, context):
    keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **keys.options("alice", server=other_key()))
        assert not await is_let_in(client)
        await until(lambda: handshakes(running))
        client.close()


@pytest.mark.parametrize("options", [{}, {"PLAIN_USERNAME": b"alice", "PLAIN_PASSWORD": b"wonderland"}], ids=["null", "plain"])
async def test_who_speaks_another_mechanism_does_not_get_in_at_a_curve_endpoint(keys, context, options):
    keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **options)
        assert not await is_let_in(client)
        await until(lambda: handshakes(running))
        client.close()


async def test_a_curve_client_does_not_get_in_at_a_plain_endpoint(keys, context):
    keys.allow("alice")
    async with serving(plain(), authenticate=by_name) as running:
        peer = Plain(context, zmq.PUSH, running.address("PULL"), **keys.options("alice"))
        await until(lambda: handshakes(running))
        peer.close()


async def test_a_peer_of_another_domain_is_refused(keys, tmp_path, context):
    """What one endpoint's clients may, another's may not: the key is known, but not here."""
    keys.allow("alice")
    (tmp_path / "others").mkdir()
    others = Keyring(tmp_path / "others")
    others.allow("bob")
    first = router(keys, domain="first")
    second = router(keys, name="second", domain="second", client_keys=str(others.clients))
    async with serving(first, second, authenticate=by_name) as running:
        bob = {**others.options("bob"), "CURVE_SERVERKEY": keys.server}
        here = Client(context, running.address("ROUTER", 1), **bob)
        assert (await here.hello())["user"] == "bob"
        there = Client(context, running.address("ROUTER", 0), **bob)
        assert not await is_let_in(there)
        here.close(), there.close()


async def test_a_key_that_is_added_while_the_broker_runs_is_let_in_and_one_that_is_removed_is_not(keys, context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.security.realm.LOOK_EVERY_S", 0)
    keys.allow("alice")
    keys.make("bob")
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **keys.options("bob"))
        assert not await is_let_in(client)
        client.close()
        keys.allow("bob")
        client = Client(context, running.address("ROUTER"), **keys.options("bob"))
        assert (await client.hello())["user"] == "bob"
        client.close()
        (keys.clients / "bob.key").unlink()
        client = Client(context, running.address("ROUTER"), **keys.options("bob"))
        assert not await is_let_in(client)
        client.close()


async def test_a_key_that_was_just_added_is_let_in_though_the_files_were_just_read(keys, context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.security.realm.LOOK_EVERY_S", 3600)
    keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        for name in ("alice", "bob"):
            client = Client(context, running.address("ROUTER"), **keys.allow(name))
            assert (await client.hello())["user"] == name
            client.close()
            await trio.sleep(0.06)


async def test_a_directory_of_keys_that_is_gone_lets_nobody_in(keys, context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.security.realm.LOOK_EVERY_S", 0)
    options = keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        keys.clients.rename(keys.directory / "elsewhere")
        client = Client(context, running.address("ROUTER"), **options)
        assert not await is_let_in(client)
        assert "no client keys can be read" in running.log.of("peer refused")[0]["reason"]
        client.close()


async def test_a_bad_key_file_that_comes_later_is_named_and_spoils_nothing(keys, context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.security.realm.LOOK_EVERY_S", 0)
    options = keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        (keys.clients / "bad.key").write_text("nonsense")
        client = Client(context, running.address("ROUTER"), **options)
        await client.hello()
        assert "bad.key" in running.log.of("a client's key can't be used")[0]["reason"]
        client.close()


# -- the one who answers


async def test_who_fails_to_answer_says_500_and_the_next_peer_gets_in(keys, context, monkeypatch):
    options = keys.allow("alice")
    admit, failures = Realm.admit, [ValueError("a defect")]

    async def failing(realm, request):
        if failures:
            raise failures.pop()
        return await admit(realm, request)

    monkeypatch.setattr(Realm, "admit", failing)
    async with serving(router(keys), authenticate=by_name) as running:
        first = Client(context, running.address("ROUTER"), **options)
        assert not await is_let_in(first)
        assert running.count("zap_failures") == 1
        assert "a defect" in running.log.of("security failed: a peer was not let in")[0]["reason"]
        second = Client(context, running.address("ROUTER"), **options)
        assert (await second.hello())["user"] == "alice"
        first.close(), second.close()


async def test_who_is_one_of_too_many_at_once_comes_again_soon(keys, context, monkeypatch):
    options = keys.allow("alice")
    monkeypatch.setattr(gatekeeper, "MOST_PENDING", 0)
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **options)
        await until(lambda: running.count("refused_handshakes.put off") >= 2)
        monkeypatch.setattr(gatekeeper, "MOST_PENDING", 1)
        assert (await client.hello())["user"] == "alice"
        client.close()


async def test_an_answer_that_takes_too_long_is_500(keys, context, monkeypatch):
    options = keys.allow("alice")

    async def endless(_realm, _request):
        await trio.sleep_forever()

    monkeypatch.setattr(Realm, "admit", endless)
    monkeypatch.setattr(gatekeeper, "ANSWER_S", 0.01)
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **options)
        await until(lambda: handshakes(running))
        assert running.count("zap_failures") >= 1
        client.close()


async def test_who_dies_is_replaced_at_once(keys, context, monkeypatch):
    options = keys.allow("alice")
    take, deaths = gatekeeper.Gatekeeper._take, [OSError("a lightning")]

    def dying(self, pump, nursery, frames):
        if deaths:
            raise deaths.pop()
        take(self, pump, nursery, frames)

    monkeypatch.setattr(gatekeeper.Gatekeeper, "_take", dying)
    async with serving(router(keys), authenticate=by_name) as running:
        first = Client(context, running.address("ROUTER"), **options)
        await until(lambda: running.count("zap_deaths") == 1)
        second = Client(context, running.address("ROUTER"), **options)
        assert (await second.hello())["user"] == "alice"
        (line,) = running.log.of("security of ZeroMQ sockets: the one who answers failed, and begins anew")
        assert "a lightning" in line["error"]
        first.close(), second.close()


async def test_who_dies_again_and_again_ends_the_front_end_in_words(keys, context, monkeypatch):
    options = keys.allow("alice")

    def dying(_self, _pump, _nursery, _frames):
        raise OSError("a lightning")

    monkeypatch.setattr(gatekeeper.Gatekeeper, "_take", dying)
    monkeypatch.setattr(gatekeeper, "DEATHS_ALLOWED", 1)
    clients = []
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="fails again and again"), allow_unwrapped=True, flatten_subgroups=True
    ):
        async with serving(router(keys), authenticate=by_name) as running:
            for _ in range(100):
                clients.append(Client(context, running.address("ROUTER"), **options))
                await trio.sleep(0.05)
    for client in clients:
        client.close()


async def test_without_anyone_to_answer_nobody_gets_in(keys, context, monkeypatch):
    """libzmq itself refuses then, as the domain is enforced."""

    async def nobody(_self):
        await trio.sleep_forever()

    monkeypatch.setattr(gatekeeper.Gatekeeper, "open", lambda _self: None)
    monkeypatch.setattr(gatekeeper.Gatekeeper, "run", nobody)
    options = keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), **options)
        assert not await is_let_in(client)
        await until(lambda: handshakes(running))
        client.close()


# -- users


async def test_a_routing_id_of_the_clients_own_choice_is_refused(keys, context):
    """What is meant for a user who just went away would go to whoever takes that name."""
    options = keys.allow("alice")
    async with serving(router(keys), authenticate=by_name) as running:
        client = Client(context, running.address("ROUTER"), ROUTING_ID=b"chosen", **options)
        answer = await client.ask(1, 1, 1, {})
        assert answer[0] == 21
        assert answer[2] == 403
        assert "routing id" in answer[3]
        client.close()


async def test_at_a_rep_endpoint_too(keys, context):
    options = keys.allow("alice")
    endpoint = {"socket": "REP", "bind": [ANY], "exchange": "", "routing_key": "nowhere", **keys.settings()}
    async with serving(endpoint, authenticate=by_name) as running:
        asking = Plain(context, zmq.REQ, running.address("REP"), ROUTING_ID=b"chosen", **options)
        await asking.send(b"question")
        assert b"403" in b"".join(await asking.receive())
        asking.close()


async def test_whoever_speaks_under_the_name_of_another_user_has_to_say_hello(keys, context, monkeypatch):
    """A peer with a ZMTP of its own can claim any name, one that libzmq would give, too."""
    keys.allow("alice"), keys.allow("bob")
    async with serving(router(keys), authenticate=by_name) as running:
        alice, bob = (Client(context, running.address("ROUTER"), **keys.options(name)) for name in ("alice", "bob"))
        assert (await alice.hello())["user"] == "alice"
        assert (await bob.hello())["user"] == "bob"
        monkeypatch.setattr(Spot, "user_of", lambda _spot, _frame: "bob")
        assert (await alice.ask(13, 1, "queue", "hers", {}))[2] == 401
        assert (await alice.hello())["user"] == "bob"
        assert (await bob.ask(13, 1, "queue", "his", {}))[0] == 20
        alice.close(), bob.close()


async def test_sessions_belong_to_users(keys, context):
    keys.allow("alice"), keys.allow("bob")
    async with serving(router(keys), authenticate=by_name) as running:
        alice = Client(context, running.address("ROUTER"), **keys.options("alice"))
        session = (await alice.hello())["session"]
        bob = Client(context, running.address("ROUTER"), **keys.options("bob"))
        assert not (await bob.hello(session=session))["resumed"]
        alice.close(), bob.close()


async def test_what_a_user_may_not_is_refused_to_that_user_alone(keys, context):
    def may(action, resource, _key):
        return (action, resource) != ("write", "secret")

    async def authenticate(credentials):
        return Principal(credentials.user, authorize=may if credentials.user == "bob" else None)

    keys.allow("alice"), keys.allow("bob")
    async with serving(router(keys), authenticate=authenticate) as running:
        answers = []
        for name in ("alice", "bob"):
            client = Client(context, running.address("ROUTER"), **keys.options(name))
            await client.hello()
            await client.ask(13, 1, "exchange", "secret", {"type": "fanout"})
            answers.append((await client.ask(3, 1, "secret", "k", body=b"x"))[3])
            client.close()
        assert answers == [0, 403]


async def test_what_a_plain_peer_pushes_is_published_as_its_user(keys, context):
    def may(action, resource, key):
        return (action, resource, key) != ("write", "", "jobs")

    async def authenticate(credentials):
        return Principal(credentials.user, authorize=may if credentials.user == "bob" else None)

    keys.allow("alice"), keys.allow("bob")
    endpoint = pull(**keys.settings(), max_message_bytes=1000, frames="raw", max_frames=4)
    async with serving(endpoint, authenticate=authenticate) as running:
        await running.call(running.channel.declare_queue(queue_spec("jobs")))
        peers = {name: Plain(context, zmq.PUSH, running.address("PULL"), **keys.options(name)) for name in ("alice", "bob")}
        for frames in ([b"one"], [b"two", b"frames"], [b"far too long" * 100], [b"five"] * 5):
            for peer in peers.values():
                await peer.send(*frames)
        await until(lambda: running.queue("jobs").ready_count == 2 and running.count("dropped.refused") == 4)
        await until(lambda: running.count("dropped.too large") == 2)
        for peer in peers.values():
            peer.close()


# -- passwords


async def test_a_user_with_the_right_password_gets_in_and_nobody_else(context):
    async with serving(plain(), authenticate=by_name) as running:
        await running.call(running.channel.declare_queue(queue_spec("jobs")))
        good = Plain(context, zmq.PUSH, running.address("PULL"), PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"wonderland")
        await good.send(b"mine")
        await until(lambda: running.queue("jobs").ready_count == 1)
        for user, password in ((b"alice", b"wrong"), (b"nobody", b"wonderland"), (b"\xff", b"x"), (b"", b"")):
            before = handshakes(running)
            bad = Plain(context, zmq.PUSH, running.address("PULL"), PLAIN_USERNAME=user or b"x", PLAIN_PASSWORD=password or b"x")
            await until(lambda before=before: handshakes(running) > before)
            bad.close()
        good.close()
        assert "wonderland" not in str(running.log.lines)


async def test_passwords_are_left_to_the_broker_where_the_endpoint_has_no_users(context):
    asked = []

    async def authenticate(credentials):
        asked.append(credentials)
        if credentials.password == b"wrong":
            raise AccessRefused("wrong password")
        return Principal(credentials.user or "anonymous")

    async with serving(pull(security="plain"), authenticate=authenticate) as running:
        bad = Plain(context, zmq.PUSH, running.address("PULL"), PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"wrong")
        await until(lambda: handshakes(running))
        bad.close()
        good = Plain(context, zmq.PUSH, running.address("PULL"), PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"right")
        await until(lambda: asked[-1].password == b"right")
        assert (asked[-1].mechanism, asked[-1].user, asked[-1].loopback) == ("password", "alice", True)
        good.close()


# -- endpoints that connect


async def test_an_endpoint_that_connects_proves_itself_and_its_peer(keys, context, tmp_path):
    source = context.socket(zmq.PUSH)
    source.curve_server = True
    source.curve_secretkey = load_pair(keys.server_file).secret
    port = source.bind_to_random_port("tcp://127.0.0.1")
    endpoint = {
        "socket": "PULL",
        "connect": [f"tcp://127.0.0.1:{port}"],
        "exchange": "",
        "routing_key": "jobs",
        "security": "curve",
        "secret_key_file": str(keys.make("broker")),
        "server_key_file": str(keys.server_public_file),
    }
    async with serving(endpoint, authenticate=by_name) as running:
        await running.call(running.channel.declare_queue(queue_spec("jobs")))
        await trio.to_thread.run_sync(source.send, b"work")
        await until(lambda: running.queue("jobs").ready_count == 1)
    source.close(0)


async def test_an_endpoint_that_connects_to_someone_else_than_it_expects_gets_nothing(keys, context):
    source = context.socket(zmq.PUSH)
    source.curve_server = True
    source.curve_secretkey = zmq.curve_keypair()[1]
    port = source.bind_to_random_port("tcp://127.0.0.1")
    endpoint = {
        "socket": "PULL",
        "connect": [f"tcp://127.0.0.1:{port}"],
        "exchange": "",
        "routing_key": "jobs",
        "security": "curve",
        "secret_key_file": str(keys.make("broker")),
        "server_key_file": str(keys.server_public_file),
    }
    source.setsockopt(zmq.SNDTIMEO, 300)
    async with serving(endpoint, authenticate=by_name):
        with pytest.raises(zmq.Again):
            await trio.to_thread.run_sync(source.send, b"work")
    source.close(0)


async def test_an_endpoint_that_connects_says_its_name_and_password(context, tmp_path):
    (tmp_path / "password").write_text("wonderland\n")
    path = f"ipc://{tmp_path}/plain"
    source = plain(bind=[path], name="server")
    (tmp_path / "password").chmod(0o600)
    sink = {
        "name": "out",
        "socket": "PUSH",
        "connect": [path],
        "queue": "outgoing",
        "security": "plain",
        "user": "alice",
        "password_file": str(tmp_path / "password"),
    }
    async with serving(source, sink, authenticate=by_name) as running:
        await running.call(running.channel.declare_queue(queue_spec("jobs")))
        route = running.channel.route("", "outgoing")
        running.channel.publish(route, Message(route.address, b"round"))
        await until(lambda: running.queue("jobs").ready_count == 1)
        assert not handshakes(running)


# -- what is refused at the start


async def refused(endpoint, *more):
    with pytest.RaisesGroup(ConfigError, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with serving(endpoint, *more, authenticate=by_name):
            pass
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.text


async def test_a_secret_key_that_others_can_read_is_refused(keys):
    keys.server_file.chmod(0o640)
    assert "chmod 600" in await refused(router(keys))


async def test_a_client_key_file_that_can_not_be_read_is_refused_at_the_start(keys):
    (keys.clients / "bad.key").write_text("curve\n    public-key = 'short'\n")
    assert "bad.key: a key is not 40 characters of Z85" in await refused(router(keys))


async def test_missing_files_are_named(keys):
    assert "nowhere" in await refused(router(keys, client_keys="nowhere"))
    assert "nowhere" in await refused(router(keys, secret_key_file="nowhere"))


async def test_two_endpoints_of_one_domain_can_not_let_different_peers_in(keys, tmp_path):
    (tmp_path / "more").mkdir()
    other = router(keys, name="other", domain="services", client_keys=str(tmp_path / "more"))
    text = await refused(router(keys), other)
    assert "'services' and 'other' have the domain 'services'" in text
