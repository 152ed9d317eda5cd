"""How do configuration, journal, broker and front-ends become one running program?"""

from __future__ import annotations

import gc
import importlib.metadata
import io
import os
import resource
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TextIO

import trio

from gateway.admin import control
from gateway.admin.definitions_file import define
from gateway.api import ConfigError, ListenError, Log
from gateway.config import Config
from gateway.errors import GatewayError, JournalError, JournalLocked, JournalUnwritable
from gateway.host import Host, RootLog, State
from gateway.journal.port import Journal
from gateway.log import make_log
from gateway.runtime.broker import Broker
from gateway.security import Authentication, anonymous_access, check_standing, is_local
from gateway.shell import own_command, own_python
from gateway.version import version_line

Say = Callable[[str], None]

_FILES_BESIDE_CONNECTIONS = 1_000
_CLOSING_S = 3.0
"""What front-ends have, after the broker has told their connections to end, to see goodbyes read and sockets closed."""

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_COLLECTION_THRESHOLDS = (50_000, 20, 100)


class Exit(IntEnum):
    """Exit codes; those above 2 are sysexits.h's nearest."""

    CLEAN = 0
    FAILED = 1
    CONFIG = 2
    PORT_TAKEN = 69
    UNWRITABLE = 73
    JOURNAL = 74
    LOCKED = 75


_CODES: tuple[tuple[type[GatewayError], Exit], ...] = (
    (ConfigError, Exit.CONFIG),
    (ListenError, Exit.PORT_TAKEN),
    (JournalUnwritable, Exit.UNWRITABLE),
    (JournalLocked, Exit.LOCKED),
    (JournalError, Exit.JOURNAL),
)


def exit_code(error: GatewayError) -> Exit:
    """Return the exit code for an error that ended the start."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def prepare(config: Config, host: Host) -> bool:
    """Load and configure the front-ends; return whether anonymous peers are let in.

    Raises:
        ConfigError: a section is nobody's, a setting is wrong, an address is used twice, nobody said who may use a
            listener beyond loopback, or a front-end
            can let nobody in.
    """
    host.discover()
    host.configure(config)
    host.check_addresses(config)
    anonymous = anonymous_access(config.security.anonymous, host.beyond(is_local), config.origin)
    check_standing(Authentication(anonymous=anonymous), host.standing(), config.origin)
    return anonymous


def run(config: Config) -> Exit:
    """Run a broker until a signal ends it. Errors of the start go to standard error, in words; a defect is logged."""
    log: RootLog = make_log(config.log)
    host = Host(log)
    ended = Exit.CLEAN
    try:
        anonymous = prepare(config, host)
        _raise_file_limit(config.limits.max_connections, log)
        trio.run(_until_signalled, config, host, anonymous, log)
    except* GatewayError as group:
        failure = _leaf(group)
        for line in f"{failure}{_way_out(failure)}".splitlines():
            print(f"tidegate: {line}", file=sys.stderr)  # noqa: T201 - what the command line says
        ended = exit_code(failure)
    except* Exception as group:  # an edge: the program; what is on disk is safe
        log.error("the broker failed, and ends as after a power cut", exc_info=group)  # noqa: TRY400 - the whole group
        ended = Exit.FAILED
    return ended


async def serve(
    config: Config, host: Host, *, anonymous: bool, log: RootLog, say: Say, stop: Callable[[], Awaitable[None]]
) -> None:
    """Run a broker and its front-ends until `stop` returns; then drain and commit.

    Args:
        host: configured.
        say: gets the lines for standard output.
        stop: waited for from the first moment on.

    Raises:
        GatewayError: the start failed; what had been started is stopped, the journal closed clean.
    Cancellation: ends at once, as a crash would; nothing confirmed is lost.
    """
    journal = make_journal(config, log)
    authentication = Authentication(anonymous=anonymous)
    broker = Broker(
        journal,
        limits=config.runtime_limits(),
        authenticate=authentication.authenticate,
        authenticate_now=authentication.authenticate_now,
        log=log,
        vhosts=config.broker.vhosts,
    )
    for tag, decoder in host.wire_decoders().items():
        broker.decoders.register(tag, decoder)
    failure: GatewayError | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        try:
            async with trio.open_nursery() as life:
                life.start_soon(_cancel_when, stop, life.cancel_scope)
                if config.broker.definitions is not None:
                    await define(broker, config.broker.definitions)
                await host.start(nursery, broker, say)
                await life.start(control.serve, broker, config.broker.data_dir)
                _tell(config, journal, say)
                if anonymous:
                    _hint(host, say)
                _tune_collector()
                _warn(config, host, anonymous, log)
                say("ready")
                await trio.sleep_forever()
        except* GatewayError as group:
            failure = _leaf(group)
        if failure is None:
            log.info("stopping: what was taken in is committed")
        broker.start_draining()
        await host.drain(config.limits.drain_timeout_s + _CLOSING_S)
        await broker.stop()
    if failure is not None:
        raise failure


def make_journal(config: Config, log: Log) -> Journal:
    """Return the journal that a configuration names; not open yet. Damage that it finds is logged."""
    if config.journal.kind == "memory":
        from gateway.journal.memory import MemoryJournal

        return MemoryJournal()
    from gateway.journal.space import Space, checkpoint_pages
    from gateway.journal.sqlite import Care, SqliteJournal

    def report(damage: str) -> None:
        log.error("the journal is damaged", damage=damage)

    directory, settings = config.broker.data_dir.absolute(), config.journal
    space = Space(
        directory,
        min_free_bytes=settings.min_free_bytes,
        max_bytes=settings.max_bytes,
        ballast_bytes=settings.ballast_bytes,
    )
    return SqliteJournal(
        directory,
        wal_autocheckpoint=checkpoint_pages(settings.wal_autocheckpoint, settings.max_bytes),
        report=report,
        space=space,
        care=Care(refuse_after_s=settings.refuse_after_ms / 1e3, scrub_mib_per_s=settings.scrub_mib_per_s),
    )


async def _cancel_when(stop: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await stop()
    scope.cancel()


async def _until_signalled(config: Config, host: Host, anonymous: bool, log: RootLog) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, stopping)
        await serve(config, host, anonymous=anonymous, log=log, say=say_on(sys.stdout), stop=stopping.wait)
        nursery.cancel_scope.cancel()


async def _watch_signals(stopping: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    """Set `stopping` at the first signal; the second one then ends the process at once, whatever it is doing."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    stopping.set()


