"""What does `tidegate sub` print?"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from gateway_mqtt.client import Client, Lost
from gateway_mqtt.codec.coding import topic_filter
from gateway_mqtt.codec.packets import FAILURE, Publish, Subscription
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.commands.formats import PAYLOAD, VERBOSE, Formatter, formatter
from gateway_mqtt.commands.options import LEVEL_5, ConnectionOptions, checked, with_connection
from gateway_mqtt.commands.properties import properties_of
from gateway_mqtt.commands.running import complain, run


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be printed, and when it is enough."""

    written: Formatter
    count: int
    fresh: bool
    retained_only: bool
    remove_retained: bool
    left_out: Sequence[re.Pattern[str]]
    at_once: bool


@with_connection
def sub(  # noqa: PLR0913 - its options
    filter_arguments: Annotated[list[str] | None, typer.Argument(metavar="FILTER", help="Topic filters; or -t.")] = None,
    filter_options: Annotated[list[str] | None, typer.Option("-t", "--topic", help="Topic filter. Repeatable.")] = None,
    filter_out: Annotated[
        list[str] | None, typer.Option("-T", "--filter-out", help="Topic filter of what is not printed. Repeatable.")
    ] = None,
    unsubscribe: Annotated[list[str] | None, typer.Option("-U", "--unsubscribe", help="End a subscription. Repeatable.")] = None,
    count: Annotated[int, typer.Option("-C", min=0, help="End after so many messages; 0: never.")] = 0,
    timeout_s: Annotated[float, typer.Option("-W", min=0, help="End with exit code 27 after so many seconds; 0: never.")] = 0,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print the topic before the message.")] = False,
    template: Annotated[
        str | None,
        typer.Option(
            "-F",
            help="Print as this says: %t topic, %p payload, %x hex, %l length, %q QoS, %r retain, %d dup, %m identifier, %j JSON, "
            "%J JSON with a JSON payload, %U and %I time; MQTT 5: %A %C %D %E %F %P %R %S. %-10t sets to a width, %08x fills with "
            "zeros, %.5p cuts. @Y @H and so on: strftime's parts of the time; @N: nanoseconds.",
        ),
    ] = None,
    bare: Annotated[bool, typer.Option("-N", help="No newline after each message.")] = False,
    fresh: Annotated[bool, typer.Option("-R", help="Leave retained messages out.")] = False,
    retained_only: Annotated[bool, typer.Option("--retained-only", help="End at the first message that is not retained.")] = False,
    remove_retained: Annotated[bool, typer.Option("--remove-retained", help="Clear the retained messages that come.")] = False,
    at_once: Annotated[bool, typer.Option("-E", help="End as soon as the subscriptions are made.")] = False,
    retain_as_published: Annotated[bool, typer.Option("--retain-as-published", help="MQTT 5: retain flags stay.")] = False,
    no_local: Annotated[bool, typer.Option("--no-local", help="MQTT 5: leave out what this client publishes.")] = False,
    qos: Annotated[int, typer.Option("-q", "--qos", min=0, max=2, help="Quality of service: 0, 1 or 2.")] = 0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Subscribe over MQTT and print what comes; a message is acknowledged after it was printed."""
    target = connection.target()
    patterns = [*(filter_arguments or ()), *(filter_options or ()), *([target.topic] if target.topic else [])]
    if not patterns and not unsubscribe:
        raise typer.BadParameter("a topic filter is needed")
    if target.connect.level < LEVEL_5 and (retain_as_published or no_local):
        raise typer.BadParameter("--retain-as-published and --no-local need -V mqttv5")
    filters = [Subscription(checked(pattern, topic_filter), qos, no_local, retain_as_published) for pattern in patterns]
    ended = [checked(pattern, topic_filter) for pattern in unsubscribe or ()]
    written = _writer(template if template is not None else VERBOSE if verbose else PAYLOAD, b"" if bare else b"\n")
    left_out = [_matcher(checked(pattern, topic_filter)) for pattern in filter_out or ()]
    wishes = Wishes(written, count, fresh, retained_only, remove_retained, left_out, at_once)
    properties = properties_of(connection.properties or (), "subscribe")

    async def subscribe(client: Client) -> int:
        if ended:
            await client.unsubscribe(ended)
        if filters:
            code = await _subscribe(client, filters, properties)
            if code:
                return code
        return 0 if wishes.at_once or not filters else await _print(client, wishes)

    raise typer.Exit(run(target, subscribe, timeout_s))


async def _subscribe(client: Client, filters: list[Subscription], properties: Properties) -> int:
    """Subscribe; return the exit code if all were refused, else 0."""
    codes = await client.subscribe(filters, properties)
    for subscription, code in zip(filters, codes, strict=False):
        if code >= FAILURE:
            complain(f"the broker refused the subscription {subscription.pattern!r}", code)
    return min(codes) if min(codes) >= FAILURE else 0


def _writer(template: str, end: bytes) -> Formatter:
    try:
        written = formatter(template)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return lambda message: written(message) + end


def _matcher(pattern: str) -> re.Pattern[str]:
    """Return what matches the topics of a filter."""
    escaped = re.escape(pattern).replace(re.escape("+"), "[^/]*")
    return re.compile(re.sub(r"(/?)\\#$", lambda match: "(/.*)?" if match[1] else ".*", escaped), re.DOTALL)


async def _print(client: Client, wishes: Wishes) -> int:
    printed = 0
    async for message in client.messages:
        if wishes.retained_only and not message.retain:
            return 0
        if _is_wanted(message, wishes):
            sys.stdout.buffer.write(wishes.written(message))
            sys.stdout.buffer.flush()
            printed += 1
            if wishes.remove_retained and message.retain:
                await client.publish(message.topic, b"", qos=1, retain=True)
        await client.acknowledge(message)
        if wishes.count and printed >= wishes.count:
            await client.confirmed()
            return 0
    raise Lost(client.lost)


def _is_wanted(message: Publish, wishes: Wishes) -> bool:
    return not (wishes.fresh and message.retain) and not any(pattern.fullmatch(message.topic) for pattern in wishes.left_out)
