"""Does each front-end live and end on its own?"""

from __future__ import annotations

import pytest
import trio

from gateway.api import ConfigError, ListenError
from gateway.config import load
from gateway.host import Host, State

from .conftest import Broker, serve


class Running:
    def __init__(self, host, broker, said):
        self.host = host
        self.broker = broker
        self.said = said

    def state(self, name="toy"):
        return self.host.services[name].state


@pytest.fixture
def started(nursery, log):
    async def _started(points, *overrides):
        host = Host(log)
        host.discover(points)
        host.configure(load(overrides=[f"frontend.{point.name}.enabled=true" for point in points] + list(overrides)))
        broker = Broker()
        said = []
        await host.start(nursery, broker, said.append)
        return Running(host, broker, said)

    return _started


async def test_listeners_are_said_one_per_line(install, started):
    running = await started(install("toy"), 'frontend.toy.listen=["tcp://127.0.0.1:1", "tcp://[::1]:1"]')
    assert running.said == ["listening toy tcp://127.0.0.1:1", "listening toy tcp://[::1]:1"]
    assert running.state() is State.READY
    assert list(running.host.hints()) == ["nc tcp://127.0.0.1:1", "nc tcp://[::1]:1"]


async def test_a_front_end_gets_a_log_that_names_it(install, started, log):
    running = await started(install("toy"))
    running.broker.views["toy"].log.info("hello")
    assert log.lines == [("info", "hello", {"front_end": "toy"})]


async def test_a_front_end_that_fails_after_its_start_is_logged_and_the_others_live(install, started, log, autojump_clock):
    install("bad", "Toy.name = 'bad'\n" + serve("task_status.started()\nawait trio.sleep(5)\nraise OSError('cable')"))
    running = await started(install("good", "Toy.name = 'good'"))
    assert running.state("bad") is State.READY
    await trio.sleep(6)
    assert running.state("bad") is State.FAILED
    assert running.state("good") is State.READY
    (error,) = log.errors()
    assert (error["front_end"], error["distribution"], error["error"]) == ("bad", "dist-bad 1.0", "OSError: cable")


async def test_a_front_end_that_fails_before_it_is_ready_is_logged_and_the_start_goes_on(install, started, log):
    install("bad", "Toy.name = 'bad'\n" + serve("raise KeyError('x')"))
    running = await started(install("good", "Toy.name = 'good'"))
    assert running.state("bad") is State.FAILED
    assert running.state("good") is State.READY
    assert log.errors()[0]["front_end"] == "bad"


@pytest.mark.parametrize("error", [ListenError, ConfigError])
async def test_an_address_that_can_not_be_bound_ends_the_start(install, started, error):
    with pytest.raises(error, match="port 7000"):
        await started(install("toy", serve(f"raise {error.__name__}('port 7000')")))


async def test_it_ends_the_start_also_from_within_a_front_ends_own_nursery(install, started):
    body = "async with trio.open_nursery():\n    raise ListenError('port 7000')"
    with pytest.raises(ListenError, match="port 7000"):
        await started(install("toy", serve(body)))


async def test_the_same_error_after_the_start_ends_that_front_end_only(install, started, log):
    running = await started(install("toy", serve("task_status.started()\nraise ListenError('port 7000')")))
    await trio.testing.wait_all_tasks_blocked()
    assert running.state() is State.FAILED


async def test_a_front_end_that_returns_on_its_own_is_an_error(install, started, log):
    running = await started(install("toy", serve("task_status.started()")))
    await trio.testing.wait_all_tasks_blocked()
    assert running.state() is State.FAILED
    assert log.errors()


async def test_hints_that_fail_are_logged(install, started, log):
    running = await started(install("toy", "def hints(self, listeners): raise KeyError\nToy.hints = hints"))
    assert list(running.host.hints()) == []
    assert log.errors()


async def test_draining_waits_until_the_front_ends_have_returned(install, started, log, autojump_clock):
    body = "task_status.started()\nawait gateway.draining()\nawait trio.sleep(3)"
    running = await started(install("toy", serve(body)))
    running.broker.draining.set()
    begin = trio.current_time()
    await running.host.drain(10)
    assert trio.current_time() - begin == pytest.approx(3)
    assert running.state() is State.CLOSED
    assert log.lines == []


async def test_a_front_end_that_does_not_return_is_cut_off_at_the_deadline(install, started, log, autojump_clock):
    running = await started(install("toy", serve("task_status.started()\nawait trio.sleep_forever()")))
    running.broker.draining.set()
    begin = trio.current_time()
    await running.host.drain(10)
    assert trio.current_time() - begin == pytest.approx(10)
    assert running.state() is State.CLOSED
    assert log.lines[0][0] == "warning"


async def test_a_front_end_that_fails_while_it_drains_is_logged(install, started, log):
    running = await started(install("toy", serve("task_status.started()\nawait gateway.draining()\nraise OSError('cable')")))
    running.broker.draining.set()
    await running.host.drain(10)
    assert running.state() is State.FAILED
    assert log.errors()


async def test_a_start_that_is_cancelled_can_be_drained(install, log, autojump_clock):
    install("a", "Toy.name = 'a'")
    points = install("b", "Toy.name = 'b'\n" + serve("await trio.sleep_forever()"))
    host = Host(log)
    host.discover(points)
    host.configure(load(overrides=["frontend.a={}", "frontend.b={}"]))
    broker = Broker()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await host.start(nursery, broker, [].append)
        broker.draining.set()
        await host.drain(10)
    assert [service.state for service in host.services.values()] == [State.CLOSED, State.CLOSED]
