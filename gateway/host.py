"""Which front-ends are there, and how is each doing?"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

import pluggy
import trio

from gateway.api import (
    API_VERSION,
    COMMON,
    ENTRY_POINT_GROUP,
    PROJECT,
    AsksItsPeers,
    ConfigError,
    Credentials,
    FrontEnd,
    Gateway,
    LetInFirst,
    ListenError,
    Log,
    OwnSockets,
    WireDecoder,
    WritesWire,
    hooks,
)
from gateway.api.address import place_of
from gateway.config import DEFAULT_FRONT_ENDS, Config, Transport
from gateway.errors import PluginLoadError
from gateway.runtime.streams.certificates import check

if TYPE_CHECKING:
    import typer

OLDEST_API_VERSION = max(1, API_VERSION - 1)
_NEEDED = ("name", "settings_model", "addresses", "hints", "serve")


class State(Enum):
    """Where a front-end is in its life."""

    BROKEN = "its plugin can't be used"
    FOUND = "found"
    DISABLED = "switched off by the configuration"
    UNNAMED = "not named by the configuration"
    CONFIGURED = "its settings are valid"
    STARTING = "starting"
    READY = "ready"
    FAILED = "ended by an error"
    DRAINING = "sending what it has"
    CLOSED = "closed"


@dataclass(eq=False, slots=True)
class Service:
    """One front-end under the host's eyes; `error` says why it is broken or failed."""

    name: str
    distribution: str
    front_end: FrontEnd | None = None
    state: State = State.FOUND
    error: str = ""
    settings: Any = None
    addresses: Sequence[str] = ()
    guarded: frozenset[str] = frozenset()
    credentials: Sequence[Credentials] = ()
    transport: Transport = field(default_factory=Transport)
    listeners: list[str] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def is_running(self) -> bool:
        """It has been started, and has not ended."""
        return self.state in (State.STARTING, State.READY, State.DRAINING)

    def end(self, state: State, error: str = "") -> None:
        """Note that nothing of it runs any more."""
        self.state, self.error = state, error
        self.ended.set()


class RootLog(Log, Protocol):
    """A log that gives logs which say where they come from."""

    def bind(self, **values: Any) -> RootLog:
        """Return a log that adds these to every line."""


class Gateways(Protocol):
    """Who gives every front-end its view of the broker."""

    def gateway(self, front_end: str, announce: Callable[[str], None], log: Log, *, transport: Transport) -> Gateway:
        """Return the view that one front-end gets."""


