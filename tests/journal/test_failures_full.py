"""What does a journal, or a whole broker, do on a real file system that is full?"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from gateway.journal.space import Space
from tests.journal import test_crash
from tests.journal.whole_broker import REFUSED, STORED, clients, load, until, with_a_queue

shim = test_crash.shim


def mountable() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    point = tempfile.mkdtemp()
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", point], check=True)
    finally:
        os.rmdir(point)
    return True


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as junk:
        while True:
            try:
                junk.write(bytes(4096))
            except OSError:
                return


@pytest.fixture
def small(tmp_path):
    """Return what makes a small file system."""
    points = []

    def make(mib: int) -> Path:
        point = tmp_path / f"small{len(points)}"
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", point], check=True)
        points.append(point)
        return point

    yield make
    for point in points:
        subprocess.run(["umount", "-l", point], check=True)


if mountable():  # where this user may have one: the same cases are played for everybody, with a disk that only says that it is full

    def test_disk_full_on_a_small_file_system_acks_are_written_and_durable_messages_refused_until_there_is_room(small, new_rig):
        point = small(24)
        rig = new_rig(point, space=Space(point), wal_autocheckpoint=100)
        references = []
        for number in range(100):
            references.append(rig.publish(b"%d " % number * 2000, 1)[0])
            rig.commit()
        assert rig.journal.alarm is None
        fill(point / "junk")
        rig.journal.look()
        assert "journal.min_free_bytes" in rig.journal.alarm
        for reference in references[:60]:
            rig.settle(reference)
            rig.commit()
        assert (point / "journal.ballast").stat().st_size == 0
        assert rig.journal.state == "writable"
        assert rig.journal.alarm is not None
        (point / "junk").unlink()
        rig.journal.look()
        assert rig.journal.alarm is None
        rig.publish(b"again", 1)
        rig.commit()
        assert (point / "journal.ballast").stat().st_size > 0
        rig.restart()
        assert len(rig.bodies(1)) == 41
        rig.journal.close()

    def test_disk_full_under_a_whole_broker_refuses_messages_takes_acknowledgements_and_works_again_with_room(small, new_broker):
        broker = new_broker()
        broker.data = small(32) / "data"
        broker.start()
        with_a_queue(broker)
        with clients(broker, "writer", "reader") as (writer, reader):
            assert [writer.publish(f"{number} " * 2000) for number in range(60)] == [STORED] * 60
            fill(broker.data.parent / "junk")
            outcomes = [writer.publish(f"{number} " * 2000) for number in range(60, 80)]
            until(lambda: writer.publish("late") == REFUSED)
            stored = 60 + outcomes.count(STORED)
            assert set(outcomes) <= {STORED, REFUSED}
            reader.receive(40)
            (broker.data.parent / "junk").unlink()
            until(lambda: writer.publish("again") == STORED)
        broker.restart()
        with clients(broker, "reader") as reader:
            found = reader.receive(1)
            while found[-1] != "again":
                found += reader.receive(1)
        assert found[-1] == "again"
        bodies = [body.split(" ")[0] for body in found if body not in {"late", "again"}]
        assert bodies == [f"{number}" for number in range(stored - len(bodies), stored)]
        assert len(bodies) <= stored - 40 + 5  # the last acknowledgements may not have been written

    def test_power_cut_on_a_full_file_system_loses_nothing_that_was_confirmed(small, shim, tmp_path):
        crash = load("test_crash")
        trace = tmp_path / "trace"
        trace.touch()
        environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db"}
        environment |= {"BALLAST": "1", "ATTEMPTS": "2"}
        point = small(1)
        (point / "junk").write_bytes(bytes(600 * 1024))
        command = [sys.executable, crash.WRITER, point, "FULL", str(crash.SEED), "300", trace]
        run = subprocess.run(command, env=environment, check=False, stderr=subprocess.PIPE, text=True, timeout=100)
        assert "database or disk is full" in run.stderr
        recorded = crash.operations(trace.read_bytes())
        chance = random.Random(7)
        cuts = 30
        moments = Counter(chance.randrange(len(recorded) * 9 // 10, len(recorded)) for _ in range(cuts))
        steps = [int(data) for kind, _, _, data in recorded if kind == b"C"]
        expected = crash.states(steps[-1] + 1)
        disk = crash.Disk()
        for moment, operation in enumerate(recorded):
            disk.do(*operation)
            for _ in range(moments[moment]):
                image = Path(tempfile.mkdtemp(dir=tmp_path))
                disk.cut(chance, image)
                assert crash.verdict(image, disk.confirmed, expected) == "right"
                shutil.rmtree(image)
        assert 10 < steps[-1] < 300
