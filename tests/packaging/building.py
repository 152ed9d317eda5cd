"""How is a wheel built from a copy of the checkout, without the network?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT_FROM = ["gateway", "plugins", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE"]


def source_copy(directory: Path) -> Path:
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("*.so", "compiled.txt", "__pycache__"))
        else:
            shutil.copy(ROOT / name, directory / name)
    return directory


def build(source: Path, version: str = "standard", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the build; ``version`` is hatchling's word for standard or editable."""
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "TIDEGATE_COMPILE", "CC")
    }
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", f"wheel:{version}"],
        cwd=source,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def built_wheel(source: Path, version: str = "standard", **environment: str) -> Path:
    done = build(source, version, **environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (built,) = (source / "dist").glob("*.whl")
    return built


def in_the_checkout() -> set[str]:
    """Every module, by its name in the wheel."""
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gateway").rglob("*.py")}
    return here | {path.relative_to(ROOT / "plugins").as_posix() for path in (ROOT / "plugins").rglob("*.py")}
