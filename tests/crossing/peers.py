"""A broker with all front-ends in a thread of its own, and for each protocol somebody who says and somebody who hears."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec
import trio
import zmq

from gateway.api import Binding, ConsumeOptions, Credentials, Principal, QueueSpec
from gateway.config import Limits
from gateway.journal.memory import MemoryJournal
from gateway.runtime.broker import Broker
from gateway_amqp.plugin import AmqpFrontEnd
from gateway_amqp.settings import AmqpSettings
from gateway_mqtt.plugin import MqttFrontEnd
from gateway_mqtt.settings import MqttSettings
from gateway_zeromq.plugin import ZeroMqFrontEnd
from gateway_zeromq.settings import ZeroMqSettings
from tests.crossing.amqp_peers import Amqp, AmqpClient
from tests.crossing.table import (
    AMQP,
    EXTRAS,
    HEADERS,
    JSON,
    MAJORDOMO,
    MQTT_3,
    MQTT_5,
    PLAIN,
    PLAIN_REQUEST,
    RAW,
    TABLE,
    TGP,
    Known,
    is_utf8,
)
from tests.mqtt.conformance.support import Client as MqttClient
from tests.zeromq import support
from tests.zeromq.conftest import Sockets
from tests.zeromq.majordomo import Asker, Worker
from tests.zeromq.support import ANY, PATIENCE_S, Log, Plain

KEYS = "x.#"
RAW_KEY, SERVICE_KEY = "x.raw", "x.service"
REQUEST_TTL_S, REPLY_TIMEOUT_MS = 3_000, 2_000_000
QUIET = {"heartbeat_ms": 600_000, "mdp_heartbeat_ms": 600_000}
"""Of a ROUTER: its peers here say nothing for as long as the test does something else."""
_TO = [{"exchange": "amq.topic", "key": KEYS}]
ENDPOINTS: list[dict[str, Any]] = [
    {"name": "in-headers", "socket": "PULL", "bind": ANY, "frames": "key,headers,body"},
    {"name": "in-plain", "socket": "PULL", "bind": ANY, "frames": "key,body"},
    {"name": "in-raw", "socket": "PULL", "bind": ANY, "frames": "raw", "routing_key": RAW_KEY},
    {
        "name": "ask",
        "socket": "REP",
        "bind": ANY,
        "frames": "key,headers,body",
        "reply_timeout_ms": REPLY_TIMEOUT_MS,
        "errors": False,
    },
    {"name": "out-headers", "socket": "PUSH", "bind": ANY, "frames": "key,headers,body", "queue": "to.headers", "bindings": _TO},
    {"name": "out-plain", "socket": "PUSH", "bind": ANY, "frames": "key,body", "queue": "to.plain", "bindings": _TO},
    {"name": "out-raw", "socket": "PUSH", "bind": ANY, "frames": "raw", "queue": "to.raw", "bindings": _TO},
    {"name": "work", "socket": "DEALER", "bind": ANY, "frames": "key,headers,body", "queue": "to.dealer", "bindings": _TO},
    {
        "name": "services",
        "socket": "ROUTER",
        "bind": ANY,
        "protocols": ["tgp/1", "mdp/0.1", "mdp/0.2"],
        "mdp_request_ttl_s": REQUEST_TTL_S,
        **QUIET,
        "mdp_services": {"say": {"exchange": "amq.topic", "routing_key": SERVICE_KEY}, "hear": {"queue": "to.majordomo"}},
    },
]
PROPERTIES = tuple(row for row in TABLE if row not in ("body", "routing_key", "persistent", "retain"))


async def let_in(credentials: Credentials) -> Principal:
    return Principal(credentials.user or "anonymous")


class Tap:
    """What the common model knows: a consumer of the test's own."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[Any](100)

    def deliver(self, delivery: Any) -> None:
        self.send.send_nowait(delivery.message)

    def deliver_transient(self, message: Any, _options: object) -> None:
        self.send.send_nowait(message)

    def cancelled(self, reason: Exception) -> None:
        raise reason


