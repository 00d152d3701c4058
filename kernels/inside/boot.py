"""Start the fork server in a foreign interpreter: `python -I boot.py <listener fd> <options>`.

Loads this folder as a package with a private name and hides the broker's own packages from the
path: code in a kernel sees its interpreter and libraries, never ours.
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
PACKAGE = "_kernel_inside"


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


def load() -> ModuleType:
    """Load this folder as a package."""
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(HERE, "__init__.py"), submodule_search_locations=[HERE]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {HERE}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    return package


if __name__ == "__main__":
    hide_own_packages()
    load()
    importlib.import_module(f"{PACKAGE}.forkserver").main(sys.argv[1:])
