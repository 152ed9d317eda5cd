"""Which hooks does the MQTT plugin offer, with which settings?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.api import FrontEnd, Gateway, WireDecoder, hookimpl, reachable, tcp_address
from gateway_mqtt.commands import app
from gateway_mqtt.server import Server
from gateway_mqtt.settings import MqttSettings
from gateway_mqtt.translate.properties import WIRE_TAG, read_wire

if TYPE_CHECKING:
    import trio
    import typer


class MqttFrontEnd:
    """MQTT 3.1, 3.1.1 and 5.0 (`gateway.api.FrontEnd` and `WritesWire` say what each method does)."""

    name = "mqtt"
    settings_model: type[Any] = MqttSettings
    wire_decoders: Mapping[str, WireDecoder] = {WIRE_TAG: read_wire}

    def addresses(self, settings: MqttSettings) -> Sequence[str]:
        """See `gateway.api.FrontEnd.addresses`."""
        return settings.listen

    def hints(self, listeners: Sequence[str]) -> Sequence[str]:
        """See `gateway.api.FrontEnd.hints`."""
        plain = next((listener for listener in listeners if listener.startswith("tcp://")), None)
        if plain is None:  # the commands speak plain TCP
            return ()
        host, port = tcp_address(reachable(plain))
        to = "" if (host, port) == ("127.0.0.1", 1883) else f" -h {host} -p {port}"
        return (f"tidegate sub{to} 'demo/#' -v", f"tidegate pub{to} demo/hello world -q 1")

    async def serve(self, gateway: Gateway, settings: MqttSettings, *, task_status: trio.TaskStatus[None]) -> None:
        """See `gateway.api.FrontEnd.serve`."""
        await Server(gateway, settings).run(task_status=task_status)


@hookimpl
def tidegate_frontends() -> Sequence[FrontEnd]:
    """Offer the MQTT front-end."""
    return [MqttFrontEnd()]


@hookimpl
def tidegate_commands() -> Sequence[typer.Typer]:
    """Offer ``tidegate pub`` and ``tidegate sub``."""
    return [app]
