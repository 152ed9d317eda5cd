"""How is a definitions file read, and how does an error name it?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.admin.definitions import Report, import_
from gateway.admin.items import Malformed
from gateway.admin.offline import new_engine, read_engine
from gateway.config import Config
from gateway.errors import ConfigError, PreconditionFailed
from gateway.runtime.broker import Broker


def read_definitions(file: Path) -> dict[str, Any]:
    """Return a definitions file as JSON says it.

    Raises:
        ConfigError: it can't be read, or is no JSON object; names the file and the place.
    """
    try:
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 at byte {error.start}: a definitions file is JSON") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: is nested too deeply for a definitions file") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: is not a definitions file: that is an object with lists (queues, exchanges, bindings, ...)")
    return data


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Let what is wrong with definitions name their file. Raises ConfigError."""
    try:
        yield
    except (Malformed, PreconditionFailed) as error:
        raise ConfigError("\n".join(f"{file}: {line}" for line in error.text.splitlines())) from error


def rehearse(config: Config, file: Path) -> Report:
    """Say what a start would make of a definitions file, with what its journal holds; nothing is changed.

    Raises:
        ConfigError: as of `define`. JournalError: the journal can't be read.
    """
    with naming(file):
        data = read_definitions(file)
        limits = config.runtime_limits()
        in_memory = config.journal.kind == "memory"
        engine = new_engine(limits) if in_memory else read_engine(config.broker.data_dir, limits=limits, may_lack=True)
        return import_(engine, data, dry_run=True)


async def define(broker: Broker, file: Path) -> None:
    """Let a broker that starts take a definitions file; what is not taken is logged, item by item.

    Raises:
        ConfigError: it can't be read, or contradicts what exists. GatewayError: the journal can't take it.
    Cancellation: it is defined all the same, as far as it is on disk.
    """
    from gateway.admin.questions import on_disk

    with naming(file):
        report = import_(broker.engine, read_definitions(file))
    await on_disk(broker)
    broker.log.info("definitions taken", file=str(file), **report.taken)
    for one in report.skipped:
        broker.log.warning("a definition is not taken", file=str(file), path=one.path, what=one.what, reason=one.reason)