class Mqtt:
    """A publisher and a subscriber of one level."""

    def __init__(self, level: int) -> None:
        self.level = level

    async def start(self, world: World) -> None:
        self.publisher, self.subscriber = [await world.mqtt_client(self.level) for _ in range(2)]
        assert await self.subscriber.subscribe("x/#", 2) == 2

    async def say(self, said: Known) -> None:
        properties: Known = {}
        if self.level == 5:
            names = {"content_type": "content_type", "correlation_data": "correlation_id", "response_topic": "reply_to"}
            properties = {name: said[row] for name, row in names.items() if said.get(row) is not None}
            if said.get("expiration_ms") is not None:
                properties["message_expiry_s"] = said["expiration_ms"] // 1_000
            properties |= {"payload_format": 1} if said.get("is_text") else {}
            properties |= {"user": tuple(said["user"])} if said.get("user") else {}
        await self.publisher.publish(said["routing_key"], said["body"], said["qos"], retain=said["retain"], **properties)

    async def hear(self, expected: Known) -> Known:
        message = await self.subscriber.message()
        assert (message.retain, message.dup) == (False, False)
        heard: Known = {"body": message.payload, "routing_key": message.topic, "persistent": message.qos}
        said = message.properties
        assert (said.topic_alias, said.subscription_ids) == (None, ())
        if self.level == 5:
            encoding = heard_encoding(expected)
            assert (said.payload_format or 0) == encoding
            heard |= {"content_type": said.content_type, "correlation_id": said.correlation_data, "reply_to": said.response_topic}
            heard["expiration_ms"] = None if said.message_expiry_s is None else said.message_expiry_s * 1_000
            count = len(expected["headers"])
            heard["headers"] = list(said.user[:count])
            others = dict(said.user[count:])
            assert len(others) == len(said.user) - count
            heard |= {row: others.pop(EXTRA_NAMES[row], None) for row in EXTRAS}
            assert others == {}
        return heard


EXTRA_NAMES = {row: {"timestamp_s": "timestamp"}.get(row, row.replace("_", "-")) for row in EXTRAS}


def heard_encoding(expected: Known) -> int:
    """Return the payload format that goes with what is expected."""
    return int(expected["is_text"])


class Tgp:
    """A publisher and a consumer that speak TGP/1, in msgpack or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.queue = "to.json" if as_json else "to.tgp"
        self.seq = 0

    async def start(self, world: World) -> None:
        await world.queue(self.queue)
        self.client, self.consumer = [support.Client(world.context, world.address("ROUTER")) for _ in range(2)]
        for client in (self.client, self.consumer):
            if self.as_json:
                await client.say_json("HELLO", r=1, version_max=1)
                assert (await client.hear())["cmd"] == "READY"
            else:
                await client.hello()
        if self.as_json:
            await self.consumer.say_json("CONSUME", r=1, queue=self.queue, tag="c", credit=100)
        else:
            await self.consumer.say(6, 1, self.queue, "c", 100)
        await self.consumer.hear()

    async def say(self, said: Known) -> None:
        self.seq += 1
        props = {row: said[row] for row in PROPERTIES if said.get(row) is not None}
        if said["retain"]:
            props["headers"] = {**(props.get("headers") or {}), "x-retain": True}
        if not said["persistent"]:
            props["delivery_mode"] = 1
        key, body = said["routing_key"], said["body"]
        if self.as_json:
            await self.client.say_json("PUBLISH", body, seq=self.seq, exchange="amq.topic", routing_key=key, props=props)
            assert (await self.client.hear())["status"] == 0
        else:
            assert await self.client.ask(3, self.seq, "amq.topic", key, props, body=body) == [4, self.seq, True, 0]

    async def hear(self, _expected: Known) -> Known:
        header, body = await self.consumer.hear()
        if self.as_json:
            await self.consumer.say_json("ACK", tag="c", delivery=header["delivery"])
            key, props = header["routing_key"], header["props"] or {}
            correlation_id = props.get("correlation_id", "")
            if correlation_id.startswith("base64:"):
                props["correlation_id"] = as_text_if_it_is(b64decode(correlation_id.removeprefix("base64:")))
        else:
            await self.consumer.say(9, "c", header[2])
            key, props = header[5], header[6]
        return {**dict.fromkeys(PROPERTIES), **(props or {}), "routing_key": key, "body": body}


def as_text_if_it_is(data: bytes) -> str | bytes:
    return data.decode() if is_utf8(data) else data


class Frames:
    """A PUSH socket at a PULL endpoint, and a PULL socket at a PUSH endpoint."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def start(self, world: World) -> None:
        self.push = Plain(world.context, zmq.PUSH, world.address("PULL", self.number))
        self.pull = Plain(world.context, zmq.PULL, world.address("PUSH", self.number))

    async def say(self, said: Known) -> None:
        await self.push.send(*self.frames(said))

    async def hear(self, _expected: Known) -> Known:
        got = await self.pull.receive()
        return self.read([got] if isinstance(got, bytes) else got)


