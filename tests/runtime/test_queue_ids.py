"""Is the id of a queue that is gone given to another one after a restart?"""

from __future__ import annotations

import pytest

from gateway.api.frontend import Principal
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec
from tests.runtime.support import Log, running


@pytest.fixture(params=["memory", "sqlite"])
def again(request, tmp_path):
    """Return the journal of each start."""
    store = MemoryStore()
    return lambda: MemoryJournal(store) if request.param == "memory" else SqliteJournal(tmp_path)


async def test_the_newest_queue_deleted_before_a_restart_has_an_id_that_is_not_given_again(again):
    async with running(again()) as broker:
        channel = broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"), None)
        for name, priorities in (("old", 0), ("newest", 9)):
            await channel.outcome(channel.declare_queue(QueueSpec(name, max_priority=priorities)))
        await channel.outcome(channel.delete_queue("newest"))
        given = broker.engine.definitions.next_queue_id
    assert given == 12
    async with running(again()) as broker:
        assert broker.engine.definitions.next_queue_id == given
