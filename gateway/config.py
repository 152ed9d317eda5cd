"""Which settings are there, and what do a file and ``--set`` make of them?"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationInfo

from gateway.complaint import Origin, validated
from gateway.errors import ConfigError

DEFAULT_FRONT_ENDS = ("mqtt", "zeromq")
"""What runs without a word in the configuration; every other front-end runs if its section is there."""
SMALLEST_CAP = 16 * 1024 * 1024


class Section(BaseModel):
    """A table of settings: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _check_path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must name a directory")
    return value


def _check_file(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must name a file")
    return value


class BrokerSettings(Section):
    """The broker itself."""

    data_dir: Annotated[Path, Field(strict=False), BeforeValidator(_check_path)] = Field(
        default=Path("tidegate-data"), description="Directory of the journal; made if missing, relative to the working directory."
    )
    definitions: Annotated[Path | None, Field(strict=False), BeforeValidator(_check_file)] = Field(
        default=None,
        description="A definitions file (RabbitMQ's form): taken at every start before anybody can connect; what contradicts"
        " what exists ends the start. Without a value: none.",
    )


FLASH_INTERVAL_MS = 100
"""The least time between two commits in the profile ``flash``."""


class Pace(Section):
    """How long a commit may take. Keys of section ``journal``; the runtime gets them with its limits."""

    linger_us: int = Field(
        default=200,
        ge=0,
        le=100_000,
        description="While all live messages of a batch are with online consumers, wait this long for their acks before writing.",
    )
    commit_interval_ms: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="The least time between two commits: fewer bytes are written, and confirms come as much later. "
        "Without a value: 0 (as fast as the disk), or 100 in the profile flash.",
    )
    refuse_after_ms: int = Field(
        default=5_000,
        ge=0,
        le=3_600_000,
        description="A commit that fails for this long is refused to its publishers; retries go on.",
    )


def _check_cap(value: int) -> int:
    if 0 < value < SMALLEST_CAP:
        raise ValueError(f"must be 0 or at least {SMALLEST_CAP} bytes")
    return value


class JournalSettings(Pace):
    """Where confirmed messages are kept."""

    kind: Literal["sqlite", "memory"] = Field(
        default="sqlite", description="memory keeps nothing over a restart: for trials and tests; said at start."
    )
    profile: Literal["default", "flash"] = Field(
        default="default",
        description="flash spares memory cards: at most ten commits a second, as each writes some pages however little it holds.",
    )
    log_mib: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="How large the write-ahead log grows before it goes to the database. A smaller one writes somewhat more.",
        json_schema_extra={"unit": "MiB"},
    )
    min_free_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Less free space on the disk raises the alarm: durable messages are not taken until there is an eighth more. "
        "Without a value: 256 MiB, or 5 % of a disk below 5 GiB; 0: no limit.",
    )
    max_bytes: Annotated[int, AfterValidator(_check_cap)] = Field(
        default=0,
        ge=0,
        description="What database and log may take together: near it the alarm is raised. At least 16 MiB; 0: no cap.",
    )
    ballast_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        le=1024 * 1024 * 1024,
        description="A file that is given up when the disk is full, so that acknowledgements can be written; less on a disk below "
        "256 MiB. 0: none.",
    )
    scrub_mib_per_s: float = Field(
        default=1.0,
        ge=0,
        le=10_000,
        description="How fast stored messages are read again, once a day, to find damage before they are needed. 0: never.",
        json_schema_extra={"unit": "MiB per second"},
    )

    @property
    def wal_autocheckpoint(self) -> int:
        """Pages of the write-ahead log between two checkpoints; with their headers they make `log_mib`."""
        return self.log_mib * 250

    def pace(self) -> dict[str, Any]:
        """Return what the runtime is to know, with what the profile says."""
        pace = self.model_dump(include=set(Pace.model_fields))
        if pace["commit_interval_ms"] is None:
            pace["commit_interval_ms"] = FLASH_INTERVAL_MS if self.profile == "flash" else 0
        return pace


def _check_hard_limit(value: int, info: ValidationInfo) -> int:
    high = info.data.get("memory_high_bytes")
    if value and high and value < high:
        raise ValueError(f"must be 0 or at least memory_high_bytes, which is {high}")
    return value


