"""Does bench/zeromq.py measure what it says, and judge by it?"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bench import brokers, zeromq_report, zeromq_settings
from bench.load import zeromq as load
from bench.zeromq_deaths import SORTS, Crew, losses, summary
from bench.zeromq_report import ASYNCIO, LOOP, LOSSES, PIPE, PROXY, ROUTER, TICKER, Report

SCRIPT = Path(__file__).parents[2] / "bench" / "zeromq.py"
BODY_1 = f"{PIPE}: body, 1 peer"
TINY = {"seconds": 0.2, "warm": 0.1}


def report(**rows):
    return Report({name.replace("_", " "): by for name, by in rows.items()}, ["tidegate"], 1, in_c=True)


def speed(rate, cpu_us):
    return {"rate": rate, "cpu_us": cpu_us, "busy": 0.5}


@pytest.mark.parametrize(("rate", "met"), [(349.0, "**no**"), (350.0, "yes")])
def test_a_goal_of_rate_is_met_from_its_part_of_the_proxy_s_on(rate, met):
    (goal,) = report(**{BODY_1: {"tidegate, handover": speed(rate, 6.0), PROXY: speed(1_000.0, 2.0)}}).goals()
    assert goal.endswith(f"wanted at least 0.35: {met}.")


@pytest.mark.parametrize(("cpu_us", "met"), [(4.0, "yes"), (4.1, "**no**")])
def test_a_goal_of_cpu_is_met_up_to_so_many_times_the_proxy_s(cpu_us, met):
    goals = report(**{BODY_1: {"tidegate, pong": speed(900.0, cpu_us), PROXY: speed(1_000.0, 2.0)}}).goals()
    assert [goal.endswith(f"wanted at most 2: {met}.") for goal in goals] == [False, True]


def test_losses_and_delays_are_judged_and_what_is_not_promised_is_not():
    lost = {"messages": 10.0, "kills": 1.0, "lost": 3.0, "twice": 0.0}
    told = report(
        **{
            f"{LOSSES}: bad": {"tidegate": {**lost, "allowed": 2.0}},
            f"{LOSSES}: good": {"tidegate": {**lost, "allowed": 3.0}},
            f"{LOSSES}: unpromised": {"tidegate": {**lost, "allowed": -1.0}},
            f"{TICKER}: slow": {"tidegate": {"idle_p99_ms": 1.0, "p50_ms": 1.0, "p99_ms": 5.0, "worst_ms": 9.0}},
        }
    )
    assert [goal.rpartition(": ")[2] for goal in told.goals()] == ["**no**.", "**no**.", "yes."]
    assert "| unpromised | tidegate | 10 | 1 | 3 | 0 | - |" in told.text()


def test_ratios_are_to_the_gateway_in_c_and_a_load_that_is_the_bottleneck_is_marked():
    row = {"tidegate": speed(100.0, 9.0), ASYNCIO: speed(10.0, 90.0), LOOP: {**speed(1_000.0, 1.0), "busy": 0.95}}
    text = report(**{f"{ROUTER}: publish, deliver": row}).text()
    assert "| publish, deliver | 9.00 (100; 0.10) | 90.00 (10; 0.01) | 1.00 (1,000) * |" in text


def test_it_is_said_when_the_load_is_not_in_c():
    whole = report(**{BODY_1: {"tidegate, handover": speed(1.0, 1.0)}})
    assert "in **Python**" in dataclasses.replace(whole, in_c=False).text()
    assert "Python**" not in whole.text()


def test_a_report_replaces_what_is_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{zeromq_report.BEGIN}\nold\n{zeromq_report.END}\nafter\n")
    zeromq_report.write(page, "new")
    assert page.read_text() == f"before\n{zeromq_report.BEGIN}\n\nnew\n\n{zeromq_report.END}\nafter\n"


def test_the_pages_have_the_marks():
    for name in ("performance.md", "zeromq-pong.md"):
        text = (SCRIPT.parents[1] / "docs" / name).read_text()
        assert text.index(zeromq_report.BEGIN) < text.index(zeromq_report.END)


def test_summary_of_delays():
    assert summary([3.0, 1.0, 2.0]) == {"times": 3, "p50_ms": 2.0, "worst_ms": 3.0}


# -- with processes


@pytest.fixture(params=["C", "Python"])
def language(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(load, "program", lambda: None)
    elif load.program() is None:
        pytest.skip("no compiler, or no header of libzmq")
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"flood": True}, {}, {"each": True}])
def test_the_gateway_with_asyncio_does_what_the_load_asks(language, options):
    into = zeromq_settings.address()
    with zeromq_settings.other(zeromq_settings.with_asyncio("router", into), into, None) as broker:
        told = load.flood(broker, "tgp", {"into": into, **TINY, **options})
    assert told["count"] > 0
    assert told["load"] == language


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"flood": True}, {"persistent": True}, {"batch": 100}])
def test_tidegate_does_what_the_load_asks(language, options):
    into = zeromq_settings.address()
    with brokers.tidegate(None, *zeromq_settings.router(into)) as broker:
        told = load.flood(broker, "tgp", {"into": into, **TINY, **options})
    assert told["count"] > 0
    assert told["cpu_us"] > 0


@pytest.mark.slow
def test_plain_messages_go_through_the_proxy_and_are_counted(language):
    into, out = zeromq_settings.address(), zeromq_settings.address()
    with zeromq_settings.other(zeromq_settings.zmq_proxy(into, out), out, None) as broker:
        told = load.flood(broker, "pipe", {"into": into, "out": out, "peers": 3, "frames": 2, **TINY})
    assert told["count"] > 0


@pytest.mark.slow
def test_a_gateway_that_loses_everything_is_not_measured(language):
    into = zeromq_settings.address()
    command = load.command("loop", {"into": into}) if language == "C" else _deaf(into)
    with zeromq_settings.other(command, into, None) as broker, pytest.raises(RuntimeError, match=r".+"):
        load.flood(broker, "tgp", {"into": into, **TINY})


def _deaf(into):
    code = "import sys, time, zmq; s = zmq.Context().socket(zmq.ROUTER); s.bind(sys.argv[1]); time.sleep(60)"
    return [sys.executable, "-c", code, into]


@pytest.mark.slow
def test_what_a_stalled_worker_takes_along_is_counted_as_lost():
    handover = dataclasses.replace(next(sort for sort in SORTS if sort.allowed is None), count=3_000)
    told = losses(handover, brokers.tidegate, None)
    assert told["kills"] == 1
    assert told["lost"] > 0


@pytest.mark.slow
def test_a_worker_that_is_killed_has_said_what_it_did():
    with closing(Crew("pull", zeromq_settings.address())) as crew:
        crew.start()
        crew.wait_for(lambda: crew.ready == 1)
        crew.kill()
        assert not crew.done


@pytest.mark.slow
def test_the_script_measures_a_row_in_turn_and_says_which_goal_is_met():
    command = [sys.executable, str(SCRIPT), "--rounds", "1", "--seconds", "0.2", "--only", "body, 50 peers"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    row = next(line for line in done.stdout.splitlines() if line.startswith("| body, 50 peers |"))
    assert row.count("(") == 4
    assert "wanted at least 0.2: " in done.stdout
    assert "failed" not in done.stdout
