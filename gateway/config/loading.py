"""What do a file and ``--set`` make of the settings?"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr

from gateway.complaint import Origin, validated
from gateway.config.sections import (
    AdminSettings,
    BrokerSettings,
    JournalSettings,
    Limits,
    LimitSettings,
    LogSettings,
    RetainedSettings,
    Section,
    SecuritySettings,
)
from gateway.config.transports import HostSettings, TlsSettings, Transport
from gateway.errors import ConfigError

DEFAULT_FRONT_ENDS = ("mqtt", "zeromq", "amqp")
"""What runs without a word in the configuration; every other front-end runs if its section is there."""


class Config(Section):
    """A whole configuration; front-ends' tables are raw until the host gives them to the front-ends' own models."""

    broker: BrokerSettings = BrokerSettings()
    journal: JournalSettings = JournalSettings()
    limits: LimitSettings = LimitSettings()
    retained: RetainedSettings = RetainedSettings()
    security: SecuritySettings = SecuritySettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    admin: AdminSettings = AdminSettings()
    frontend: dict[str, dict[str, Any]] = Field(default={})
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

    def validated_front_end(self, front_end: str, model: type[BaseModel], *, own_sockets: bool = False) -> Any:
        """Return the settings of a front-end as an instance of its model; what the host's own keys say is checked, too.

        Args:
            own_sockets: of the host's keys there is only `enabled`.

        Raises:
            ConfigError: names file, key and what is allowed.
        """
        own = ("enabled",) if own_sockets else tuple(HostSettings.model_fields)
        table = {key: value for key, value in self.frontend.get(front_end, {}).items() if key not in own}
        settings = validated(model, table, self._origin, ("frontend", front_end), also=own)
        if not own_sockets:
            self._host_settings(front_end)
        return settings

    def transport(self, front_end: str) -> Transport:
        """Return how a front-end's listeners speak. Raises ConfigError as `validated_front_end` does."""
        host = self._host_settings(front_end)
        said = host.tls.model_dump(exclude_none=True) if host.tls is not None else {}
        keys = {name: f"frontend.{front_end}.tls.{name}" if name in said else f"tls.{name}" for name in TlsSettings.model_fields}
        return Transport(
            tls=self.tls.model_copy(update=said),
            tls_keys={name: f"{self._origin.says(tuple(key.split('.')))}: {key}" for name, key in keys.items()},
            proxies=tuple(host.proxy_protocol),
            unix_mode=int(host.unix_mode, 8),
            origins=tuple(host.allowed_origins),
        )

    def _host_settings(self, front_end: str) -> HostSettings:
        table = {key: value for key, value in self.frontend.get(front_end, {}).items() if key in HostSettings.model_fields}
        return validated(HostSettings, table, self._origin, ("frontend", front_end))


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
