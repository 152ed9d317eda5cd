"""What stands between an endpoint's socket and its peers?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zmq

from gateway.api import AccessRefused, ConfigError, Credentials, Gateway, Principal
from gateway_zeromq.security.clients import ClientKeys
from gateway_zeromq.security.crowd import Crowd
from gateway_zeromq.security.gatekeeper import Door, Gatekeeper
from gateway_zeromq.security.keys import KeyFileError, Pair, load_pair, load_public, read
from gateway_zeromq.security.realm import CurveJudge, PlainJudge, Realm
from gateway_zeromq.settings import SETTING, AnyEndpoint
from gateway_zeromq.settings.security import is_loopback

HANDSHAKE_MS = 15_000
"""What a peer has for its handshake, the question whether it may come in included."""
QUICK_HANDSHAKE_MS = 3_000
"""The same where it has to prove nothing: whoever connects and says nothing has a place among `max_peers` for so long."""
_APART = "\x1f"
"""Between a domain and a number; in no name that settings have."""
_USER_ID = "User-Id"


def credentials_of(name: str, settings: AnyEndpoint) -> Credentials:
    """Return as whom an endpoint asks to be let in: for all of its peers if it can't ask them, else for itself alone."""
    if settings.security != "null":
        return Credentials("endpoint", f"endpoint/{name}", front_end="zeromq", peer=name, loopback=True, verified=True)
    loopback = all(map(is_loopback, settings.bind))
    return Credentials(front_end="zeromq", peer=name, loopback=loopback)


def standing(name: str, settings: AnyEndpoint) -> Credentials | None:
    """Return what must be let in if anybody is to be; None: that depends on who comes."""
    if settings.security == "plain" and settings.bind and not settings.users:
        return Credentials("password", "somebody", b"", front_end="zeromq", peer=name, loopback=True)
    return credentials_of(name, settings) if settings.security == "null" else None


