"""Do configuration, journal, broker and front-ends become one program, and does it end in order?"""

from __future__ import annotations

import gc
import io
import os

import pytest
import trio

from gateway.app import Exit, exit_code, prepare, run, say_on, serve
from gateway.config import load
from gateway.errors import ConfigError, GatewayError, JournalError, JournalLocked, JournalUnwritable, ListenError
from gateway.host import Host, State
from gateway.journal.memory import MemoryJournal

from .conftest import serve as serve_code

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _collector():
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def composed(install, log):
    """Return a function that configures these plugins alone, with the journal in memory."""

    def _composed(codes, *overrides):
        for name, code in codes.items():
            points = install(name, f"Toy.name = {name!r}\n" + code)
        sections = [f"frontend.{name}.enabled=true" for name in codes]
        config = load(
            overrides=[
                "journal.kind=memory",
                "frontend.mqtt.enabled=false",
                "frontend.zeromq.enabled=false",
                "frontend.amqp.enabled=false",
                *sections,
                *overrides,
            ]
        )
        host = Host(log)
        host.discover(points)
        host.configure(config)
        return config, host

    return _composed


async def test_it_says_listeners_first_and_ready_last_and_stops_when_asked(composed, log, autojump_clock):
    config, host = composed({"a": "", "b": ""})
    said = []

    async def stop():
        await trio.sleep(60)

    await serve(config, host, anonymous=True, log=log, say=said.append, stop=stop)
    assert said[:2] == ["listening a tcp://127.0.0.1:7000", "listening b tcp://127.0.0.1:7000"]
    assert [line.split()[0] for line in said[2:]] == ["tidegate", "data", "durability", "nc", "nc", "ready"]
    assert trio.current_time() == pytest.approx(60, abs=1)
    assert [service.state for service in host.services.values()] == [State.CLOSED, State.CLOSED]


async def test_a_front_end_that_can_not_bind_ends_the_start_and_the_others_are_drained(composed, log):
    config, host = composed({"a": "", "b": serve_code("raise ListenError('port 7000 is taken')")})
    said = []
    with pytest.raises(ListenError, match="port 7000"):
        await serve(config, host, anonymous=True, log=log, say=said.append, stop=trio.sleep_forever)
    assert host.services["a"].state is State.CLOSED
    assert "ready" not in said


async def test_asked_to_stop_while_a_front_end_starts_it_stops(composed, log, autojump_clock):
    config, host = composed({"a": "", "b": serve_code("await trio.sleep_forever()")})
    said = []

    async def stop():
        await trio.sleep(1)

    await serve(config, host, anonymous=True, log=log, say=said.append, stop=stop)
    assert "ready" not in said
    assert [service.state for service in host.services.values()] == [State.CLOSED, State.CLOSED]


async def test_a_front_end_that_does_not_end_is_cut_off_after_the_drain_timeout(composed, log, autojump_clock):
    code = serve_code("task_status.started()\nawait trio.sleep_forever()")
    config, host = composed({"a": code}, "limits.drain_timeout_s=7")

    async def stop():
        await trio.sleep(1)

    await serve(config, host, anonymous=True, log=log, say=[].append, stop=stop)
    assert 8 <= trio.current_time() <= 13
    assert host.services["a"].state is State.CLOSED
    assert any("cut off" in event for _, event, _ in log.lines)


async def test_with_no_front_end_at_all_it_runs_and_says_so(composed, log, autojump_clock):
    config, host = composed({"a": serve_code("raise KeyError('x')")})

    async def stop():
        await trio.sleep(1)

    await serve(config, host, anonymous=True, log=log, say=[].append, stop=stop)
    assert any("no front-end is running" in event for _, event, _ in log.lines)


async def test_refusing_everybody_is_said(composed, log, autojump_clock):
    config, host = composed({"a": ""})

    async def stop():
        await trio.sleep(1)

    await serve(config, host, anonymous=False, log=log, say=[].append, stop=stop)
    assert any("nobody is let in but" in event for _, event, _ in log.lines)


def test_front_ends_beyond_loopback_decide_whether_the_setting_is_needed(log):
    with pytest.raises(ConfigError, match=r"security\.anonymous is not set"):
        prepare(load(overrides=['frontend.mqtt.listen=["tcp://0.0.0.0:0"]']), Host(log))
    assert prepare(load(), Host(log))
    assert not prepare(load(overrides=["security.anonymous=false", "frontend.zeromq.enabled=false"]), Host(log))


