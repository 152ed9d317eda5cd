"""Which hooks does the AMQP plugin offer, with which settings?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.api import FrontEnd, Gateway, WireDecoder, hookimpl, reachable, tcp_address
from gateway_amqp.server import Server
from gateway_amqp.settings import AmqpSettings
from gateway_amqp.translate.properties import WIRE_TAG, read_wire

if TYPE_CHECKING:
    import trio


class AmqpFrontEnd:
    """AMQP 0-9-1, as RabbitMQ speaks it (`gateway.api.FrontEnd` and `WritesWire` say what each method does)."""

    name = "amqp"
    settings_model: type[Any] = AmqpSettings
    wire_decoders: Mapping[str, WireDecoder] = {WIRE_TAG: read_wire}

    def addresses(self, settings: AmqpSettings) -> Sequence[str]:
        """See `gateway.api.FrontEnd.addresses`."""
        return settings.listen

    def hints(self, listeners: Sequence[str]) -> Sequence[str]:
        """See `gateway.api.FrontEnd.hints`."""
        plain = next((listener for listener in listeners if listener.startswith("tcp://")), None)
        if plain is None:
            return ()
        host, port = tcp_address(reachable(plain))
        where = f"amqp://guest:guest@{f'[{host}]' if ':' in host else host}:{port}"
        return (f"amqp-publish -u {where} -e amq.topic -r demo.hello -b world",)

    async def serve(self, gateway: Gateway, settings: AmqpSettings, *, task_status: trio.TaskStatus[None]) -> None:
        """See `gateway.api.FrontEnd.serve`."""
        await Server(gateway, settings).run(task_status=task_status)


@hookimpl
def tidegate_frontends() -> Sequence[FrontEnd]:
    """Offer the AMQP front-end."""
    return [AmqpFrontEnd()]