class Guard:
    """One endpoint's security.

    ``realm``: who is let in; None: the endpoint connects, and knows its peer by its key or address, but not by a name, or it
    lets in whoever comes. ``crowd``: how many are let in; None: any number.
    """

    def __init__(self, domain: str, settings: AnyEndpoint, realm: Realm | None, crowd: Crowd | None = None) -> None:
        self.domain = domain
        self.realm = realm
        self.crowd = crowd
        self._settings = settings
        self._pair: Pair | None = None if settings.secret_key_file is None else load_pair(Path(settings.secret_key_file))
        self._server_key = None if settings.server_key_file is None else load_public(Path(settings.server_key_file))
        self._password = None if settings.password_file is None else _first_line(Path(settings.password_file))

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Set up a socket. Before it is bound or connected.

        Without a domain, or with one that is not enforced, libzmq lets strangers in as soon as nobody answers its questions.
        """
        socket.setsockopt(zmq.ZAP_DOMAIN, self.domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self._settings.security == "null":
            socket.setsockopt(zmq.HANDSHAKE_IVL, QUICK_HANDSHAKE_MS)
        elif self._pair is not None:
            self._secure_by_key(socket, self._pair)
        elif self.realm is not None:
            socket.setsockopt(zmq.PLAIN_SERVER, 1)
        else:
            socket.setsockopt_string(zmq.PLAIN_USERNAME, self._settings.user or "")
            socket.setsockopt_string(zmq.PLAIN_PASSWORD, self._password or "")
        self.check(socket)

    def _secure_by_key(self, socket: zmq.Socket[bytes], pair: Pair) -> None:
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        if self._server_key is None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
        else:
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._server_key)

    def check(self, socket: zmq.Socket[bytes]) -> None:
        """See that a socket is what it must be. Raises: ConfigError: libzmq did not take it."""
        wanted = {"null": zmq.NULL, "plain": zmq.PLAIN, "curve": zmq.CURVE}[self._settings.security]
        enforced = socket.get(zmq.ZAP_DOMAIN) and socket.get(zmq.ZAP_ENFORCE_DOMAIN)
        if socket.get(zmq.MECHANISM) != wanted or not enforced:
            raise ConfigError(
                f'security = "{self._settings.security}" can\'t be had from this libzmq: it is not opened ({SETTING})'
            )

    def user_of(self, frame: zmq.Frame) -> str | None:
        """Return who sent a message, by any of its frames; None: a peer that was connected to."""
        if self.realm is None:
            return None
        try:
            return str(frame.get(_USER_ID))
        except zmq.ZMQError:  # it came some way around the handshake
            return ""

    def principal_of(self, user: str | None, own: Principal) -> Principal:
        """Return as whom a user acts; `own` for the peer that was connected to. Raises: AccessRefused: nobody was let in so."""
        if self.realm is None:
            return own
        principal = self.realm.principal_of(user or "")
        if principal is None:
            raise AccessRefused(f"nobody was let in as {user!r}")
        return principal


class Guards:
    """The security of all endpoints.

    Args:
        gateway: the host.
        context: of all sockets.
        endpoints: with their names.

    Raises:
        ConfigError: a key can't be read, or two endpoints contradict each other or have one ZAP domain by mistake.
    """

    def __init__(
        self, gateway: Gateway, context: zmq.Context[zmq.Socket[bytes]], endpoints: Iterable[tuple[str, AnyEndpoint]]
    ) -> None:
        self._gateway = gateway
        self._realms: dict[str, Realm] = {}
        self._rules: dict[str, tuple[str, Any]] = {}
        self._judges: dict[str, CurveJudge] = {}
        self._doors: dict[str, Door] = {}
        self._guards = {
            name: self._guard(name, settings)
            for name, settings in endpoints
            if settings.security != "null" or settings.counts_connections
        }
        self._gatekeeper = Gatekeeper(gateway, context, self._doors)

    def of(self, name: str) -> Guard | None:
        """Return an endpoint's guard; None: it lets in whoever comes."""
        return self._guards.get(name)

    def _guard(self, name: str, settings: AnyEndpoint) -> Guard:
        domain = settings.domain or name
        with_key = settings.security == "curve"
        if with_key and not zmq.has("curve"):
            raise ConfigError(f'ZeroMQ endpoint {name!r}: security = "curve", and this libzmq is built without it ({SETTING})')
        try:
            realm = self._realm(name, domain, settings) if settings.bind and settings.security != "null" else None
            return self._door(name, domain, settings, realm)
        except KeyFileError as error:
            raise ConfigError(f"ZeroMQ endpoint {name!r}: {error} ({SETTING})") from error

    def _door(self, name: str, domain: str, settings: AnyEndpoint, realm: Realm | None) -> Guard:
        crowd = None
        if settings.counts_connections and settings.max_peers is not None:
            # libzmq does not say at which endpoint somebody asks, but for the domain: this is its own.
            crowd = Crowd(name, settings.max_peers)
            domain = f"{domain}{_APART}{len(self._doors)}"
        if realm is not None or crowd is not None:
            door = Door(realm, crowd)
            if self._doors.setdefault(domain, door) != door:  # it must never be another one's: that may let in anybody
                raise ConfigError(f"ZeroMQ endpoint {name!r} has the ZAP domain of another one: rename one of them ({SETTING})")
        return Guard(domain, settings, realm, crowd)

    def _realm(self, name: str, domain: str, settings: AnyEndpoint) -> Realm:
        rule = (name, (settings.security, settings.client_keys, settings.users))
        first, known = self._rules.setdefault(domain, rule)
        if known != rule[1]:
            raise ConfigError(
                f"ZeroMQ endpoints {first!r} and {name!r} have the domain {domain!r}, and let different peers in: "
                f"give them domains of their own ({SETTING})"
            )
        if domain not in self._realms:
            self._realms[domain] = Realm(domain, self._judge(name, settings), self._gateway)
        return self._realms[domain]

    def _judge(self, name: str, settings: AnyEndpoint) -> CurveJudge | PlainJudge:
        if settings.client_keys is None:
            if not settings.users:
                self._gateway.log.warning("passwords are the broker's to check: the endpoint has no users", endpoint=name)
            return PlainJudge(settings.users)
        judge = self._judges[name] = CurveJudge(ClientKeys(Path(settings.client_keys)), self._gateway)
        return judge

    def open(self) -> None:
        """Read the clients' keys, and be there for libzmq's questions: before any socket is bound.

        Raises:
            ConfigError: there are none, or one of them is wrong.
        """
        for name, judge in self._judges.items():
            try:
                judge.load()
            except KeyFileError as error:
                raise ConfigError(f"ZeroMQ endpoint {name!r}: {error} ({SETTING}, client_keys)") from error
        if self._doors:
            self._listen()

    def _listen(self) -> None:
        try:
            self._gatekeeper.open()
        except zmq.ZMQError as error:
            reason = zmq.strerror(error.errno or 0).lower()
            raise ConfigError(
                f"somebody else answers for the security of this program's ZeroMQ context ({reason}): "
                f"endpoints with security or max_peers need a context of their own ({SETTING})"
            ) from error

    async def run(self) -> None:
        """Answer libzmq's questions, until cancelled or closed. Errors and cancellation as `Gatekeeper.run`."""
        if self._doors:
            await self._gatekeeper.run()

    def close(self) -> None:
        """Answer no more."""
        self._gatekeeper.close()


def _first_line(path: Path) -> str:
    lines = read(path).splitlines()
    if not lines or not lines[0]:
        raise KeyFileError(f"{path}: its first line is no password")
    return lines[0]
