"""What does `tidegate peek` show of the messages in a queue?"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.commands_shared import (
    AsJson,
    ConfigFile,
    DataDir,
    Overrides,
    age,
    decoders,
    directory,
    in_words,
    json_text,
    printable,
)

if TYPE_CHECKING:
    from gateway.journal.tools.peek import Peeked
    from gateway.model.message import Message
    from gateway.model.properties import Properties

Test = Callable[["Peeked", "Properties | None"], bool]

_SHOWN_BYTES = 2_000
_HEX_LINE = 16


def peek(  # noqa: PLR0913 - options
    queue: Annotated[str, typer.Argument(help="The queue's name.")],
    limit: Annotated[int, typer.Option(min=1, help="So many messages at most.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Pass over so many (of those that match).")] = 0,
    vhost: Annotated[str | None, typer.Option(help="The queue's virtual host; needed if several have such a queue.")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Only messages with this header. Repeatable.")] = None,
    json_path: Annotated[
        list[str] | None,
        typer.Option(metavar="a.b=VALUE", help="Only messages whose body is JSON with this value there. Repeatable."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Bodies only, as they are, each followed by a line end.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Show messages of a queue as they are on disk, in the order in which they go out. Takes none, marks none, changes nothing."""
    from gateway.journal.tools.inspection import find_queue, journal_in, reading
    from gateway.journal.tools.peek import peek as peeked

    if raw and as_json:
        raise typer.BadParameter("--raw and --json exclude each other")
    tests = [_header_test(text) for text in header or ()] + [_json_test(text) for text in json_path or ()]
    with in_words(), TemporaryFile() as spool:
        read = _reader()
        with reading(journal_in(directory(config, data_dir, overrides))) as connection:
            connection.execute("BEGIN")  # all of it as of one moment
            found = find_queue(connection, queue, vhost)
            damaged: list[int] = []
            matching = _matching(peeked(connection, found, damaged), read, tests)
            wanted = islice(matching, min(offset, sys.maxsize), min(offset + limit, sys.maxsize))
            shown = _write(_documents(wanted) if as_json else _raw(wanted) if raw else _described(wanted), spool)
            connection.execute("COMMIT")
        _copy(spool)
    _echo_rest(shown, found.messages, raw=raw or as_json)
    for segment in damaged:
        typer.echo(f"tidegate: segment {segment} is damaged, its messages are left out (`tidegate journal check`)", err=True)
    raise typer.Exit(1 if damaged else 0)


def _write(parts: Iterator[bytes | None], spool: IO[bytes]) -> int:
    """Write what is to be shown into a file: who reads it slowly must not hold up the broker's checkpoints, nor fill memory.

    None stands for the end of a message; returns how many there were.
    """
    messages = 0
    for part in parts:
        if part is None:
            messages += 1
        else:
            spool.write(part)
    return messages


def _copy(spool: IO[bytes]) -> None:
    spool.seek(0)
    shutil.copyfileobj(spool, typer.get_binary_stream("stdout"))


def _raw(found: Iterator[tuple[Peeked, Properties | None]]) -> Iterator[bytes | None]:
    for item, _ in found:
        yield item.message.body + b"\n"
        yield None


def _described(found: Iterator[tuple[Peeked, Properties | None]]) -> Iterator[bytes | None]:
    for item, properties in found:
        for line in _lines(item, properties):
            yield f"{line}\n".encode("utf-8", "backslashreplace")
        yield None


def _documents(found: Iterator[tuple[Peeked, Properties | None]]) -> Iterator[bytes | None]:
    before = "["
    for item, properties in found:
        yield f"{before}\n{json_text(_as_json(item, properties), indent=1)}".encode()
        yield None
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def _echo_rest(shown: int, messages: int, *, raw: bool) -> None:
    text = f"{shown:,} shown of {messages:,} on disk; messages that are not persistent are in the broker's memory only"
    typer.echo(text, err=raw)


def _reader() -> Callable[[Message], Properties | None]:
    from gateway.journal.tools.export import readable_properties

    known = decoders()
    return lambda message: readable_properties(message, known.properties) if known.reads(message.wire_tag) else None


def _matching(
    found: Iterator[Peeked], read: Callable[[Message], Properties | None], tests: list[Test]
) -> Iterator[tuple[Peeked, Properties | None]]:
    for item in found:
        properties = read(item.message)
        if all(test(item, properties) for test in tests):
            yield item, properties