@pytest.mark.parametrize(("word", "let_in"), [("", True), ("[security]\nanonymous = false\n", False)])
def test_an_address_where_every_peer_must_be_known_needs_no_word(log, tmp_path, word, let_in):
    path = tmp_path / "my.toml"
    path.write_text(
        word + '[[frontend.zeromq.endpoint]]\nsocket = "ROUTER"\nbind = "tcp://0.0.0.0:5570"\n'
        'security = "curve"\nsecret_key_file = "a.key_secret"\nclient_keys = "clients"\n'
    )
    assert prepare(load(path), Host(log)) is let_in


def test_a_listener_beyond_this_machine_without_a_word_is_blamed_on_the_file(log, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('[frontend.mqtt]\nlisten = "tcp://0.0.0.0:0"\n')
    with pytest.raises(ConfigError) as caught:
        prepare(load(path), Host(log))
    assert caught.value.text.startswith(f"{path}: security.anonymous is not set, ")


def test_endpoints_that_could_let_nobody_in_are_named_with_what_to_write(log):
    with pytest.raises(ConfigError) as caught:
        prepare(load(overrides=["security.anonymous=false"]), Host(log))
    assert caught.value.text.startswith("--set: security.anonymous = false ")
    assert "frontend.zeromq (pull, push, xpub, router). Write frontend.zeromq.enabled = false" in caught.value.text


@pytest.mark.parametrize("address", ["mqtt://127.0.0.1:1883", "tcp://0.0.0.0", "tcp://0.0.0.0:99999"])
def test_an_address_that_is_none_is_called_so_and_not_one_that_others_could_reach(log, address):
    with pytest.raises(ConfigError) as caught:
        prepare(load(overrides=[f"frontend.mqtt.listen={address}"]), Host(log))
    assert caught.value.text.startswith(f"--set: frontend.mqtt.listen[0] = '{address}': must be an address tcp://HOST:PORT")


@pytest.mark.parametrize("listen", ['["tcp://127.0.0.1:4", "tcp://127.0.0.1:4"]', "tcp://127.0.0.1:5570"])
def test_one_address_can_not_be_used_twice(log, listen):
    with pytest.raises(ConfigError, match=r"would listen on tcp://127\.0\.0\.1:\d+ (twice|as well as frontend\.)"):
        prepare(load(overrides=[f"frontend.mqtt.listen={listen}"]), Host(log))


def test_any_free_port_can_be_used_more_than_once(log):
    assert prepare(load(overrides=['frontend.mqtt.listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]']), Host(log))


async def test_lines_to_paste_are_only_there_where_they_can_work(composed, log, autojump_clock):
    config, host = composed({"a": ""})
    said = []

    async def stop():
        await trio.sleep(1)

    await serve(config, host, anonymous=False, log=log, say=said.append, stop=stop)
    assert said[-1] == "ready"
    assert not any(line.startswith("nc ") for line in said)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.CONFIG),
        (ListenError("x"), Exit.PORT_TAKEN),
        (JournalUnwritable("x"), Exit.UNWRITABLE),
        (JournalLocked("x"), Exit.LOCKED),
        (JournalError("x"), Exit.JOURNAL),
        (GatewayError("x"), Exit.FAILED),
    ],
)
def test_errors_of_the_start_have_their_exit_codes(error, code):
    assert exit_code(error) is code


def test_the_exit_codes_are_those_that_scripts_know():
    assert [code.value for code in Exit] == [0, 1, 2, 69, 73, 74, 75]


class Unreadable(MemoryJournal):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def load(self):
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (JournalLocked("process 4711 has it"), Exit.LOCKED, "tidegate: process 4711 has it\n"),
        (KeyError("a defect"), Exit.FAILED, "the broker failed"),
    ],
)
def test_a_failure_has_its_exit_code_and_is_told_on_standard_error(monkeypatch, capsys, error, code, said):
    monkeypatch.setattr("gateway.app.make_journal", lambda *_: Unreadable(error))
    assert (
        run(load(overrides=["frontend.mqtt.enabled=false", "frontend.zeromq.enabled=false", "frontend.amqp.enabled=false"])) is code
    )
    output, errors = capsys.readouterr()
    assert output == ""
    assert said in errors
    assert ("Traceback" in errors) is (code is Exit.FAILED)


def test_lines_are_said_at_once_and_dropped_when_nobody_reads():
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, io.TextIOWrapper(open(writing, "wb"), encoding="ascii") as stream:
        say = say_on(stream)
        say("data directory /tmp/ü")
        assert reader.read(100) == b"data directory /tmp/\\xfc\n"
        reader.close()
        say("ready")
        say("ready")