class LimitSettings(Section):
    """What one peer, one queue or one batch may take."""

    max_connections: int = Field(
        default=100_000,
        ge=1,
        description="Connections per front-end; more are closed at once.",
        json_schema_extra={"unit": "connections"},
    )
    outgoing_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=65_536,
        description="What may wait to be sent on one connection before its consumers are paused.",
    )
    queue_memory_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=65_536,
        description="Bodies of one queue's backlog that stay in memory; the rest is on disk only.",
    )
    open_batch_bytes: int = Field(
        default=64 * 1024 * 1024, ge=65_536, description="Bodies that wait for the next commit before publishers are held back."
    )
    max_message_bytes: int = Field(
        default=128 * 1024 * 1024,
        ge=1_024,
        le=512 * 1024 * 1024,
        description="Body and properties of one message; a larger one is refused. Front-ends have lower limits of their own.",
    )
    max_queues: int = Field(
        default=1_000_000,
        ge=0,
        description="Queues in all virtual hosts, MQTT sessions among them; no more can be declared. 0: no limit.",
        json_schema_extra={"unit": "queues"},
    )
    max_exchanges: int = Field(
        default=100_000,
        ge=0,
        description="Exchanges in all virtual hosts beside the predeclared ones; no more can be declared. 0: no limit.",
        json_schema_extra={"unit": "exchanges"},
    )
    max_bindings: int = Field(
        default=5_000_000,
        ge=0,
        description="Bindings in all virtual hosts, MQTT subscriptions among them; no more can be made. 0: no limit.",
        json_schema_extra={"unit": "bindings"},
    )
    memory_high_bytes: int | None = Field(
        default=None,
        ge=0,
        description="When the process has so much in memory, publishers are held back until it is a tenth less. Without a value: "
        "60 % of the memory that its cgroup or the machine has; 0: no limit. Linux only: elsewhere there is none.",
    )
    memory_max_bytes: Annotated[int, AfterValidator(_check_hard_limit)] = Field(
        default=0,
        ge=0,
        description="When the process has so much in memory, all messages are refused. 0: a fifth more than memory_high_bytes.",
    )
    hold_ms: int = Field(
        default=2_000,
        ge=0,
        le=600_000,
        description="While memory is short, a connection that has published and also consumes is not read from for so long; "
        "then its acknowledgements are taken and its messages refused.",
    )
    drain_timeout_s: float = Field(
        default=10.0,
        ge=0,
        le=3_600,
        description="At a stop, how long front-ends may take to send what they have before they are cut off.",
    )


class RetainedSettings(Section):
    """Last values (MQTT's retained messages), in each virtual host. A message that can't be retained is refused."""

    max_messages: int = Field(
        default=5_000_000,
        ge=0,
        description="Retained messages, of all exchanges; no more are taken, but they are still replaced. 0: no limit.",
        json_schema_extra={"unit": "messages"},
    )
    max_bytes: int = Field(
        default=1024 * 1024 * 1024,
        ge=0,
        description="Their bodies, properties and keys: all are in memory, and on disk. 0: no limit.",
    )
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=0, description="Body of a retained message. 0: no limit.")


class Limits(LimitSettings, Pace):
    """All that the runtime must know, with the defaults of the configuration."""

    retained: RetainedSettings = RetainedSettings()


class SecuritySettings(Section):
    """Who is let in."""

    anonymous: bool | None = Field(
        default=None, description="Let peers in without a password. Without a value: true while every listener is on loopback."
    )


class AdminSettings(Section):
    """The administration interface. Not part of this version: it can't be enabled."""

    enabled: bool = Field(default=False, description="Not part of this version: only false is allowed.")
    listen: str = Field(default="http://127.0.0.1:8780", description="Where it will listen.")


