"""Start a part of ours in any interpreter: `python -I boot.py <part> <descriptors> < options`.

The part is `warden` or `forkserver`. Loads this folder and the sandbox's as packages with private
names and hides the broker's own packages from the path: code in a kernel sees its interpreter and
libraries, never ours.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))  # what holds our packages
OURS = ("broker", "kernels")
PACKAGE = "_kernel"
PARTS = ("inside", "sandbox")


class HiddenPackages:
    """Answer for our own package names with what the rest of the path has by that name.

    Needed where the profile's interpreter is the broker's own: `import kernels` must find the
    package of that name from PyPI if it is installed elsewhere on the path, and nothing otherwise.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a top-level module that is named like ours, skipping ours."""
        if path is not None or name not in OURS:
            return None
        elsewhere = [entry for entry in sys.path if os.path.realpath(entry or ".") != ROOT]
        spec = importlib.machinery.PathFinder.find_spec(name, elsewhere, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def hide_own_packages() -> None:
    """Take our files off the path."""
    import sysconfig

    libraries = {os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if ROOT not in libraries:  # a work tree, put on the path by an editable install
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != ROOT]
    sys.meta_path.insert(0, HiddenPackages)


def load() -> None:
    """Load the folders that run here, and nothing beside them, as parts of a private package."""
    package = ModuleType(PACKAGE)
    package.__path__ = []
    sys.modules[PACKAGE] = package
    for part in PARTS:
        name, folder = f"{PACKAGE}.{part}", os.path.join(os.path.dirname(HERE), part)
        spec = importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {folder}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        setattr(package, part, module)


if __name__ == "__main__":
    hide_own_packages()
    load()
    importlib.import_module(f"{PACKAGE}.inside.{sys.argv[1]}").main(sys.argv[2:])
