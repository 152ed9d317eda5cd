"""Who is let in at once, and who has to wait?"""

from __future__ import annotations

import pytest

from gateway.api.frontend import Credentials, Principal
from gateway.errors import AccessRefused
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
