"""What is wrong with a setting, in words that name where it is, and what is allowed instead?"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gateway.errors import ConfigError

Path = tuple[str, ...]
Location = tuple[str | int, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
Model = TypeVar("Model", bound=BaseModel)


class Origin:
    """Who said what: the file's name, and which keys the command line gave instead.

    Args:
        file: name of the configuration file; empty: there is none.
    """

    def __init__(self, file: str = "") -> None:
        self._file = file
        self._overrides: dict[Path, tuple[str, bool]] = {}

    def __eq__(self, other: object) -> bool:
        # Two configurations that say the same are equal, whoever said it.
        return isinstance(other, Origin)

    __hash__ = None  # type: ignore[assignment]

    def override(self, key: Path, *, plain: bool, flag: str = "--set") -> None:
        """Note a key from the command line. `plain`: its value was taken as a plain string, as it is not TOML."""
        self._overrides[key] = (flag, plain)

    def says(self, key: Path) -> str:
        """Return who gave this key, or something in it, or what it is in."""
        flag, _ = self._override(key)
        return flag or self._file or "configuration"

    def complaint(self, key: Path, text: str) -> ConfigError:
        """Return an error that names source and key."""
        return ConfigError(f"{self.says(key)}: {'.'.join(key)} {text}")

    def was_plain(self, key: Path) -> bool:
        """Say whether the value came from the command line and is no TOML."""
        return self._override(key)[1]

    def _override(self, key: Path) -> tuple[str, bool]:
        for given, said in self._overrides.items():
            shorter = min(len(given), len(key))
            if given[:shorter] == key[:shorter]:
                return said
        return "", False


def validated(model: type[Model], table: dict[str, Any], origin: Origin, at: Path, also: Sequence[str] = ()) -> Model:
    """Return a table as an instance of its model. Unknown keys of the table itself are errors whatever the model says.

    Args:
        at: where the table is in the configuration.
        also: keys beside the model's that are allowed there (and are not in `table`).

    Raises:
        ConfigError: one line per mistake.
    """
    unknown = [key for key in table if key not in _keys(model)]
    lines = [_unknown((*at, key), model, [model], origin, also) for key in unknown]
    try:
        settings = model.model_validate({key: value for key, value in table.items() if key not in unknown})
    except ValidationError as error:
        lines += [_line(item, model, origin, at, also) for item in error.errors()]
    if lines:
        raise ConfigError("\n".join(lines))
    return settings


def _line(item: Any, model: type[BaseModel], origin: Origin, at: Path, also: Sequence[str]) -> str:
    location, parents = _resolve(model, item["loc"])
    path = (*at, *location)
    if item["type"] == "extra_forbidden":
        return _unknown(path, model, parents, origin, also if len(location) == 1 else ())
    key = _names(path)
    given = (
        "" if item["type"] == "missing" else _given(item["input"], plain=item["type"] not in _ABOUT_TEXT and origin.was_plain(key))
    )
    return f"{origin.says(key)}: {_dotted(path)}{given} {_message(item)}"


def _unknown(path: Location, model: type[BaseModel], parents: list[type[BaseModel]], origin: Origin, also: Sequence[str]) -> str:
    parent = _dotted(path[:-1])
    allowed = [*also, *(key for candidate in parents for key in _keys(candidate))]
    elsewhere = [] if parent else [_dotted(known) for known in _known(model) if known[-1] == path[-1]]
    near = difflib.get_close_matches(str(path[-1]), allowed, n=1) or elsewhere[:1]
    hint = f"; did you mean {f'{parent}.' if parent else ''}{near[0]}?" if near else "."
    text = f"{origin.says(_names(path))}: {_dotted(path)} is no setting{hint}"
    return f"{text} Allowed{' in ' + parent if parent else ''}: {', '.join(dict.fromkeys(allowed))}" if allowed else text


_MESSAGES = {
    "missing": "is missing",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "path_type": "must be a path, as a string",
    "string_unicode": "must be text",
    "finite_number": "must be a number, and no infinite one",
    "recursion_loop": "must not contain itself",
}


_ABOUT_TEXT = ("value_error", "literal_error", "string_too_short", "string_too_long")
"""What is wrong with a string that was to be one."""

_COUNTED = {
    "too_short": ("element", "elements"),
    "too_long": ("element", "elements"),
    "string_too_short": ("character", "characters"),
    "string_too_long": ("character", "characters"),
}


def _message(item: Any) -> str:
    known = _MESSAGES.get(item["type"])
    if known is not None:
        return known
    counted = _COUNTED.get(item["type"])
    if counted is not None:
        sort, count = next((key, value) for key, value in item["ctx"].items() if key in ("min_length", "max_length"))
        kind = counted[0] if count == 1 else counted[1]
        return f"must have {'at least' if sort == 'min_length' else 'at most'} {count} {kind}"
    text = str(item["msg"]).replace("Input should be", "must be").removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text[0].lower() + text[1:] if text.startswith("Input") else text


_LONGEST = 80


def _given(value: object, *, plain: bool) -> str:
    shown = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
    note = " (taken as a plain string, as it is not TOML)" if plain and isinstance(value, str) else ""
    return f" = {shown}{note}:"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _resolve(model: type[BaseModel], location: Location) -> tuple[Location, list[type[BaseModel]]]:
    """Follow a location; return it without the tags that pydantic adds for unions, and the models that its last part is in."""
    models = parents = [model]
    path: list[str | int] = []
    for depth, part in enumerate(location, 1):
        if isinstance(part, int):
            path.append(part)
            continue
        inner = [found for candidate in models for found in _models_of(candidate, part)]
        known = any(part in _keys(candidate) for candidate in models)
        if not known and depth < len(location):
            models = _tagged(models, part)
            continue
        path.append(part)
        parents, models = models, inner
    return tuple(path), parents


def _tagged(models: list[type[BaseModel]], tag: str) -> list[type[BaseModel]]:
    chosen = [
        model
        for model in models
        if model.__name__ == tag or any(tag in get_args(f.annotation) for f in model.model_fields.values())
    ]
    return chosen or models


def _models_of(model: type[BaseModel], key: str) -> Iterator[type[BaseModel]]:
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            yield from models_in(field.annotation)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation mentions: of ``list[A | B]`` A and B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _known(model: type[BaseModel], at: Path = ()) -> Iterator[Path]:
    for name in _keys(model):
        inner = list(_models_of(model, name))
        if not inner:
            yield (*at, name)
        for found in inner:
            yield from _known(found, (*at, name))


def _names(path: Location) -> Path:
    return tuple(part for part in path if isinstance(part, str))


def _dotted(path: Location) -> str:
    text = ""
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else _join(text, part)
    return text


def _join(parent: str, key: str) -> str:
    key = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    return f"{parent}.{key}" if parent else key
