"""Is a load compiled again when what it is made of has changed?"""

from __future__ import annotations

import os
import subprocess

import pytest

from bench import load

pytestmark = pytest.mark.skipif(load.compiler() is None, reason="no C compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(load.tempfile, "gettempdir", lambda: str(tmp_path))
    for name, text in [
        ("said.h", '#define SAID "one"\n'),
        ("say.c", '#include <stdio.h>\n#include "said.h"\nint main(void) { puts(SAID); }\n'),
    ]:
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1_000, 1_000))
    return tmp_path / "say.c"


def said(source):
    return subprocess.run([load.build(source)], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_a_load_is_compiled_again_when_its_header_is_newer(source):
    assert said(source) == "one\n"
    header = source.with_name("said.h")
    header.write_text('#define SAID "two"\n')
    os.utime(header, (1_001, 1_001))
    assert said(source) == "two\n"


@pytest.mark.slow
def test_a_load_is_compiled_once_while_nothing_changes(source, monkeypatch):
    program = load.build(source)
    monkeypatch.setattr(load, "compiler", lambda: pytest.fail("it was there already"))
    assert load.build(source) == program