def say_on(stream: TextIO) -> Say:
    """Return what writes lines to a stream, each at once; when nobody reads them any more, the rest is dropped."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")

    def say(line: str) -> None:
        try:
            print(line, file=stream, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    return say


def _way_out(error: GatewayError) -> str:
    return ". Choose another directory by --data-dir or broker.data_dir" if isinstance(error, JournalUnwritable) else ""


def _tell(config: Config, journal: Journal, say: Say) -> None:
    in_memory = config.journal.kind == "memory"
    say(version_line())
    say(f"data directory {'none: the journal is in memory' if in_memory else config.broker.data_dir.absolute()}")
    say(f"durability {journal.durability}")


def _hint(host: Host, say: Say) -> None:
    tidegate, python = own_command(), own_python()
    for hint in host.hints():
        first, space, rest = hint.partition(" ")
        say({"tidegate": tidegate, "python": python}.get(first, first) + space + rest)


def _warn(config: Config, host: Host, anonymous: bool, log: RootLog) -> None:
    if config.journal.kind == "memory":
        log.warning("the journal is in memory: nothing outlives this process", setting="journal.kind")
    elif config.broker.data_dir.stat().st_mode & _OF_OTHERS:
        directory = str(config.broker.data_dir.absolute())
        log.warning("the data directory was there, and is open to other users: chmod 700 closes it", data_dir=directory)
    if not anonymous:
        log.warning(
            "nobody is let in but by a front-end's own keys or passwords: there are no other users yet",
            setting="security.anonymous",
        )
    if not any(service.state is State.READY for service in host.services.values()):
        log.warning("no front-end is running: nobody can connect")
    others = sorted(set(importlib.metadata.packages_distributions().get("gateway", [])) - {"tidegate"})
    if others:
        log.warning("another distribution also installs a package called gateway, and may have overwritten files", others=others)


def _tune_collector() -> None:
    # What stands at the start stays; and a long backlog is no garbage: collect rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)


def _raise_file_limit(connections: int, log: RootLog) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _FILES_BESIDE_CONNECTIONS
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= possible:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit of open files stays low: it bounds the number of connections", limit=soft, error=str(error))


def _leaf(error: BaseExceptionGroup[GatewayError]) -> GatewayError:
    first = error.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first
