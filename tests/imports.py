"""Who imports whom in the package: the floors of its rooms, its modules and the arrows between them."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
    ("evaluation", "planning", "official", "variants"),
    ("pretrain", "finetune"),
    ("tracks",),
    ("cli",),
)
# What a lower row may not be imported by all the same: training knows no kernel and no genome, the model no genome.
STRANGERS = {("training", "ops"), ("training", "genome"), ("model", "genome"), ("hub", "genome")}
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
