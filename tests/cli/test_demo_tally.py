"""Would the demo see a loss?"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.demo.tally import Progress, tally
from gateway.cli.demo.view import PlainView, Rates, sparkline, verdict

NAMES = st.lists(st.sampled_from([f"s{n}" for n in range(12)]), max_size=30)


def test_everything_confirmed_was_delivered():
    result = tally(["a", "b"], {"a": 1, "b": 1})
    assert (result.confirmed, result.delivered, result.lost, result.duplicated) == (2, 2, (), 0)
    assert result.exit_status == 0


def test_one_confirmed_message_missing_is_exit_status_1():
    result = tally(["a", "b", "c"], {"a": 1, "c": 1})
    assert result.lost == ("b",)
    assert result.exit_status == 1
    assert verdict(result) == "1 confirmed messages were LOST, for instance b."


def test_nothing_confirmed_shows_nothing_and_is_exit_status_1():
    assert tally([], {}).exit_status == 1


def test_a_message_worked_on_twice_is_a_duplicate_and_no_loss():
    result = tally(["a", "b"], {"a": 3, "b": 1})
    assert (result.duplicated, result.exit_status) == (1, 0)


def test_what_was_delivered_without_a_confirm_is_no_loss_and_makes_up_for_none():
    result = tally(["a"], {"b": 1})
    assert (result.lost, result.unconfirmed, result.exit_status) == (("a",), 1, 1)


def test_what_waited_when_the_broker_was_killed_can_come_from_the_disk_alone():
    progress = Progress()
    progress.confirm(["a", "b", "c"])
    progress.worked_on(["a", "early"], 0, 0)
    progress.killed()
    progress.confirm(["d"])
    progress.worked_on(["b", "d"], 0, 0)
    result = progress.result()
    assert (result.waiting, result.from_disk, result.lost) == (2, 1, ("c",))
    progress.worked_on(["c"], 0, 0)
    assert (progress.result().waiting, progress.result().from_disk) == (2, 2)
    assert verdict(progress.result()).endswith("2 of them waited in the queue when the broker was killed: all from disk.")


@given(NAMES, NAMES)
def test_lost_is_exactly_what_was_confirmed_and_never_worked_on(confirmed, worked):
    result = tally(confirmed, Counter(worked))
    assert set(result.lost) == {name for name in confirmed if name not in worked}
    assert result.confirmed - len(result.lost) + result.unconfirmed == result.delivered


def test_progress_adds_up_what_the_processes_report(capsys):
    progress = Progress()
    progress.confirm(["a", "b"])
    progress.worked_on(["a"], 0, 1)
    assert progress.missing == 1
    progress.worked_on(["a", "b"], 2, 0)
    assert progress.missing == 0
    assert (progress.redelivered, progress.nacked, progress.result().duplicated) == (2, 1, 1)
    PlainView().conclude(progress, progress.result())
    assert [line.split() for line in capsys.readouterr().out.splitlines()[:7]] == [
        ["confirmed", "2"],
        ["delivered", "2"],
        ["lost", "0"],
        ["duplicated", "1"],
        ["redelivered", "2"],
        ["waiting", "at", "the", "kill", "0"],
        ["from", "disk", "0"],
    ]


def test_rates_are_per_second():
    rates, progress = Rates(), Progress()
    assert rates.sample(progress, 10.0)
    assert not rates.sample(progress, 10.1)
    progress.confirm([str(n) for n in range(50)])
    assert rates.sample(progress, 10.5)
    assert rates.confirmed[-1] == 100.0


def test_a_sparkline_has_a_full_bar_for_the_largest():
    assert sparkline(Rates().depth) == " "
    rates = Rates()
    rates.depth.extend([4.0, 8.0])
    assert sparkline(rates.depth) == " ▄█"