def headers_frame(said: Known) -> bytes:
    headers = {**(said.get("headers") or {}), **({"x-retain": True} if said["retain"] else {})}
    if said.get("as_json"):
        return json.dumps(headers).encode()
    return msgspec.msgpack.encode(headers)


def with_headers(frames: list[bytes]) -> Known:
    key, headers, body = frames
    return {"routing_key": key.decode(), "headers": msgspec.msgpack.decode(headers) or None, "body": body}


class WithHeaders(Frames):
    def frames(self, said: Known) -> list[bytes]:
        return [said["routing_key"].encode(), headers_frame(said), said["body"]]

    def read(self, frames: list[bytes]) -> Known:
        return with_headers(frames)


class WithKey(Frames):
    def frames(self, said: Known) -> list[bytes]:
        return [said["routing_key"].encode(), said["body"]]

    def read(self, frames: list[bytes]) -> Known:
        return {"routing_key": frames[0].decode(), "body": frames[1]}


class Raw(Frames):
    def frames(self, said: Known) -> list[bytes]:
        return list(said["body"])

    def read(self, frames: list[bytes]) -> Known:
        return {"body": frames}


class PlainRequests:
    """A client of a REP endpoint, and a worker of a DEALER endpoint."""

    async def start(self, world: World) -> None:
        self.client = Plain(world.context, zmq.DEALER, world.address("REP"))
        self.worker = Plain(world.context, zmq.DEALER, world.address("DEALER"))

    async def say(self, said: Known) -> None:
        await self.client.send(b"", said["routing_key"].encode(), headers_frame(said), said["body"])

    async def hear(self, _expected: Known) -> Known:
        number, empty, *frames = await self.worker.receive()
        assert empty == b""
        await self.worker.send(number, b"", b"done")
        return with_headers(frames)


class Majordomo:
    """A client and a worker of version 0.2."""

    async def start(self, world: World) -> None:
        await world.queue("to.majordomo")
        self.worker = Worker(world.context, world.address("ROUTER"), 2)
        await self.worker.ready(b"hear")
        self.client = Asker(world.context, world.address("ROUTER"), 2)
        await support.until(lambda: world.broker.engine.vhosts["/"].queues["to.majordomo"].consumers)

    async def say(self, said: Known) -> None:
        await self.client.ask(b"say", *said["body"])

    async def hear(self, _expected: Known) -> Known:
        address, body = await self.worker.request()
        await self.worker.reply(address, b"done")
        return {"body": body}


def all_peers() -> dict[str, Any]:
    """Return somebody of each protocol who says, and somebody who hears."""
    return {
        AMQP: Amqp(),
        MQTT_3: Mqtt(4),
        MQTT_5: Mqtt(5),
        TGP: Tgp(as_json=False),
        JSON: Tgp(as_json=True),
        HEADERS: WithHeaders(0),
        PLAIN: WithKey(1),
        RAW: Raw(2),
        PLAIN_REQUEST: PlainRequests(),
        MAJORDOMO: Majordomo(),
    }


