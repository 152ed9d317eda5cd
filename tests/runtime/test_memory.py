"""What the process may take is what its groups and the machine allow."""

from __future__ import annotations

import os
import sys

import pytest

from gateway.runtime.memory import allowed_bytes, give_back, resident_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def said(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_groups_it_is_the_memory_of_the_machine(tmp_path):
    assert allowed_bytes(tmp_path / "missing", tmp_path) == MACHINE


def test_the_least_limit_of_a_group_and_those_around_it_holds(tmp_path):
    said(tmp_path / "cgroup", "0::/system.slice/tidegate.service\n")
    said(tmp_path / "fs" / "memory.max", "max\n")
    said(tmp_path / "fs" / "system.slice" / "memory.max", "2000000\n")
    said(tmp_path / "fs" / "system.slice" / "tidegate.service" / "memory.max", "3000000\n")
    assert allowed_bytes(tmp_path / "cgroup", tmp_path / "fs") == 2_000_000


def test_a_container_sees_its_own_limit_though_its_path_is_another_s(tmp_path):
    said(tmp_path / "cgroup", "0::/docker/0123\n")
    said(tmp_path / "fs" / "memory.max", "4000000\n")
    assert allowed_bytes(tmp_path / "cgroup", tmp_path / "fs") == 4_000_000


def test_groups_of_version_1_are_looked_at_too(tmp_path):
    said(tmp_path / "cgroup", "3:cpu:/x\n2:memory,hugetlb:/x\n")
    said(tmp_path / "fs" / "memory" / "x" / "memory.limit_in_bytes", "5000000\n")
    said(tmp_path / "fs" / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    assert allowed_bytes(tmp_path / "cgroup", tmp_path / "fs") == 5_000_000


def test_files_that_say_nothing_sensible_are_no_limit(tmp_path):
    said(tmp_path / "cgroup", "nonsense\n0::/x\n")
    said(tmp_path / "fs" / "x" / "memory.max", "much\n")
    assert allowed_bytes(tmp_path / "cgroup", tmp_path / "fs") == MACHINE


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_that_is_taken_shows():
    before = resident_bytes()
    block = bytearray(64 * 1024 * 1024)
    assert resident_bytes() - before > 48 * 1024 * 1024
    del block
    give_back()
    assert resident_bytes() - before < 48 * 1024 * 1024
