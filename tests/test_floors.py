"""The house rules of docs/design.md as tests: imports point downward and never in a circle, files stay small."""

import ast

import pytest

from tests import rooms
from tests.imports import DOORS, EDGES, FLOORS, MODULES, PACKAGE, ROOT, STRANGERS, room_of

FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}
LONGEST_FILE = 500


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


def test_nothing_imports_a_door():
    assert not {(m, d) for m, edges in EDGES.items() for d in edges & DOORS}


def test_no_imports_run_in_a_circle():
    """`__init__` files count as modules: they export names, and the modules that they load must not load
    them."""
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
    """Every room has a row; the files directly in the package are those that many rooms need."""
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms - {"data"} == {room for row in FLOORS for room in row} - {"ground"}
    ground = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert ground == {
        "batch",
        "cuda_graph",
        "extras",
        "input_files",
        "json_files",
        "lazy_names",
        "output_files",
        "packed",
        "plot_style",
        "progress",
        "vocab",
    }


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


def test_the_pictures_of_the_design_page_are_those_of_the_imports():
    for path, drawn in rooms.PICTURES.items():
        assert path.read_text() == drawn(), f"remake {path.name} with `python -m tests.rooms`"
