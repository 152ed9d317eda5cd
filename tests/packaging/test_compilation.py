"""Does a build compile when it is asked to, and only then, and work without a C compiler?"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from gateway.version import LIST, build_of, is_compiled, version_line
from tests.packaging.building import ROOT, build, built_wheel, source_copy

NO_COMPILER = "/bin/false"
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"][
    "custom"
]


@pytest.fixture
def source(tmp_path) -> Path:
    return source_copy(tmp_path)


def machine_code(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith((".so", "compiled.txt"))]


def test_without_a_c_compiler_the_wheel_is_pure_and_works(source):
    wheel = built_wheel(source, CC=NO_COMPILER)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert machine_code(wheel) == []
    beside = [path for path in sys.path if not Path(path, "gateway").exists()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(wheel), *beside])}
    command = [sys.executable, "-S", "-m", "gateway", "--version"]
    (source / "elsewhere").mkdir()
    said = subprocess.run(command, cwd=source / "elsewhere", env=environment, capture_output=True, text=True, check=True).stdout
    assert "(pure Python, not compiled; " in said


def test_who_demands_machine_code_and_has_no_compiler_gets_no_wheel(source):
    done = build(source, TIDEGATE_COMPILE="1", CC=NO_COMPILER)
    assert done.returncode != 0
    assert "TIDEGATE_COMPILE=1, but it can't be compiled: no C compiler works" in done.stdout + done.stderr
    assert not list((source / "dist").glob("*.whl"))


@pytest.mark.parametrize("switch", ["", "1"])
def test_what_can_not_be_compiled_leaves_nothing_behind(source, switch):
    (source / "temporary").mkdir()
    build(source, TIDEGATE_COMPILE=switch, CC=NO_COMPILER, TMPDIR=str(source / "temporary"))
    assert list((source / "temporary").iterdir()) == []


def test_who_forbids_it_gets_a_pure_wheel(source):
    wheel = built_wheel(source, TIDEGATE_COMPILE="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert machine_code(wheel) == []


def test_another_value_of_the_switch_is_refused(source):
    done = build(source, TIDEGATE_COMPILE="yes")
    assert done.returncode != 0
    assert "TIDEGATE_COMPILE is 1 (compile, or fail), 0 (don't) or unset; not 'yes'" in done.stdout + done.stderr


@pytest.mark.parametrize("switch", [{}, {"TIDEGATE_COMPILE": "0"}])
def test_an_editable_installation_is_not_compiled_unasked_and_forgets_what_was(source, switch):
    stale = [source / "gateway/engine/engine.abi3.so", source / "plugins/gateway_mqtt/link.so", source / "0__mypyc.so"]
    stale.append(source / "gateway/compiled.txt")
    for file in stale:
        file.touch()
    built_wheel(source, "editable", **switch)
    assert not any(file.exists() for file in stale)


def test_an_editable_installation_that_can_not_be_compiled_as_demanded_fails(source):
    assert build(source, "editable", TIDEGATE_COMPILE="1", CC=NO_COMPILER).returncode != 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_module_that_can_not_be_compiled_makes_the_wheel_pure_and_fails_who_demands_more(source):
    with (source / "gateway/model/names.py").open("a", encoding="utf-8") as file:
        file.write("\n\nWRONG: int = 'text'\n")
    assert machine_code(built_wheel(source)) == []
    done = build(source, TIDEGATE_COMPILE="1")
    assert done.returncode != 0
    assert 'Incompatible types in assignment (expression has type "str", variable has type "int")' in done.stdout + done.stderr


def test_what_needs_mypyc_is_asked_for_only_where_it_is_used(monkeypatch):
    asked = "import hatchling.build as b; print(b.get_requires_for_build_wheel())"

    def requirements(**environment: str) -> str:
        given = {key: value for key, value in os.environ.items() if key not in ("TIDEGATE_COMPILE", "CC")} | environment
        return subprocess.run([sys.executable, "-c", asked], cwd=ROOT, env=given, capture_output=True, text=True, check=True).stdout

    assert "mypy[mypyc]" in requirements(TIDEGATE_COMPILE="1")
    assert requirements(TIDEGATE_COMPILE="0") == "[]\n"
    assert requirements(CC=NO_COMPILER) == "[]\n"


def test_what_is_compiled_is_there():
    for pattern in HOOK["modules"] + HOOK["but"]:
        assert [*ROOT.glob(pattern), *ROOT.glob(f"plugins/{pattern}")], pattern


def compiled_classes() -> dict[str, list[ast.ClassDef]]:
    """Return the classes in what is compiled, by their names."""
    classes: dict[str, list[ast.ClassDef]] = {}
    for pattern in HOOK["modules"]:
        for file in [*ROOT.glob(pattern), *ROOT.glob(f"plugins/{pattern}")]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    classes.setdefault(node.name, []).append(node)
    return classes


def own_attributes(node: ast.ClassDef, *, typed: bool) -> set[str]:
    """Return what a class sets of itself; ``typed``: only what it declares with a type."""
    found = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)}
    for each in ast.walk(node):
        targets = (
            [each.target] if isinstance(each, ast.AnnAssign) else [] if typed or not isinstance(each, ast.Assign) else each.targets
        )
        found |= {target.attr for target in targets if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"}
    return found


def ancestors(node: ast.ClassDef, classes: dict[str, list[ast.ClassDef]]) -> list[ast.ClassDef]:
    parents = [parent for base in node.bases for parent in classes.get(ast.unparse(base).rpartition(".")[2], [])]
    return parents + [elder for parent in parents for elder in ancestors(parent, classes)]


def test_no_class_declares_anew_what_its_ancestors_have():
    # mypyc gives such an attribute one place and shows it to the collector twice: a ring of objects with one of these is kept
    # for ever, and what somebody else still holds of it may be emptied.
    classes = compiled_classes()
    for node in (one for namesakes in classes.values() for one in namesakes):
        for elder in ancestors(node, classes):
            again = own_attributes(node, typed=True) & own_attributes(elder, typed=False)
            assert not again, f"{node.name} declares {sorted(again)} as {elder.name} does: set them without a type there"


def test_it_says_compiled_only_if_everything_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "house/room").mkdir(parents=True)
    for name in ("house/__init__.py", "house/room/__init__.py", "house/room/slow.py", "house/room/fast.py"):
        (tmp_path / name).touch()
    (tmp_path / f"house/room/fast{EXTENSION_SUFFIXES[0]}").touch()
    assert build_of([]) == "pure Python, not compiled"
    assert build_of(["house.room.slow"]) == "pure Python, not compiled"
    assert build_of(["house.room.fast", "house.room.slow", "house.gone"]) == "compiled in part: 1 of 3 modules"
    assert build_of(["house.room.fast", "gone.away"]) == "compiled in part: 1 of 2 modules"
    assert build_of(["house.room.fast"]) == "compiled"
    assert "house" not in sys.modules


def test_the_line_says_which_build_runs():
    said = "compiled; " if is_compiled() else "pure Python, not compiled; "
    assert f"({said}" in version_line()
    assert LIST.exists() is is_compiled()