class LogSettings(Section):
    """Logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is logged.")
    format: Literal["text", "json"] = Field(default="text", description="json: one object per line.")


class UnbuiltFrontEnd(Section):
    """The section of a front-end that has its place but is not part of this version."""

    enabled: bool = Field(default=False, description="Not part of this version: only false is allowed.")
    listen: list[str] = Field(default=["tcp://127.0.0.1:5672"], description="Where it will listen.")


UNBUILT = {"amqp": UnbuiltFrontEnd}


class Config(Section):
    """A whole configuration; front-ends' tables are raw until the host gives them to the front-ends' own models."""

    broker: BrokerSettings = BrokerSettings()
    journal: JournalSettings = JournalSettings()
    limits: LimitSettings = LimitSettings()
    retained: RetainedSettings = RetainedSettings()
    security: SecuritySettings = SecuritySettings()
    log: LogSettings = LogSettings()
    admin: AdminSettings = AdminSettings()
    frontend: dict[str, dict[str, Any]] = {}
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def origin(self) -> Origin:
        """Who said what: for the text of errors."""
        return self._origin

    def runtime_limits(self) -> Limits:
        """Return the limits, and the pace of the journal with them."""
        return Limits(**self.limits.model_dump(), **self.journal.pace(), retained=self.retained)

    def enabled(self, front_end: str) -> bool:
        """Say whether a front-end is to run. `enabled` is the host's own key in every front-end's table."""
        table = self.frontend.get(front_end)
        if table is None:
            return front_end in DEFAULT_FRONT_ENDS
        return bool(table.get("enabled", True))

    def validated_front_end(self, front_end: str, model: type[BaseModel]) -> Any:
        """Return the settings of a front-end as an instance of its model.

        Raises:
            ConfigError: names file, key and what is allowed.
        """
        table = {key: value for key, value in self.frontend.get(front_end, {}).items() if key != "enabled"}
        return validated(model, table, self._origin, ("frontend", front_end), also=("enabled",))


def load(path: Path | None = None, overrides: Sequence[str] = (), *, data_dir: Path | str | None = None) -> Config:
    """Read a configuration.

    Args:
        path: a TOML file; None: the defaults.
        overrides: ``KEY=VALUE`` as given to ``--set``, later ones win: a dotted key; TOML, or a plain string.
        data_dir: stands in for ``broker.data_dir``.

    Raises:
        ConfigError: the file can't be read, or a setting is wrong; names file, key and what is allowed.
    """
    tables = _read(path) if path is not None else {}
    origin = Origin(str(path) if path is not None else "")
    for override in overrides:
        key, value, plain = _override(override)
        origin.override(key, plain=plain)
        _put(tables, key, value)
    if data_dir is not None:
        origin.override(("broker", "data_dir"), plain=True, flag="--data-dir")
        _put(tables, ("broker", "data_dir"), str(data_dir))
    config = validated(Config, tables, origin, ())
    config._origin = origin  # noqa: SLF001 - it is made here
    _check_what_is_not_built(config)
    return config


def _check_what_is_not_built(config: Config) -> None:
    if config.admin.enabled:
        raise config.origin.complaint(
            ("admin", "enabled"), "is true, but this version has no administration interface: write false"
        )
    for name, table in config.frontend.items():
        if not isinstance(table.get("enabled", True), bool):
            raise config.origin.complaint(("frontend", name, "enabled"), f"must be true or false, not {table['enabled']!r}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}: a configuration is TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _override(text: str) -> tuple[tuple[str, ...], Any, bool]:
    name, equals, value = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise ConfigError(f"--set {text}: must be KEY=VALUE with a dotted KEY, for instance limits.outgoing_bytes=1048576")
    parsed = _toml_value(value)
    return key, (value if parsed is None else parsed), parsed is None


def _toml_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return table["value"] if len(table) == 1 else None


def _put(tables: dict[str, Any], key: Sequence[str], value: Any) -> None:
    for depth, part in enumerate(key[:-1], 1):
        inner = tables.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"--set {'.'.join(key)}: {'.'.join(key[:depth])} is {_kind(inner)}, not a table: its parts can't be set"
            )
        tables = inner
    tables[key[-1]] = value


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"the value {value!r}"


def defaults() -> Mapping[str, type[BaseModel]]:
    """Return the sections of the core, in order."""
    return {name: type(value) for name, value in Config() if isinstance(value, BaseModel)}
