"""Who is let in at once, and who has to wait?"""

from __future__ import annotations

import pytest

from gateway.api.frontend import Credentials, Principal
from gateway.errors import AccessRefused, NotFound
from gateway.model.declare import ExchangeSpec
from gateway.model.records import ExchangeDeclared, StatePut
from tests.runtime.support import HandJournal, Log, running

NOBODY = Credentials()


async def test_all_have_to_wait_where_nobody_can_decide_at_once():
    async with running(HandJournal()) as broker:
        gateway = broker.gateway("test", print, Log())
        assert gateway.authenticate_now(NOBODY) is None
        assert (await gateway.authenticate(NOBODY)).user == "anonymous"


async def test_who_can_be_decided_on_at_once_is():
    somebody = Principal("somebody")

    def decide(credentials):
        if credentials.user == "bad":
            raise AccessRefused("no")
        return somebody if credentials.user is None else None

    async with running(HandJournal()) as broker:
        broker.authenticate_now = decide
        gateway = broker.gateway("test", print, Log())
        assert gateway.authenticate_now(NOBODY) is somebody
        assert gateway.authenticate_now(Credentials(user="slow")) is None
        with pytest.raises(AccessRefused):
            gateway.authenticate_now(Credentials(user="bad"))


# -- virtual hosts ----------------------------------------------------------


async def test_a_user_is_one_principal_in_each_virtual_host_however_it_came_there():
    async with running(HandJournal()) as broker:
        gateway = broker.gateway("test", print, Log())
        for name in ("/", "a", "b"):
            broker.engine.vhost(name)
        somebody = Principal("somebody", authorize=lambda *_: True)
        inside = gateway.enter(somebody, "a")
        assert (inside.user, inside.vhost, inside.authorize) == ("somebody", "a", somebody.authorize)
        assert gateway.enter(somebody, "a") is inside
        assert gateway.enter(gateway.enter(somebody, "b"), "a") is inside
        assert gateway.enter(inside, "/") is somebody
        assert gateway.enter(Principal("another", authorize=somebody.authorize), "a") is not inside


async def test_a_virtual_host_that_nobody_has_named_cannot_be_entered():
    async with running(HandJournal()) as broker:
        gateway = broker.gateway("test", print, Log())
        with pytest.raises(NotFound, match=r"^no vhost 'x'$"):
            gateway.enter(Principal("u"), "x")
        with pytest.raises(NotFound, match=r"^no vhost 'x'$"):
            await gateway.authenticate(Credentials(vhost="x"))
        assert "x" not in broker.engine.vhosts
        assert (await gateway.authenticate(Credentials(vhost="/"))).vhost == "/"


async def test_virtual_hosts_are_those_of_the_settings_and_of_the_journal():
    journal = HandJournal()
    journal.records = [ExchangeDeclared("journaled", ExchangeSpec("x")), StatePut("engine.vhosts", "defined", b"")]
    async with running(journal, vhosts=["set"]) as broker:
        gateway = broker.gateway("test", print, Log())
        broker.authenticate_now = lambda credentials: Principal("u")
        for name in ("/", "set", "journaled", "defined"):
            assert gateway.authenticate_now(Credentials(vhost=name)).vhost == name