class Host:
    """The plugins of one gateway, and the front-ends that they gave.

    Life: `discover`, `configure`, `start`, `drain`. Every step leaves the states visible in `services`.

    Args:
        log: where broken plugins and failed front-ends are named.
    """

    def __init__(self, log: RootLog) -> None:
        self._log = log
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hooks)
        self.services: dict[str, Service] = {}

    def discover(self, found: Iterable[EntryPoint] | None = None) -> None:
        """Load every plugin that is installed. One that can't be loaded is named, with its distribution, and left out."""
        for entry in found if found is not None else entry_points(group=ENTRY_POINT_GROUP):
            distribution = _distribution(entry)
            try:
                for front_end in self._load(entry):
                    self.services[front_end.name] = Service(front_end.name, distribution, front_end)
            except (Exception, SystemExit) as error:  # whatever a stranger's module does
                self._break(Service(entry.name, distribution), error)

    def wire_decoders(self) -> dict[str, WireDecoder]:
        """Return who reads the bytes of which tag: of all front-ends that were loaded, enabled or not."""
        front_ends = [service.front_end for service in self.services.values() if service.front_end is not None]
        return {tag: decoder for front_end in front_ends for tag, decoder in _decoders_of(front_end).items()}

    def commands(self) -> list[typer.Typer]:
        """Return the command-line applications of all plugins; one that fails is named and left out."""
        commands: list[typer.Typer] = []
        for name, plugin in self._manager.list_name_plugin():
            try:
                commands += self._call(plugin, "tidegate_commands")
            except Exception as error:  # an edge: a plugin's hook
                self._log.error("plugin has no commands: its hook failed", plugin=name, error=_text(error))
        return commands

    def configure(self, config: Config) -> None:
        """Give every front-end its settings.

        Raises:
            ConfigError: a section is nobody's, or a setting is wrong; names file, key and what is allowed.
        """
        for name in config.frontend:
            if name not in self.services:
                self._check_absent(config, name)
        for service in self.services.values():
            if service.front_end is None:
                self._say_if_missed(config, service)
            else:
                self._configure(config, service, service.front_end)

    def check_addresses(self, config: Config) -> None:
        """See that no two listeners would have one address.

        Raises:
            ConfigError: names the address and who wants it.
        """
        taken: dict[str, str] = {}
        configured = [service for service in self.services.values() if service.state is State.CONFIGURED]
        for name, address in [(service.name, address) for service in configured for address in service.addresses]:
            place = place_of(address)
            if place is None:
                continue
            if place in taken:
                both = "twice" if taken[place] == name else f"as well as frontend.{taken[place]}"
                raise config.origin.complaint(("frontend", name), f"would listen on {address} {both}: choose another one")
            taken[place] = name

    def standing(self) -> list[Credentials]:
        """Return what the configured front-ends will say of themselves when they start, before they know any peer."""
        configured = [service for service in self.services.values() if service.state is State.CONFIGURED]
        return [credentials for service in configured for credentials in service.credentials]

    def beyond(self, is_local: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Return front-end and address of everything that others than this machine will reach without saying who they are."""
        configured = [service for service in self.services.values() if service.state is State.CONFIGURED]
        return [
            (service.name, address)
            for service in configured
            for address in service.addresses
            if not is_local(address) and address not in service.guarded
        ]

    async def start(self, nursery: trio.Nursery, gateways: Gateways, say: Callable[[str], None]) -> None:
        """Start every configured front-end, one after the other; each is ready, or failed and logged, at the end.

        Args:
            nursery: runs them; none of them ends it.
            say: gets a line ``listening <front-end> <address>`` per listener.

        Raises:
            ListenError, ConfigError: a front-end can't bind, before it was ready.
        Cancellation: those that are ready go on; end them with `drain`.
        """
        for service in self.services.values():
            if service.front_end is not None and service.state is State.CONFIGURED:
                log = self._log.bind(front_end=service.name)
                gateway = gateways.gateway(service.name, _announcer(service, say), log, transport=service.transport)
                await nursery.start(self._supervise, service, service.front_end, gateway)

    def hints(self) -> Iterator[str]:
        """Yield the lines that the front-ends that are ready have for newcomers."""
        for service in self.services.values():
            if service.front_end is not None and service.state is State.READY:
                try:
                    yield from list(service.front_end.hints(service.listeners))
                except Exception as error:  # an edge: a plugin's method
                    self._log.error("front-end has no hints", front_end=service.name, error=_text(error))

    async def drain(self, timeout_s: float) -> None:
        """Wait until all front-ends have returned (the broker told them to drain); cut off those that take longer.

        Cancellation: safe; what runs goes on.
        """
        running = [service for service in self.services.values() if service.is_running]
        for service in running:
            service.state = State.DRAINING
        with trio.move_on_after(timeout_s):
            for service in running:
                await service.ended.wait()
        for service in running:
            if not service.ended.is_set():
                self._log.warning("front-end is cut off: it was not done in time", front_end=service.name, timeout_s=timeout_s)
                service.scope.cancel()
                await service.ended.wait()

    def _load(self, entry: EntryPoint) -> list[FrontEnd]:
        plugin = entry.load()
        version = getattr(plugin, "tidegate_api", API_VERSION)
        if not OLDEST_API_VERSION <= version <= API_VERSION:
            raise PluginLoadError(f"it is for version {version} of the plugin API, this is version {API_VERSION}")
        self._manager.register(plugin, entry.name)
        try:
            self._manager.check_pending()
            front_ends = self._call(plugin, "tidegate_frontends")
            self._check(front_ends)
        except BaseException:
            self._manager.unregister(plugin)
            raise
        return front_ends

    def _call(self, plugin: Any, hook: str) -> list[Any]:
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        answers = self._manager.subset_hook_caller(hook, others)()
        return [item for answer in answers for item in answer]

    def _check(self, front_ends: list[FrontEnd]) -> None:
        tags = {"", COMMON, *self.wire_decoders()}
        taken = {service.name: service.distribution for service in self.services.values() if service.front_end is not None}
        for front_end in front_ends:
            missing = [name for name in _NEEDED if not hasattr(front_end, name)]
            if missing:
                raise PluginLoadError(f"its front-end {front_end!r} has no {', '.join(missing)}")
            if front_end.name in taken:
                raise PluginLoadError(f"its front-end is called {front_end.name!r}, as the one of {taken[front_end.name]}")
            taken[front_end.name] = "the same plugin"
            twice = sorted(tags & _decoders_of(front_end).keys())
            if twice:
                raise PluginLoadError(
                    f"its front-end {front_end.name!r} has a wire tag that is taken: {', '.join(map(repr, twice))}"
                )
            tags |= _decoders_of(front_end).keys()

    def _break(self, service: Service, error: BaseException) -> None:
        service.end(State.BROKEN, _text(error))
        known = self.services.setdefault(service.name, service)
        if known is not service:
            self.services[f"{service.name} ({service.distribution})"] = service
        self._log.error("plugin is broken", plugin=service.name, distribution=service.distribution, error=service.error)

    def _check_absent(self, config: Config, name: str) -> None:
        key = ("frontend", name)
        if name not in DEFAULT_FRONT_ENDS or config.enabled(name):
            installed = sorted(service.name for service in self.services.values())
            near = difflib.get_close_matches(name, installed, n=1)
            hint = f"; did you mean frontend.{near[0]}?" if near else "."
            raise config.origin.complaint(key, f"is no front-end{hint} Installed: {', '.join(installed) or 'none'}")

    def _say_if_missed(self, config: Config, service: Service) -> None:
        if config.enabled(service.name):
            self._log.error(
                "a front-end that the configuration enables is missing: its plugin is broken",
                front_end=service.name,
                distribution=service.distribution,
            )

    def _configure(self, config: Config, service: Service, front_end: FrontEnd) -> None:
        own_sockets = isinstance(front_end, OwnSockets)
        try:
            service.settings = config.validated_front_end(service.name, front_end.settings_model, own_sockets=own_sockets)
            service.addresses = tuple(front_end.addresses(service.settings))
            if isinstance(front_end, AsksItsPeers):
                service.guarded = frozenset(front_end.guarded(service.settings))
            if isinstance(front_end, LetInFirst):
                service.credentials = tuple(front_end.credentials(service.settings))
        except ConfigError:
            raise
        except Exception as error:  # an edge: a plugin's validators and method
            self._break(service, error)
            return
        if config.enabled(service.name):
            if not own_sockets:
                service.transport = config.transport(service.name)
                check(service.transport, service.addresses)
            service.state = State.CONFIGURED
        else:
            service.end(State.DISABLED if service.name in config.frontend else State.UNNAMED)

    async def _supervise(
        self, service: Service, front_end: FrontEnd, gateway: Gateway, *, task_status: trio.TaskStatus[None]
    ) -> None:
        status = _Status(service, task_status)
        service.state = State.STARTING
        try:
            with service.scope:
                await front_end.serve(gateway, service.settings, task_status=status)
        except Exception as error:  # an edge: one front-end
            service.end(State.FAILED, _text(error))
            fatal = None if status.is_started else _first(error, (ListenError, ConfigError))
            if fatal is not None:
                raise fatal from error
            self._log.error(
                "front-end failed: nothing listens for it any more; the broker goes on",
                front_end=service.name,
                distribution=service.distribution,
                error=service.error,
                exc_info=error,
            )
        else:
            self._note_return(service)
        finally:
            if not service.ended.is_set():  # cancelled while it started
                service.end(State.CLOSED)
        status.started()

    def _note_return(self, service: Service) -> None:
        if service.state is State.DRAINING:
            service.end(State.CLOSED)
            return
        service.end(State.FAILED, "it returned, though nobody asked it to")
        self._log.error("front-end ended on its own", front_end=service.name, distribution=service.distribution)


def _decoders_of(front_end: FrontEnd) -> Mapping[str, WireDecoder]:
    return front_end.wire_decoders if isinstance(front_end, WritesWire) else {}


class _Status:
    """The task status that a front-end gets: notes that it is ready."""

    def __init__(self, service: Service, task_status: trio.TaskStatus[None]) -> None:
        self._service = service
        self._task_status = task_status
        self.is_started = False

    def started(self, value: None = None) -> None:
        """Pass it on, once."""
        if self.is_started:
            return
        self.is_started = True
        if self._service.state is State.STARTING:
            self._service.state = State.READY
        self._task_status.started()


def _announcer(service: Service, say: Callable[[str], None]) -> Callable[[str], None]:
    def announce(line: str) -> None:
        service.listeners.append(line)
        say(f"listening {service.name} {line}")

    return announce


def _distribution(entry: EntryPoint) -> str:
    distribution = entry.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else "an unknown distribution"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _first(error: BaseException, kinds: tuple[type[Exception], ...]) -> Exception | None:
    if isinstance(error, BaseExceptionGroup):
        return next((leaf for inner in error.exceptions if (leaf := _first(inner, kinds)) is not None), None)
    return error if isinstance(error, kinds) else None
