"""Does what is built and installed work without the checkout?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import gateway
from gateway.version import is_compiled
from tests.packaging.building import built_wheel, in_the_checkout, source_copy

ROOT = Path(__file__).parents[2]
CORE_OF_THE_SUITE = ["routing", "engine", "journal", "runtime", "security", "host", "mqtt", "client"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Compiled, if what the tests run on is, but not to be fast: to optimise takes minutes."""
    source = source_copy(tmp_path_factory.mktemp("source"))
    return built_wheel(source, TIDEGATE_COMPILE=str(int(is_compiled())), MYPYC_OPT_LEVEL="0")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A directory outside the checkout with a virtual environment: the wheel, and after it what is installed here."""
    outside = tmp_path_factory.mktemp("outside")
    venv.create(outside / "venv", symlinks=True)
    run(sys.executable, "-m", "pip", "--python", str(outside / "venv"), "install", "--quiet", "--no-deps", str(wheel), cwd=outside)
    (site_packages,) = (outside / "venv").glob("lib/python*/site-packages")
    beside = [path for path in sys.path if Path(path).name == Path(sysconfig.get_path("purelib")).name]
    (site_packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in beside), encoding="utf-8")
    return outside


def python(installed: Path, *arguments: str) -> str:
    return run(str(installed / "venv/bin/python"), *arguments, cwd=installed).stdout


def test_the_wheel_holds_the_packages_and_nothing_that_others_might_have_too(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names if not name.endswith(".so")}
    info = f"tidegate-{gateway.__version__}.dist-info"
    assert top == {"gateway", "gateway_amqp", "gateway_mqtt", "gateway_zeromq", "trio_zmq", info}
    assert f"{info}/licenses/LICENSE" in names
    assert "gateway/journal/schema.sql" in names
    assert {f"{package}/py.typed" for package in top - {info}} <= set(names)


def test_every_module_of_the_checkout_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == in_the_checkout()


def test_the_wheel_says_whether_it_is_compiled(wheel, installed):
    said = python(installed, "-m", "gateway", "--version")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    machine_code = [name for name in names if name.endswith(".so")]
    if is_compiled():
        assert "(compiled; " in said
        assert not wheel.name.endswith("-none-any.whl")
        assert {"gateway/compiled.txt", "gateway/engine/engine.py"} <= set(names)
        assert any(name.startswith("gateway/engine/engine.") for name in machine_code)
    else:
        assert "(pure Python, not compiled; " in said
        assert wheel.name.endswith("-py3-none-any.whl")
        assert machine_code == []


def test_what_runs_is_the_wheel_and_not_the_checkout(installed):
    said = python(installed, "-c", "import gateway, gateway_mqtt; print(gateway.__file__); print(gateway_mqtt.__file__)")
    assert all(line.startswith(str(installed)) for line in said.splitlines())


def test_the_command_says_its_version(installed):
    said = run(str(installed / "venv/bin/tidegate"), "--version", cwd=installed).stdout
    assert said.startswith(f"tidegate {gateway.__version__} (")
    assert said == python(installed, "-m", "gateway", "--version")


def test_the_reference_configuration_is_taken(installed):
    said = run(str(installed / "venv/bin/tidegate"), "check-config", str(ROOT / "conf/tidegate.toml"), cwd=installed).stdout
    assert "frontend.amqp: would listen on tcp://127.0.0.1:5672" in said
    assert "frontend.mqtt: would listen on tcp://127.0.0.1:1883" in said
    assert "frontend.zeromq: would listen on" in said


def test_the_core_of_the_suite_passes_against_the_wheel(installed):
    shutil.copy(ROOT / "pyproject.toml", installed)
    (installed / "tests").mkdir()
    for name in CORE_OF_THE_SUITE:
        shutil.copytree(ROOT / "tests" / name, installed / "tests" / name)
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, installed / "tests")
    said = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in CORE_OF_THE_SUITE))
    assert " passed" in said
