"""The imports of the package: the floors of its rooms, its modules and the imports between them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dnagpt_fast"
# One row per floor, the lowest first. A room imports itself and the rooms of lower rows. Files directly in
# the package are the ground: all rooms may import them, they import only each other.
FLOORS = (
    ("ground",),
    ("ops",),
    ("genome", "training"),
    ("model",),
    ("hub",),
    ("weights",),
    ("evaluation", "planning", "official", "variants"),
    ("pretrain", "finetune"),
    ("tracks", "suites"),
    ("cli",),
)
# Imports from a higher to a lower row that are forbidden too: training must not know kernels or genomes, the
# model no genomes.
STRANGERS = {("training", "ops"), ("training", "genome"), ("model", "genome"), ("hub", "genome")}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# `__main__` files are doors: they may import upward, and nothing imports them.
DOORS = {name for name in MODULES if name.endswith("__main__")}


def room_of(module: str) -> str:
    """The folder of a module; "ground" for a file directly in the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (PACKAGE / parts[-1]).is_dir() else "ground"


def imports_of(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from a.b import c` imports the module a.b.c if it exists, otherwise a name that a.b
                # defines.
                longest = f"{node.module}.{alias.name}"
                if longest in MODULES or node.module in MODULES:
                    yield longest if longest in MODULES else node.module


EDGES = {module: set(imports_of(module)) - {module} for module in MODULES if module not in DOORS}