class World:
    """All of it. What is called from outside goes through `run`."""

    def __init__(self, endpoints: list[dict[str, Any]], peers: dict[str, Any]) -> None:
        self.context = Sockets()
        self.endpoints = endpoints
        self.peers = peers
        self.listening: dict[str, list[str]] = {"amqp": [], "mqtt": [], "zeromq": []}
        self.clients: list[AmqpClient | MqttClient] = []
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    # -- from outside

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(2 * PATIENCE_S)
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._over.set, trio_token=self._token)
        self._thread.join()
        self.context.close()
        if self._error is not None:
            raise self._error

    def run(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return trio.from_thread.run(function, *arguments, trio_token=self._token)

    def _run(self) -> None:
        try:
            trio.run(self._live)
        except BaseException as error:  # raised again where the test is
            self._error = error
        self._ready.set()

    # -- inside

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._over = trio.Event()
        log = Log()
        self.broker = Broker(MemoryJournal(), limits=Limits(), authenticate=let_in, log=log)
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            await nursery.start(self.broker.run)
            settings = {
                "amqp": AmqpSettings(listen=[ANY]),
                "mqtt": MqttSettings(listen=[ANY]),
                "zeromq": ZeroMqSettings(endpoint=self.endpoints),
            }
            for name, front_end in (("amqp", AmqpFrontEnd()), ("mqtt", MqttFrontEnd()), ("zeromq", ZeroMqFrontEnd())):
                for tag, decoder in front_end.wire_decoders.items():
                    self.broker.decoders.register(tag, decoder)
                gateway = self.broker.gateway(name, self.listening[name].append, log)
                await nursery.start(self._serve, front_end, gateway, settings[name])
            self.channel = self.broker.gateway("test", print, log).open_channel(Principal("test"))
            await self.queue("tap")
            self.tap = Tap()
            await self.channel.outcome(self.channel.consume("tap", self.tap, ConsumeOptions(no_ack=True)))
            for peer in self.peers.values():
                await peer.start(self)
            self._ready.set()
            await self._over.wait()
            for client in self.clients:
                await trio.aclose_forcefully(client.stream)
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _serve(front_end: Any, gateway: Any, settings: Any, *, task_status: Any) -> None:
        await front_end.serve(gateway, settings, task_status=task_status)

    def address(self, kind: str, number: int = 0) -> str:
        return [line.split()[-1] for line in self.listening["zeromq"] if line.split()[0] == kind][number]

    async def connect(self, name: str) -> trio.SocketStream:
        (address,) = self.listening[name]
        return await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))

    async def amqp_client(self) -> AmqpClient:
        client = AmqpClient(await self.connect("amqp"))
        self.clients.append(client)
        await client.open()
        return client

    async def mqtt_client(self, level: int) -> MqttClient:
        client = MqttClient(await self.connect("mqtt"), level)
        self.clients.append(client)
        assert (await client.connect()).code == 0
        return client

    async def queue(self, name: str) -> None:
        await self.channel.outcome(self.channel.declare_queue(QueueSpec(name)))
        await self.channel.outcome(self.channel.bind(Binding("amq.topic", name, KEYS)))

    async def say(self, protocol: str, said: Known) -> Known:
        """Have something said; return what the common model knows of it."""
        with trio.fail_after(PATIENCE_S):
            await self.peers[protocol].say(said)
            message = await self.tap.receive.receive()
        properties = self.broker.decoders.properties(message)
        known: Known = {row: getattr(properties, row) for row in PROPERTIES}
        if message.expires_at_ms and known["expiration_ms"] is None:
            known["expiration_ms"] = message.expires_at_ms - self.broker.clock.now_ms()
        known |= {"body": message.body, "routing_key": message.routing_key, "persistent": message.persistent}
        kept = [one.body for one in self.channel.retained("amq.topic", message.routing_key)]
        known["retain"] = kept == [message.body]
        if kept:
            route = self.channel.route("amq.topic", message.routing_key)
            self.channel.retain(route, type(message)(route.address, b""))
            self.channel.post(self.channel.route("", "nowhere"), type(message)(route.address, b""))
        return known

    async def hear(self, protocol: str, expected: Known) -> Known:
        with trio.fail_after(PATIENCE_S):
            return await self.peers[protocol].hear(expected)
