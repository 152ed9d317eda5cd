"""How does the hot path become machine code, where there is a C compiler?"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "TIDEGATE_COMPILE"
LIST = "gateway/compiled.txt"  # of modules, by which `gateway.version` knows what is to be machine code
MYPYC = ["-m", "mypyc", "--config-file=", "--ignore-missing-imports", "--hide-error-context", "--no-color-output"]


class Compilation(BuildHookInterface):
    """Compiles by mypyc what pyproject.toml lists.

    ``TIDEGATE_COMPILE=1``: it must work. ``0``: everything stays Python. Unset: a wheel is compiled if that works; an editable
    installation is not, as machine code would hide every later edit.
    """

    def dependencies(self) -> list[str]:
        """Return what compiling needs. Hatchling asks for wheels and editable installations alike."""
        return self.config["compiler"] if wish() == "1" or (wish() == "" and can_compile_c()) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put machine code into the wheel, or beside the sources of an editable installation."""
        root = Path(self.root)
        places = {Path(package).name: root / package for package in self.build_config.packages}
        in_place = version == "editable"
        if in_place:
            remove_compiled([root, *places.values()])
        if wish() == "0" or (in_place and wish() == ""):
            return
        self._copy = Path(tempfile.mkdtemp(prefix="tidegate-build-"))
        try:
            compiled = self._compile(places, self._copy)
        except OSError as error:
            shutil.rmtree(self._copy)
            if wish() == "1":
                raise SystemExit(f"{SWITCH}=1, but it can't be compiled: {error}") from error
            self.app.display_warning(f"not compiled, all of it runs as Python: {error}")
            return
        if in_place:
            for name, file in compiled.items():
                package, _, within = name.partition("/")
                shutil.copy(file, places[package] / within if within else root / name)
        else:
            build_data.update(pure_python=False, infer_tag=True)
            build_data["force_include"].update({str(file): name for name, file in compiled.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear up."""
        shutil.rmtree(getattr(self, "_copy", ""), ignore_errors=True)

    def _compile(self, places: dict[str, Path], copy: Path) -> dict[str, Path]:
        """Return what a compiled wheel has besides: names in it, and the files. In the copy packages stand as in a wheel."""
        if not can_compile_c():
            raise FileNotFoundError("no C compiler works, or Python's headers are not installed")
        for name, place in places.items():
            shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        listed, left_out = ({file for pattern in self.config[key] for file in copy.glob(pattern)} for key in ("modules", "but"))
        names = sorted(file.relative_to(copy).as_posix() for file in listed - left_out)
        environment = {"MYPYC_OPT_LEVEL": "3", "MYPYC_DEBUG_LEVEL": "0"} | os.environ
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run([sys.executable, *MYPYC, *names], cwd=copy, env=environment, check=False, **output)  # noqa: S603
        if done.returncode:
            raise OSError(f"mypyc failed\n{done.stdout}")
        shutil.rmtree(copy / "build")
        (copy / LIST).write_text("".join(f"{name.removesuffix('.py').replace('/', '.')}\n" for name in names), encoding="utf-8")
        return {file.relative_to(copy).as_posix(): file for file in (*copy.rglob("*.so"), copy / LIST)}


def remove_compiled(places: list[Path]) -> None:
    """Remove what an earlier editable installation has compiled."""
    root, *packages = places
    for file in (*root.glob("*.so"), *(file for package in packages for file in package.rglob("*.so"))):
        file.unlink()
    (root / LIST).unlink(missing_ok=True)


def wish() -> str:
    """Return what the builder asks for: ``"1"``, ``"0"``, or nothing."""
    said = os.environ.get(SWITCH, "")
    if said not in ("", "0", "1"):
        raise SystemExit(f"{SWITCH} is 1 (compile, or fail), 0 (don't) or unset; not {said!r}")
    return said


def can_compile_c() -> bool:
    """Say whether there is a C compiler that finds Python's headers. Else nobody need fetch mypyc."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    given = ["-I" + sysconfig.get_path("include"), "-fsyntax-only", "-xc", "-"]
    try:
        subprocess.run([*command, *given], input=b"#include <Python.h>\n", check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False
    return True
