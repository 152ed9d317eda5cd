"""What was confirmed survives kill -9."""

from __future__ import annotations

import sys

import pytest

from tests.interop.killing import rounds

LIAR = (sys.executable, "-m", "tests.interop.liar")


def check_order(received: list[str]) -> None:
    """First deliveries of each publisher's rounds come in the order they were published."""
    newest: dict[tuple[str, str], int] = {}
    seen: set[str] = set()
    for text in received:
        name, number, count = text.split()
        if text in seen:
            continue
        seen.add(text)
        assert int(count) > newest.get((name, number), 0), f"{text} came late"
        newest[name, number] = int(count)


@pytest.mark.parametrize(
    "online", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["subscriber away", "subscriber online"]
)
def test_nothing_confirmed_is_lost_by_kill_9(tmp_path, online):
    confirmed, received = rounds(tmp_path / "data", 2, online=online, seed=1)
    assert len(confirmed) > 100
    assert confirmed - set(received) == set()
    check_order(received)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("online", [False, True], ids=["subscriber away", "subscriber online"])
def test_nothing_confirmed_is_lost_by_kill_9_in_many_rounds(tmp_path, online):
    confirmed, received = rounds(tmp_path / "data", 30, online=online, seed=2)
    assert len(confirmed) > 1_000
    assert confirmed - set(received) == set()
    check_order(received)


@pytest.mark.slow
def test_this_test_finds_the_loss_of_a_broker_that_confirms_before_the_commit(tmp_path):
    confirmed, received = rounds(tmp_path / "data", 3, online=False, seed=3, command=LIAR)
    assert confirmed - set(received), "a PUBACK before the commit was not found out"
