"""What do both commands have in common: where to connect, and as whom?"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import unquote, urlsplit

import typer

from gateway_mqtt.client import Place, Tls
from gateway_mqtt.codec.coding import topic_name
from gateway_mqtt.codec.packets import Connect, MalformedPacket, Will
from gateway_mqtt.codec.properties import NO_PROPERTIES
from gateway_mqtt.commands.properties import properties_of

PORT, TLS_PORT = 1883, 8883
FOR_EVER_S = 0xFFFF_FFFF
LEVEL_5 = 5
_LEVELS = {"31": 3, "311": 4, "5": 5, "mqttv31": 3, "mqttv311": 4, "mqttv5": 5}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as whom. ``topic`` is what a URL names; ``quiet``: nobody wants to hear what goes wrong."""

    place: Place
    connect: Connect
    topic: str = ""
    quiet: bool = False


@dataclass(frozen=True)
class ConnectionOptions:
    """The options that both commands have; the names are mosquitto's."""

    host: Annotated[str | None, typer.Option("-h", "--host", help="Host of the broker. [default: 127.0.0.1]")] = None
    port: Annotated[int | None, typer.Option("-p", "--port", min=1, max=65_535, help="Its port. [default: 1883, TLS 8883]")] = None
    url: Annotated[str | None, typer.Option("-L", "--url", help="All in one: mqtt(s)://[user[:password]@]host[:port][/topic]")] = (
        None
    )
    unix: Annotated[str | None, typer.Option("--unix", help="Path of the broker's Unix socket, in place of host and port.")] = None
    version: Annotated[str, typer.Option("-V", "--protocol-version", help="mqttv31, mqttv311 or mqttv5.")] = "mqttv311"
    client_id: Annotated[str | None, typer.Option("-i", "--id", help="Client identifier; by default a random one.")] = None
    id_prefix: Annotated[
        str | None, typer.Option("-I", "--id-prefix", help="Client identifier: this, and the process's number.")
    ] = None
    user: Annotated[str | None, typer.Option("-u", "--username", help="User name.")] = None
    password: Annotated[str | None, typer.Option("-P", "--pw", help="Password.")] = None
    keep_alive_s: Annotated[int, typer.Option("-k", "--keepalive", min=0, max=65_535, help="Keep alive, in seconds; 0: none.")] = 60
    persistent: Annotated[bool, typer.Option("-c", "--disable-clean-session", help="Persistent session; needs -i.")] = False
    session_expiry_s: Annotated[
        int | None,
        typer.Option(
            "-x", "--session-expiry-interval", min=-1, max=FOR_EVER_S, help="Seconds a session outlasts us; -1: for ever."
        ),
    ] = None
    will_topic: Annotated[str | None, typer.Option("--will-topic", help="Topic of the will.")] = None
    will_payload: Annotated[str | None, typer.Option("--will-payload", help="Payload of the will.")] = None
    will_qos: Annotated[int, typer.Option("--will-qos", min=0, max=2, help="Quality of service of the will.")] = 0
    will_retain: Annotated[bool, typer.Option("--will-retain", help="Retain the will.")] = False
    ca_file: Annotated[Path | None, typer.Option("--cafile", exists=True, help="Certificates to trust; means TLS.")] = None
    certificate: Annotated[Path | None, typer.Option("--cert", exists=True, help="Our certificate; means TLS.")] = None
    key: Annotated[Path | None, typer.Option("--key", exists=True, help="The key of our certificate.")] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="TLS without a check of the broker's certificate.")] = False
    system_certificates: Annotated[bool, typer.Option("--tls-use-os-certs", help="TLS with the system's certificates.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing of what goes wrong; the exit code does.")] = False
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "-D",
            "--property",
            metavar="PACKET NAME VALUE",
            help="MQTT 5: a property of connect, publish, subscribe or will; a user-property has two values. Repeatable.",
        ),
    ] = None

    def target(self) -> Target:
        """Return where to connect, and as whom.

        Raises:
            typer.BadParameter: options that don't go together, or can't be.
        """
        level = _LEVELS.get(self.version)
        if level is None:
            raise typer.BadParameter(f"-V {self.version!r}: known are mqttv31, mqttv311 and mqttv5 (or 31, 311, 5)")
        if level < LEVEL_5 and (self.properties or self.session_expiry_s is not None):
            raise typer.BadParameter("-D and -x need -V mqttv5")
        place, user, password, topic = self._place()
        return Target(place, self._connect(level, user, password), topic, self.quiet)

    def _place(self) -> tuple[Place, str | None, str | None, str]:
        secure = bool(self.ca_file or self.certificate or self.insecure or self.system_certificates)
        host, port, user, password, topic = self.host, self.port, self.user, self.password, ""
        if self.unix is not None:
            if host is not None or port is not None or self.url is not None:
                raise typer.BadParameter("--unix stands in place of -h, -p and -L")
            return Place(path=self.unix), user, password, topic
        if self.url is not None:
            if host is not None or port is not None:
                raise typer.BadParameter("-L stands in place of -h and -p")
            parts = _split(self.url)
            secure = secure or parts.scheme == "mqtts"
            host, port, topic = parts.hostname, parts.port, unquote(parts.path[1:])
            user = unquote(parts.username) if parts.username is not None else user
            password = unquote(parts.password) if parts.password is not None else password
        tls = Tls(_path(self.ca_file), _path(self.certificate), _path(self.key), self.insecure) if secure else None
        return Place(host or "127.0.0.1", port or (TLS_PORT if secure else PORT), tls), user, password, topic

    def _connect(self, level: int, user: str | None, password: str | None) -> Connect:
        if self.client_id is not None and self.id_prefix is not None:
            raise typer.BadParameter("-i and -I are both given")
        if self.persistent and not (self.client_id or self.id_prefix):
            raise typer.BadParameter("a persistent session (-c) needs a client identifier (-i)")
        if password is not None and user is None and level < LEVEL_5:
            raise typer.BadParameter("a password (-P) needs a user name (-u)")
        properties = properties_of(self.properties or (), "connect")
        expiry_s = FOR_EVER_S if self.session_expiry_s == -1 else self.session_expiry_s
        if level == LEVEL_5 and (expiry_s is not None or (self.persistent and properties.session_expiry_s is None)):
            properties = replace(properties, session_expiry_s=FOR_EVER_S if expiry_s is None else expiry_s)
        secret = None if password is None else os.fsencode(password)
        return Connect(
            self._identifier(), not self.persistent, self.keep_alive_s, self._will(), user, secret, level, properties=properties
        )

    def _identifier(self) -> str:
        if self.id_prefix is not None:
            return f"{self.id_prefix}{os.getpid()}"
        return self.client_id if self.client_id is not None else f"tidegate-{secrets.token_hex(6)}"

    def _will(self) -> Will | None:
        properties = properties_of(self.properties or (), "will")
        if self.will_topic is None:
            if self.will_payload is not None or self.will_qos or self.will_retain or properties != NO_PROPERTIES:
                raise typer.BadParameter("a will needs --will-topic")
            return None
        topic = checked(self.will_topic, topic_name)
        return Will(topic, os.fsencode(self.will_payload or ""), self.will_qos, self.will_retain, properties)


def _path(path: Path | None) -> str:
    return str(path) if path is not None else ""


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        if parts.scheme in {"mqtt", "mqtts"} and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise typer.BadParameter(f"-L {url!r}: must be mqtt://[user[:password]@]host[:port][/topic], or mqtts://...")


def checked(value: str, check: Callable[[bytes], str]) -> str:
    """Return a topic name or filter.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return check(os.fsencode(value))
    except MalformedPacket as error:
        raise typer.BadParameter(f"{value!r}: {error.reason}") from None


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; it is called with ``connection``, a `ConnectionOptions`."""
    hints = get_type_hints(ConnectionOptions, include_extras=True)
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(ConnectionOptions)
    ]
    own_hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=own_hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "connection"
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        connection = ConnectionOptions(**{parameter.name: given.pop(parameter.name) for parameter in shared})
        command(connection=connection, **given)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
    del run.__wrapped__  # typer would look at the command that it wraps
    return run
