"""The house rules of docs/design.md as tests: imports point downward and never in a circle, files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dnagpt_fast"
# One row a floor, the lowest first. A room imports itself and the rooms of lower rows. Files directly in the package
# are the ground: everybody may import them, they import only each other.
FLOORS = (
    ("ground",),
    ("ops",),
    ("genome", "training"),
    ("model",),
    ("hub",),
    ("weights",),
    ("evaluation", "planning", "official"),
    ("pretrain", "finetune"),
    ("cli",),
)
# What a lower row may not be imported by all the same: training knows no kernel and no genome, the model no genome.
STRANGERS = {("training", "ops"), ("training", "genome"), ("model", "genome"), ("hub", "genome")}
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}
LONGEST_FILE = 500
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# `__main__` files are doors: they may import upward, and nobody imports them.
DOORS = {name for name in MODULES if name.endswith("__main__")}


def room_of(module: str) -> str:
    """The folder of a module; "ground" for a file directly in the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (PACKAGE / parts[-1]).is_dir() else "ground"


def imports_of(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from a.b import c` imports the module a.b.c where there is one, and what a.b defines otherwise.
                longest = f"{node.module}.{alias.name}"
                if longest in MODULES or node.module in MODULES:
                    yield longest if longest in MODULES else node.module


EDGES = {module: set(imports_of(module)) - {module} for module in MODULES if module not in DOORS}


def test_imports_are_absolute():
    for path in MODULES.values():
        relative = [
            node for node in ast.walk(ast.parse(path.read_text())) if getattr(node, "level", 0) and node.level
        ]
        assert not relative, f"{path} imports relatively"


@pytest.mark.parametrize("module", [m for m in EDGES if m != "dnagpt_fast"])
def test_imports_point_downward(module):
    level = {room: i for i, row in enumerate(FLOORS) for room in row}
    mine = room_of(module)
    for imported in EDGES[module] - {"dnagpt_fast"}:
        theirs = room_of(imported)
        assert theirs == mine or level[theirs] < level[mine], (
            f"{module} ({mine}) imports {imported} ({theirs})"
        )
        assert (mine, theirs) not in STRANGERS, f"{module} imports {imported}"


def test_nobody_imports_a_door():
    assert not {(m, d) for m, edges in EDGES.items() for d in edges & DOORS}


def test_no_imports_run_in_a_circle():
    """Packages' `__init__` files count as modules: they hand on names, and nothing that they load may load them."""
    state: dict[str, int] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        if state.get(module) == 2:
            return
        assert state.get(module) != 1, "a circle: " + " -> ".join((*way[way.index(module) :], module))
        state[module] = 1
        for imported in sorted(EDGES.get(module, ())):
            visit(imported, (*way, module))
        state[module] = 2

    for module in EDGES:
        visit(module, ())


def test_the_ground_is_small():
    """Every room has a row; what lies directly in the package is what everybody needs."""
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms - {"data"} == {room for row in FLOORS for room in row} - {"ground"}
    ground = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert ground == {"batch", "extras", "output_files", "packed", "vocab"}


def test_no_module_is_a_catch_all():
    found = [
        path for path in ROOT.rglob("*.py") if path.name in FORBIDDEN_NAMES and ".venv" not in path.parts
    ]
    assert not found


def test_files_stay_under_500_lines():
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "csrc").rglob("*.*"), *(ROOT / "tests").rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): n
        for path in sources
        if (n := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long
