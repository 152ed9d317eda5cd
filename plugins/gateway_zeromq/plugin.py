"""Which hooks does the ZeroMQ plugin offer, with which settings?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.api import ConfigError, Credentials, FrontEnd, Gateway, WireDecoder, hookimpl, reachable
from gateway_zeromq.commands import app
from gateway_zeromq.endpoints.guard import standing
from gateway_zeromq.mdp.translate import WIRE_TAG, read_wire
from gateway_zeromq.server import Server
from gateway_zeromq.settings import SETTING, ZeroMqSettings
from gateway_zeromq.settings.common import INPROC

if TYPE_CHECKING:
    import trio
    import typer
    import zmq

_SOCKET = "python -c \"import zmq; s = zmq.Context().socket(zmq.{}); s.connect('{}'); {}\""
_CLIENT = "python -c \"from gateway.client import connect; connect('{}').publish('amq.topic', 'demo.hello', b'world', wait=True)\""
_USUAL_PULL = "tcp://127.0.0.1:5557"
"""Only of this one it is known which frames it wants."""


class ZeroMqFrontEnd:
    """ZeroMQ sockets: for plain peers, and ROUTER with TGP/1 (`gateway.api.FrontEnd` says what each method does).

    Args:
        context: of a program that has the broker inside, so that its sockets can use ``inproc://``; it stays the program's.
    """

    name = "zeromq"
    settings_model: type[Any] = ZeroMqSettings
    own_sockets = True
    wire_decoders: Mapping[str, WireDecoder] = {WIRE_TAG: read_wire}

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self._context = context
        self._server: Server | None = None

    def addresses(self, settings: ZeroMqSettings) -> Sequence[str]:
        """See `gateway.api.FrontEnd.addresses`."""
        if self._context is None:
            for address in (address for endpoint in settings.endpoint for address in (*endpoint.bind, *endpoint.connect)):
                if address.startswith(INPROC):
                    raise ConfigError(
                        f"{address} would be heard by nobody: inproc addresses are for programs that have the broker in their "
                        f"own process. Use ipc://PATH ({SETTING})"
                    )
        return [address for endpoint in settings.endpoint for address in endpoint.bind]

    def credentials(self, settings: ZeroMqSettings) -> Sequence[Credentials]:
        """See `gateway.api.LetInFirst.credentials`: one per endpoint that can't ask its peers."""
        asked = (standing(name, endpoint) for name, endpoint in settings.named())
        return [credentials for credentials in asked if credentials is not None]

    def guarded(self, settings: ZeroMqSettings) -> Sequence[str]:
        """See `gateway.api.AsksItsPeers.guarded`: where keys or passwords are asked for."""
        return [address for endpoint in settings.endpoint if endpoint.security != "null" for address in endpoint.bind]

    def hints(self, listeners: Sequence[str]) -> Sequence[str]:
        """See `gateway.api.FrontEnd.hints`: one line for the first socket of each kind."""
        first: dict[str, str] = {}
        for line in listeners:
            if self._server is not None and self._server.is_guarded(line):
                continue  # whoever pastes it has no key
            kind, _, address = line.partition(" ")
            first.setdefault(kind, reachable(address))
        lines = []
        if "PUSH" in first:
            lines.append(_SOCKET.format("PULL", first["PUSH"], "print(s.recv_multipart())"))
        if first.get("PULL") == _USUAL_PULL:
            say = "s.send_multipart([b'zeromq.push.demo', b'hello']); s.context.destroy()"  # else Python ends before it has left
            lines.append(_SOCKET.format("PUSH", _USUAL_PULL, say))
        if "XPUB" in first:
            lines.append(_SOCKET.format("SUB", first["XPUB"], "s.subscribe(b''); print(s.recv_multipart())"))
        if "ROUTER" in first:
            lines.append(_CLIENT.format(first["ROUTER"]))
        return lines

    async def serve(self, gateway: Gateway, settings: ZeroMqSettings, *, task_status: trio.TaskStatus[None]) -> None:
        """See `gateway.api.FrontEnd.serve`."""
        self.addresses(settings)
        self._server = Server(gateway, settings, self._context)
        await self._server.run(task_status=task_status)


@hookimpl
def tidegate_frontends() -> Sequence[FrontEnd]:
    """Offer the ZeroMQ front-end."""
    return [ZeroMqFrontEnd()]


@hookimpl
def tidegate_commands() -> Sequence[typer.Typer]:
    """Offer ``tidegate curve-keygen`` and ``tidegate password-hash``."""
    return [app]
