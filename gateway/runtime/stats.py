"""How much is stored now?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio.lowlevel

from gateway.api.frontend import Stats
from gateway.engine.engine import Engine

QUEUES_PER_TURN: Final = 1_000


async def stored(engine: Engine, counters: Mapping[str, int], name: str, sent_bytes: int) -> Stats:
    """Look at all queues, some in each turn; see `gateway.api.Gateway.stats`.

    Args:
        counters: of the broker.
        name: of the front-end.
        sent_bytes: by its connections.
    """
    messages = body_bytes = retained = retained_bytes = 0
    for vhost in list(engine.vhosts.values()):
        values, value_bytes = engine.kept.values.held(vhost.name)
        retained += values
        retained_bytes += value_bytes
        queues = list(vhost.queues.values())
        for start in range(0, len(queues), QUEUES_PER_TURN):
            for queue in queues[start : start + QUEUES_PER_TURN]:
                messages += queue.count
                body_bytes += queue.body_bytes
            await trio.lowlevel.checkpoint()
    mine = f"{name}.dropped"
    dropped = sum(amount for key, amount in counters.items() if key == mine or key.startswith(("dropped.", f"{mine}.")))
    return Stats(messages, body_bytes, retained, retained_bytes, dropped, sent_bytes)
