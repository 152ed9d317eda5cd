"""Which settings are there? Writes them all, as they are in the code, as a TOML file and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.api import FrontEnd, OwnSockets
from gateway.complaint import models_in
from gateway.config import DEFAULT_FRONT_ENDS, HostSettings, TlsSettings, defaults

_UNITS = {"_bytes": "bytes", "_us": "microseconds", "_ms": "milliseconds", "_s": "seconds"}
_TOML = Path("conf/tidegate.toml")
_PAGE = Path("docs/configuration.md")

_TOML_HEAD = """\
# Every setting of Tidegate with its default. A file of yours needs only what differs.
# `tidegate check-config FILE` says what is wrong with a file; `tidegate serve --set KEY=VALUE` says one setting
# on the command line. This file is written by `make reference`.
"""

_PAGE_HEAD = """\
# Configuration

`tidegate serve --config FILE` reads a TOML file. `--set KEY=VALUE` says one setting on the command line (a dotted key; TOML, or a
plain string) and wins over the file; `--data-dir DIR` wins over both. Without a file everything listens on this machine only.

An unknown key is an error that names the nearest known one. `tidegate check-config FILE` checks a file and says what would listen.
[conf/tidegate.toml](../conf/tidegate.toml) holds every key with its default.

A front-end runs if it is one of the bundled ones or its section is there, and `frontend.NAME.enabled` is not `false`.
This page is written from the code by `make reference`.

`tidegate serve` ends with one of these codes:

| code | meaning |
|---|---|
| 0 | it was asked to end, and did |
| 1 | a defect: the log says which |
| 2 | the configuration, or the command line, is wrong; `tidegate check-config` ends with it, too |
| 69 | an address can't be listened on |
| 73 | the data directory can't be made or written |
| 74 | the journal can't be used: it is no journal, a newer version's, damaged, or can't be read or written |
| 75 | another broker has the data directory |
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: `default` is its TOML, empty if it has none; `allowed` and `unit` may be empty."""

    name: str
    default: str
    unit: str
    allowed: str
    description: str

    @property
    def comment(self) -> str:
        """All that is to be said of it, on one line."""
        parts = [self.description, f"Unit: {self.unit}." if self.unit else "", f"Allowed: {self.allowed}." if self.allowed else ""]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file: `items` are the default elements, if it is a list of tables."""

    key: str
    title: str
    settings: tuple[Setting, ...]
    items: tuple[str, ...] | None = None


def tables(front_ends: Mapping[str, type[BaseModel]]) -> Iterator[Table]:
    """Yield every table: the core's, then those of the front-ends, by their own models."""
    for name, model in defaults().items():
        yield from _tables(name, model)
    for name, model in front_ends.items():
        yield from _front_end_tables(name, model)


def _front_end_tables(name: str, model: type[BaseModel]) -> Iterator[Table]:
    """Yield a front-end's tables, with the host's keys that hold for it."""
    own = [_setting(key, field) for key, field in HostSettings.model_fields.items() if not list(models_in(field.annotation))]
    if isinstance(_front_ends().get(name), OwnSockets):
        yield from _tables(f"frontend.{name}", model, tuple(setting for setting in own if setting.name == "enabled"))
        return
    yield from _tables(f"frontend.{name}", model, tuple(own))
    tls = tuple(_setting(key, field) for key, field in TlsSettings.model_fields.items())
    yield Table(f"frontend.{name}.tls", "TLS of this front-end alone. What it does not say is as in section ``tls``.", tls)


def _tables(key: str, model: type[BaseModel], more: tuple[Setting, ...] = ()) -> Iterator[Table]:
    plain = {name: field for name, field in model.model_fields.items() if not list(models_in(field.annotation))}
    settings = more + tuple(_setting(name, field) for name, field in plain.items())
    yield Table(key, _first_sentence(model), settings)
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            is_list = get_origin(field.annotation) is list
            yield from _list_tables(f"{key}.{name}", inner, field) if is_list else _tables(f"{key}.{name}", inner)


