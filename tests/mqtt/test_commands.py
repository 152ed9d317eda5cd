"""`tidegate pub` and `tidegate sub`, with the flags of mosquitto_pub and mosquitto_sub."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import trio
from typer.testing import CliRunner

from gateway_mqtt.codec.packets import Publish, Will
from gateway_mqtt.commands import app
from gateway_mqtt.commands.formats import formatter
from tests.mqtt.support import mqtt_broker

COMMANDS = [sys.executable, "-c", "from gateway_mqtt.commands import app; app()"]
"""As `tidegate` runs them, without the other plugins."""


async def run(bench, *arguments, stdin=b""):
    """Run a command against the broker; return exit code, standard output, standard error."""
    verb, *rest = arguments
    with trio.fail_after(60):
        done = await trio.run_process(
            [*COMMANDS, verb, "-p", str(bench.port), *rest], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, done.stdout, done.stderr.decode()


async def test_pub_publishes_each_way_and_sub_prints_and_ends_with_0_after_c_messages(tmp_path):
    (tmp_path / "body").write_bytes(b"from\0a file")
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("t/#", qos=1)
        for arguments, stdin, packets in [
            (["t/1", "body"], b"", [Publish("t/1", b"body")]),
            (["-t", "t/2", "-m", "body", "-q", "1"], b"", [Publish("t/2", b"body", 1, packet_id=1)]),
            (["-t", "t/3", "-l"], b"one\ntwo\n\nfour", [Publish("t/3", line) for line in (b"one", b"two", b"", b"four")]),
            (["t/3", "-l"], b"x" * 200_000 + b"\ny\n", [Publish("t/3", b"x" * 200_000), Publish("t/3", b"y")]),
            (["t/4", "-f", str(tmp_path / "body")], b"", [Publish("t/4", b"from\0a file")]),
            (["t/5", "-s"], b"all\nof it\n", [Publish("t/5", b"all\nof it\n")]),
            (["t/6", "-n", "-r"], b"", [Publish("t/6", b"")]),
        ]:
            assert await run(bench, "pub", *arguments, stdin=stdin) == (0, b"", "")
            assert await watcher.take(len(packets)) == packets


async def test_sub_prints_retained_and_live_messages_and_acknowledges_them():
    async with mqtt_broker() as bench:
        publisher = await bench.client()
        await publisher.publish("t/a", b"kept", retain=True, qos=1)
        assert await run(bench, "sub", "t/#", "-C", "1", "-v", "-q", "1") == (0, b"t/a kept\n", "")
        code, out, _ = await run(bench, "sub", "-t", "t/+", "-C", "1", "-F", "%t|%p|%q|%r|%l|%x%%\\t", "-N", "-q", "1")
        assert (code, out) == (0, b"t/a|kept|1|1|4|6b657074%\t")
        code, out, _ = await run(bench, "sub", "t/#", "-R", "-W", "0.5")
        assert (code, out) == (27, b"")


async def test_sub_keeps_a_persistent_session_and_ends_with_27_at_its_time_out():
    async with mqtt_broker() as bench:
        assert (await run(bench, "sub", "a", "-q", "1", "-i", "me", "-c", "-E"))[0] == 0
        assert (await run(bench, "sub", "a", "-q", "1", "-i", "me", "-c", "-W", "0.3"))[0] == 27
        publisher = await bench.client()
        await publisher.publish("a", b"waited", qos=1)
        assert await run(bench, "sub", "a", "-q", "1", "-i", "me", "-c", "-C", "1") == (0, b"waited\n", "")
        assert bench.queue("me").count == 0


@pytest.mark.slow
async def test_pub_and_sub_speak_every_version_and_quality_of_service():
    async with mqtt_broker() as bench:
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            await run(bench, "sub", "t", "-q", "2", "-i", "me", "-c", "-V", version, "-E")
            for qos in ("0", "1", "2"):
                assert await run(bench, "pub", "t", "x", "-q", qos, "-V", version, "--repeat", "2") == (0, b"", "")
            code, out, _ = await run(bench, "sub", "t", "-q", "2", "-i", "me", "-c", "-V", version, "-C", "4", "-F", "%p%q")
            assert (code, out) == (0, b"x1\nx1\nx2\nx2\n")


async def test_sub_prints_the_properties_that_pub_sent():
    options = [
        *("-V", "5", "-D", "publish", "content-type", "text/plain", "-D", "publish", "response-topic", "answers"),
        *("-D", "publish", "user-property", "b", "1", "-D", "publish", "user-property", "a", "2"),
        *("-D", "publish", "correlation-data", "id", "-D", "publish", "payload-format-indicator", "1", "-r", "-q", "1"),
    ]
    async with mqtt_broker() as bench:
        assert await run(bench, "pub", "t", "22", *options) == (0, b"", "")
        wanted = ["-V", "5", "-D", "subscribe", "subscription-identifier", "7", "-C", "1"]
        assert await run(bench, "sub", "t", *wanted, "-F", "%C|%R|%P|%D|%F|%S|%p") == (
            0,
            b"text/plain|answers|b:1 a:2|id|1|7|22\n",
            "",
        )
        code, out, _ = await run(bench, "sub", "t", *wanted, "-F", "%J")
        told = json.loads(out)
        assert code == 0
        assert (told["topic"], told["payload"], told["retain"]) == ("t", 22, 1)
        assert told["properties"]["user-properties"] == [{"b": "1"}, {"a": "2"}]


async def test_a_refused_publish_of_version_5_is_told_with_its_reason():
    async with mqtt_broker(session_max_messages=1) as bench:
        await run(bench, "sub", "t", "-q", "1", "-i", "me", "-c", "-E")
        code, _, err = await run(bench, "pub", "t", "-l", "-q", "1", "-V", "5", stdin=b"1\n2\n3\n")
        assert (code, err) == (0x97, "tidegate: the broker refused 2 messages: quota exceeded\n")


@pytest.mark.slow
async def test_sub_leaves_out_ends_and_clears_what_it_is_told_to():
    async with mqtt_broker() as bench:
        for topic in ("a", "b", "b/c"):
            assert await run(bench, "pub", topic, topic, "-r", "-q", "1") == (0, b"", "")
        out = b""
        for patience in ("0.3", "3", "30"):
            if not out:
                code, out, _ = await run(bench, "sub", "#", "-T", "b/#", "-W", patience)
        assert (code, out) == (27, b"a\n")
        code, out, _ = await run(bench, "sub", "+", "-T", "a", "--remove-retained", "-C", "1")
        assert (code, out) == (0, b"b\n")
        code, out, _ = await run(bench, "sub", "#", "-v", "-C", "2")
        assert (code, sorted(out.splitlines())) == (0, [b"a a", b"b/c b/c"])


async def test_a_url_says_where_and_which_topic():
    async with mqtt_broker() as bench:
        url = f"mqtt://127.0.0.1:{bench.port}/from/url"
        with trio.fail_after(30):
            command = [*COMMANDS, "pub", "-L", url, "-m", "x", "-r", "-q", "1"]
            done = await trio.run_process(command, capture_stderr=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert await run(bench, "sub", "from/#", "-v", "-C", "1") == (0, b"from/url x\n", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_sub_says_goodbye_when_it_is_told_to_stop(how):
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost")
        command = [*COMMANDS, "sub", "-p", str(bench.port), "-t", "a", "--will-topic", "lost", "--will-payload", "x"]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        await watcher.publish("a", b"ready?", retain=True)
        assert await process.stdout.receive_some(100) == b"ready?\n"
        process.send_signal(how)
        with trio.fail_after(60):
            assert await process.wait() == 0
        await process.stdout.aclose()
        await watcher.ping()


async def test_a_killed_sub_leaves_its_will():
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost", qos=1)
        will = ["--will-topic", "lost", "--will-payload", "gone", "--will-qos", "1", "--will-retain"]
        process = await trio.lowlevel.open_process([*COMMANDS, "sub", "-p", str(bench.port), "a", *will], stdout=subprocess.PIPE)
        await watcher.publish("a", b"ready?", retain=True)
        assert await process.stdout.receive_some(100) == b"ready?\n"
        process.kill()
        await process.wait()
        await process.stdout.aclose()
        watcher.patience_s = 10
        assert await watcher.next() == Publish("lost", b"gone", 1, packet_id=1)


async def test_what_goes_wrong_has_its_exit_code_and_one_line():
    async with mqtt_broker(session_max_messages=1) as bench:
        away = await bench.client("away", clean=False, will=Will("x", b""))
        await away.subscribe("t", qos=1)
        await away.leave()
        code, _, err = await run(bench, "pub", "t", "-l", "-q", "1", stdin=b"1\n2\n")
        assert code == 7
        assert err == "tidegate: closed by the broker; 1 messages are not confirmed\n"
        code, _, err = await run(bench, "pub", "t", "x", "-i", "x" * 300)
        assert code == 2
        assert err == "tidegate: refused by the broker: client identifier not acceptable\n"
        free = trio.socket.socket()
        await free.bind(("127.0.0.1", 0))
        code, _, err = await run(bench, "pub", "t", "x", "-p", str(free.getsockname()[1]))
        free.close()
        assert code == 1
        assert err.count("\n") == 1
        assert "refused" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pub"], "topic is missing"),
        (["pub", "t"], "exactly one message"),
        (["pub", "t", "x", "-n"], "exactly one message"),
        (["pub", "t", "x", "-m", "y"], "given twice"),
        (["pub", "t", "-t", "u", "-m", "y"], "given twice"),
        (["pub", "a/#", "x"], "wildcard"),
        (["pub", "t", "x", "-q", "3"], "-q"),
        (["pub", "t", "-l", "--repeat", "2"], "--repeat is not for -l"),
        (["pub", "t", "x", "-V", "mqttv4"], "known are mqttv31, mqttv311 and mqttv5"),
        (["pub", "t", "x", "-x", "5"], "need -V mqttv5"),
        (["pub", "t", "x", "-D", "publish", "content-type", "a"], "need -V mqttv5"),
        (["pub", "t", "x", "-V", "5", "-D", "publish", "colour", "red"], "known are content-type"),
        (["pub", "t", "x", "-V", "5", "-D", "puback", "content-type", "red"], "known are connect, publish"),
        (["pub", "t", "x", "-V", "5", "-D", "publish", "message-expiry-interval", "soon"], "must be a whole number"),
        (["pub", "t", "x", "-V", "5", "-D", "publish", "user-property", "alone"], "needs a name and a value"),
        (["pub", "t", "x", "-V", "5", "-D"], "-D"),
        (["pub", "t", "x", "-V", "5", "-D", "will", "content-type", "a"], "needs --will-topic"),
        (["pub", "t", "x", "-L", "http://host/t"], "must be mqtt://"),
        (["pub", "t", "x", "-L", "mqtt://host/u"], "given twice"),
        (["pub", "x", "-L", "mqtt://host/u", "-h", "other"], "in place of -h"),
        (["pub", "t", "x", "--unix", "/a", "-h", "other"], "in place of -h"),
        (["pub", "t", "x", "-i", "a", "-I", "b"], "both given"),
        (["sub", "t", "--no-local"], "need -V mqttv5"),
        (["pub", "t", "x", "-c"], "needs a client identifier"),
        (["pub", "t", "x", "-P", "pw"], "needs a user name"),
        (["pub", "t", "x", "--will-payload", "x"], "needs --will-topic"),
        (["pub", "t", "x", "--will-topic", "#"], "wildcard"),
        (["pub", "t", "-f", "/does/not/exist"], "does not exist"),
        (["sub"], "filter is needed"),
        (["sub", "a/#/b"], "not the last level"),
        (["sub", "a", "-F", "%z"], "unknown field '%z'"),
        (["sub", "a", "-F", "%-03"], "unknown field '%'"),
        (["sub", "a", "-F", "@t @Q"], "unknown part of the time '@Q'"),
        (["sub", "a", "-F", "\\z"], "unknown escape"),
    ],
)
def test_bad_options_are_named_before_anything_is_sent(arguments, complaint):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def test_a_format_prints_every_field():
    message = Publish("a/b", b"\x00\xffz", 1, retain=True, dup=False, packet_id=12)
    assert formatter(r"%t %x %X %l %q %r %d %m %p%%\n\t\\")(message) == b"a/b 00ff7a 00FF7A 3 1 1 0 12 \x00\xffz%\n\t\\"


def test_a_format_sets_fields_to_a_width_and_cuts_them():
    message = Publish("a/b", b"\x00\xffz", 1, retain=True, dup=False, packet_id=12)
    assert formatter("%5t|%-5t|%.1t|%-3.1t|%3.2t|%2t")(message) == b"  a/b|a/b  |a|a  | a/|a/b"
    assert formatter("%4m|%-4m|%04m|%-04m|%1m")(message) == b"  12|12  |0012|12  |12"
    assert formatter("%08x|%8x|%.4x|%05p")(message) == b"0000ff7a|  00ff7a|00ff|00\x00\xffz"


def test_a_format_tells_the_time_in_parts():
    message = Publish("a", b"x")
    before = time.time()
    year, nanoseconds, seconds, at = formatter("@Y,@N,@s,@@")(message).split(b",")
    assert at == b"@"
    assert int(year) >= 2024
    assert len(nanoseconds) == 9
    assert int(before) <= int(seconds) <= time.time()


async def test_who_wants_it_quiet_is_told_by_the_exit_code_alone():
    async with mqtt_broker(maximum_qos=0) as bench:
        assert await run(bench, "pub", "t", "x", "-q", "1", "-V", "5", "--quiet") == (7, b"", "")
        code, _, err = await run(bench, "pub", "t", "x", "-q", "1", "-V", "5")
        assert code == 7
        assert err
