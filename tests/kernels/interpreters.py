"""Make interpreters that have our libraries, and packages of a test's own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


def make(home: Path, packages: Mapping[str, str]) -> str:
    """Make a virtual environment with packages of one file each; return its interpreter."""
    base = Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"
    command = [str(base), "-m", "venv", "--without-pip", "--symlinks", str(home)]
    subprocess.run(command, check=True)
    (libraries,) = home.glob("lib/python3*/site-packages")
    (libraries / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, text in packages.items():
        (libraries / name).mkdir()
        (libraries / name / "__init__.py").write_text(text)
    return str(home / "bin" / "python")