def _list_tables(key: str, model: type[BaseModel], field: FieldInfo) -> Iterator[Table]:
    settings = tuple(_setting(name, inner) for name, inner in model.model_fields.items())
    elements = [
        element for element in field.get_default(call_default_factory=True, validated_data={}) or () if type(element) is model
    ]
    yield Table(key, _first_sentence(model) or field.description or "", settings, tuple(_element(element) for element in elements))


def _element(element: BaseModel) -> str:
    said = element.model_dump(exclude_unset=True) or element.model_dump(exclude_defaults=True)
    return "\n".join(f"{name} = {toml(value)}" for name, value in said.items())


def _setting(name: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra
    said = extra.get("unit", "") if isinstance(extra, dict) else ""
    unit = str(said) or next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    return Setting(field.alias or name, _default(field), unit, _allowed(field), " ".join((field.description or "").split()))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None or value is PydanticUndefined else toml(value)


def _allowed(field: FieldInfo) -> str:
    is_tristate = field.default is None and bool in get_args(field.annotation)
    choices = [toml(choice) for choice in ((True, False) if is_tristate else _choices(field.annotation))]
    if choices:
        return ", ".join(choices)
    bounds = {name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return ", ".join(f"{words[name]} {bound}" for name, bound in bounds.items())


def _choices(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [choice.value for choice in annotation]
    return [choice for argument in get_args(annotation) for choice in _choices(argument)]


def _first_sentence(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0] if model.__doc__ else ""


def toml(value: Any) -> str:
    """Return a value as TOML, on one line."""
    if isinstance(value, Enum):
        return toml(value.value)
    if isinstance(value, BaseModel):
        return toml(value.model_dump(exclude_defaults=True))
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {toml(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value), ensure_ascii=False)


def toml_file(front_ends: Mapping[str, type[BaseModel]]) -> str:
    """Return a configuration file that says every default."""
    return _TOML_HEAD + "".join(_toml_table(table) for table in tables(front_ends))


def _toml_table(table: Table) -> str:
    lines = ["", f"# {table.title}"] if table.title else [""]
    if table.items is None:
        return "\n".join([*lines, f"[{table.key}]", *(_toml_setting(setting) for setting in table.settings)]) + "\n"
    lines += [f"# Keys of each [[{table.key}]]:"]
    lines += [f"#   {setting.name} = {setting.default or '...'}  # {setting.comment}" for setting in table.settings]
    lines += [f"[[{table.key}]]\n{item}" for item in table.items]
    return "\n".join(lines) + "\n"


def _toml_setting(setting: Setting) -> str:
    value = f"{setting.name} = {setting.default}" if setting.default else f"# {setting.name} ="
    return f"# {setting.comment}\n{value}"


def page(front_ends: Mapping[str, type[BaseModel]]) -> str:
    """Return the page of all settings."""
    return _PAGE_HEAD + "".join(_page_table(table) for table in tables(front_ends))


def _page_table(table: Table) -> str:
    key = f"[{table.key}]" if table.items is None else f"[[{table.key}]]"
    rows = [_page_row(setting) for setting in table.settings]
    default = [f"\n```toml\n[[{table.key}]]\n{item}\n```" for item in table.items or ()]
    head = ["", f"## `{key}`", "", table.title, "", "| key | default | unit | allowed | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, *(["\nDefault:"] if default else []), *default]) + "\n"


def _page_row(setting: Setting) -> str:
    meaning = f"{setting.unit} | {_cell(setting.allowed)} | {_cell(setting.description)}"
    return f"| `{setting.name}` | {_code(setting.default)} | {meaning} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@cache
def _front_ends() -> dict[str, FrontEnd]:
    from gateway.cli.verbs import Complaints
    from gateway.host import Host

    host = Host(Complaints())
    host.discover()
    found = {name: host.services[name].front_end for name in DEFAULT_FRONT_ENDS if name in host.services}
    return {name: front_end for name, front_end in found.items() if front_end is not None}


def bundled() -> dict[str, type[BaseModel]]:
    """Return the models of the bundled front-ends' settings."""
    return {name: front_end.settings_model for name, front_end in _front_ends().items()}


if __name__ == "__main__":
    _TOML.write_text(toml_file(bundled()), encoding="utf-8")
    _PAGE.write_text(page(bundled()), encoding="utf-8")
