"""Which settings does the core have, and what may they be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

SMALLEST_CAP = 16 * 1024 * 1024
LONGEST_VHOST = 255


class Section(BaseModel):
    """A table of settings: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _check_path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must name a directory")
    return value


def check_file(value: object) -> object:
    """Refuse what can't name a file."""
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must name a file")
    return value


def _check_vhost(value: str) -> str:
    if not value or "\0" in value or len(value.encode(errors="surrogatepass")) > LONGEST_VHOST:
        raise ValueError(f"must be a name of 1 to {LONGEST_VHOST} bytes without NUL")
    return value


VhostName = Annotated[str, AfterValidator(_check_vhost)]


class BrokerSettings(Section):
    """The broker itself."""

    data_dir: Annotated[Path, Field(strict=False), BeforeValidator(_check_path)] = Field(
        default=Path("tidegate-data"), description="Directory of the journal; made if missing, relative to the working directory."
    )
    vhosts: list[VhostName] = Field(
        default=[],
        description="Virtual hosts that there are beside `/`, those that imported definitions name, and those of which the journal "
        "holds anything; clients can enter no others.",
    )
    definitions: Annotated[Path | None, Field(strict=False), BeforeValidator(check_file)] = Field(
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
    handshake_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=3_600,
        description="What a peer has for all that comes before its protocol: a proxy's header, TLS, a WebSocket's upgrade.",
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
    max_per_minute: int = Field(
        default=100,
        ge=0,
        description="Lines of one kind in a minute; the next minute's first says how many more there were. 0: no limit.",
        json_schema_extra={"unit": "lines"},
    )