# -- filters --------------------------------------------------------------------


def _header_test(text: str) -> Test:
    key, equals, wanted = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not K=V", param_hint="--header")

    def test(_: Peeked, properties: Properties | None) -> bool:
        headers = properties.headers if properties is not None else None
        return bool(headers) and key in (headers or {}) and _is(wanted, (headers or {})[key])

    return test


def _json_test(text: str) -> Test:
    path, equals, wanted = text.partition("=")
    if not equals or not path:
        raise typer.BadParameter(f"{text!r} is not a.b=VALUE", param_hint="--json-path")

    def test(item: Peeked, _: Properties | None) -> bool:
        try:
            value = json.loads(item.message.body)
            for step in path.split("."):
                value = value[int(step)] if isinstance(value, list) else value[step]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            return False
        return _is(wanted, value)

    return test


def _is(wanted: str, value: Any) -> bool:
    """Say whether a value is the wanted one: as text, or as the JSON that says it."""
    if isinstance(value, bytes):
        return value == wanted.encode()
    if isinstance(value, str):
        return wanted in (value, json.dumps(value))
    try:
        return bool(json.loads(wanted) == value) and isinstance(value, bool) == isinstance(json.loads(wanted), bool)
    except ValueError:
        return wanted == str(value)


# -- what is shown --------------------------------------------------------------


def _lines(item: Peeked, properties: Properties | None) -> Iterator[str]:
    message = item.message
    body = len(message.body)
    facts = [f"position {item.position:,}", f"{age(_now_ms() - item.stored_ms)} old", f"{body:,} bytes"]
    facts += [f"priority {item.priority}"] if item.queue.lanes > 1 else []
    facts += [f"delivered {item.deliveries} times"] if item.deliveries else []
    facts += [f"not before {age(item.due_ms - _now_ms())} from now"] if item.due_ms > _now_ms() else []
    facts += [f"expires in {age(message.expires_at_ms - _now_ms())}"] if message.expires_at_ms > _now_ms() else []
    facts += ["expired"] if 0 < message.expires_at_ms <= _now_ms() else []
    yield f"-- {', '.join(facts)}"
    yield f"   to {printable(message.exchange) or '(default exchange)'}, key {printable(message.routing_key)}"
    for name, value in _said(message, properties).items():
        yield f"   {name}: {printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr))}"
    for line in _body_lines(message.body):
        yield f"   | {line}"


def _said(message: Message, properties: Properties | None) -> dict[str, Any]:
    from gateway.journal.tools.export import headers_text

    if properties is None:
        return {f"properties ({message.wire_tag or 'no tag'})": message.wire.hex()}
    said = {name: getattr(properties, name) for name in properties.__struct_fields__}
    known: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if "headers" in known:
        known["headers"] = json.loads(headers_text(known["headers"]))
    if isinstance(known.get("correlation_id"), bytes):
        known["correlation_id"] = known["correlation_id"].decode("utf-8", "backslashreplace")
    return known


def _body_lines(body: bytes) -> Iterator[str]:
    """Yield a body as text if it is text, else in hexadecimal; the beginning, if it is long."""
    head = body[:_SHOWN_BYTES]
    text = _text(body, head)
    if text is not None:
        yield from (printable(line) for line in text.splitlines())
    else:
        for start in range(0, len(head), _HEX_LINE):
            yield head[start : start + _HEX_LINE].hex(" ")
    if len(body) > _SHOWN_BYTES:
        yield f"... ({len(body) - _SHOWN_BYTES:,} bytes more: --raw shows all)"


def _text(body: bytes, head: bytes) -> str | None:
    try:
        body.decode()
    except UnicodeDecodeError:
        return None
    text = head.decode("utf-8", "ignore")
    return text if all(c.isprintable() or c in "\n\r\t" for c in text) else None


def _as_json(item: Peeked, properties: Properties | None) -> dict[str, Any]:
    message = item.message
    text = _text(message.body, message.body)
    return {
        "position": item.position,
        "priority": item.priority,
        "stored_ms": item.stored_ms,
        "age_ms": max(_now_ms() - item.stored_ms, 0),
        "deliveries": item.deliveries,
        "due_ms": item.due_ms,
        "expires_at_ms": message.expires_at_ms,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "properties": _said(message, properties),
        "bytes": len(message.body),
        **({"body": text} if text is not None else {"body_hex": message.body.hex()}),
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
