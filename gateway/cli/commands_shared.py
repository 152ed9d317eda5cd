"""What do the verbs about a data directory have in common: where it is, how they fail, how they write numbers?"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.model.message import Decoders

FINDINGS = 1
USAGE = 2
JOURNAL = 74

ConfigFile = Annotated[Path | None, typer.Option(help="The TOML file that the broker runs with.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of the journal, before the file's broker.data_dir.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting, before the file's: a dotted key; TOML, or a plain string. Repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))
_LONGEST_S = 3650 * 86_400.0
_SPANS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def directory(config: Path | None, data_dir: Path | None, overrides: list[str] | None) -> Path:
    """Return the data directory that the options name. Raises ConfigError."""
    return settings(config, data_dir, overrides).broker.data_dir


def settings(config: Path | None, data_dir: Path | None, overrides: list[str] | None) -> Config:
    """Return the configuration that the options name. Raises ConfigError."""
    from gateway.config import load

    return load(config, overrides or (), data_dir=data_dir)


@contextmanager
def in_words() -> Iterator[None]:
    """End the program with an error's text and exit code, never with a traceback."""
    from gateway.errors import ConfigError, GatewayError, JournalError, JournalLocked, JournalUnwritable

    codes = ((ConfigError, USAGE), (JournalUnwritable, 73), (JournalLocked, 75), (JournalError, JOURNAL))
    try:
        yield
    except GatewayError as error:
        raise ended(str(error), next((code for kind, code in codes if isinstance(error, kind)), FINDINGS)) from error
    except sqlite3.Error as error:
        raise ended(f"the journal can't be read: {error}", JOURNAL) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ended(f"{error.filename or 'a file'}: {error.strerror or error}", JOURNAL) from error


def ended(text: str, code: int) -> typer.Exit:
    """Say why on standard error, and return what ends the program."""
    for line in text.splitlines():
        typer.echo(f"tidegate: {printable(line)}", err=True)
    return typer.Exit(code)


def decoders() -> Decoders:
    """Return who reads the properties of messages: the core's own, and those of the plugins that are installed.

    A front-end offers them as `gateway.api.WritesWire`.
    """
    from gateway.cli.verbs import Complaints
    from gateway.host import Host
    from gateway.model.message import Decoders

    found = Decoders()
    host = Host(Complaints())
    host.discover()
    for tag, decoder in host.wire_decoders().items():
        found.register(tag, decoder)
    return found


# -- numbers --------------------------------------------------------------------


def age(ms: int) -> str:
    """Return a duration in its two largest units."""
    parts: list[str] = []
    left = max(ms, 0)
    for size, unit in _UNITS:
        if left >= size or parts:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2]) or f"{left}ms"


def size(count: int) -> str:
    """Return bytes in the largest unit that leaves a digit before the point."""
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:  # noqa: PLR2004
        amount /= 1024
        units.pop(0)
    return f"{amount:,.0f} {units[0]}" if units[0] == "B" else f"{amount:,.1f} {units[0]}"


def span_s(text: str) -> float:
    """Read a duration, for instance ``90s``, ``15m``, ``6h``, ``1d``.

    Raises:
        typer.BadParameter: it is none.
    """
    unit = next((name for name in ("ms", "s", "m", "h", "d") if text.endswith(name)), "")
    try:
        seconds = float(text.removesuffix(unit)) * _SPANS[unit]
    except (ValueError, KeyError) as error:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 15m, 6h or 1d") from error
    if not 0 < seconds <= _LONGEST_S:
        raise typer.BadParameter(f"{text!r} is no duration above 0 and up to ten years")
    return seconds


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: set[int]) -> Iterator[str]:
    """Yield the lines of a table; columns in `right` stand to the right. What isn't printable is shown as an escape."""
    shown = [tuple(map(printable, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    for row in shown:
        cells = enumerate(zip(row, widths, strict=True))
        yield "  ".join([cell.rjust(width) if n in right else cell.ljust(width) for n, (cell, width) in cells]).rstrip()


def json_text(value: object, indent: int | None = None) -> str:
    """Return JSON that does nothing to a terminal: what is no letter in it is an escape, which says the same."""
    return _SILENT.sub(_escaped, json.dumps(value, ensure_ascii=False, indent=indent))


_SILENT = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def printable(text: str) -> str:
    """Return text that does nothing to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
