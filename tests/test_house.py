"""The house rules that a machine can check: who may import whom, and how long a module may be."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "picker"
MAY_IMPORT = {
    "exchange": {"proto"},
    "wire": set(),
    "requests": set(),
    "pool": set(),
    "engines": {"pool", "requests"},
    "learning": {"engines", "requests"},
    "policies": {"engines", "requests", "learning", "stages"},
    "shared": {"pool", "engines", "requests"},
    "stages": set(),
    "handoff": {"stages"},
    "routing": {"pool", "engines", "policies", "requests"},
    "telemetry": {"routing", "engines", "learning", "requests", "pool"},
    "simulator": {"requests", "pool", "engines", "learning", "stages", "policies", "routing"},
    "conformance": {"exchange", "proto"},
    "proto": set(),
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_pb2" not in path.name)


def rooms_imported(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("picker."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("picker."))
    return names


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_the_design_lets_it(room: str) -> None:
    for module in (PACKAGE / room).rglob("*.py"):
        assert rooms_imported(module) <= MAY_IMPORT[room] | {room}, module.relative_to(PACKAGE)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT) | {"server"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_can_be_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400
