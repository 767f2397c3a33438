"""The house rules of docs/design.md as tests: imports point downward, files stay small, no catch-all modules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dnagpt_fast"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}
LONGEST_FILE = 500


def floor(module: str) -> int:
    """Floor of a module given as a dotted path below dnagpt_fast, as in docs/design.md."""
    room, _, name = module.rpartition(".")
    if room == "ops":
        low = name in ("dispatch", "native") or name.rpartition("_")[2] in (
            "reference",
            "triton",
            "chunked",
            "tiles",
            "grouped",
        )
        return 1 if low else 2
    if room == "training":
        return 2
    if room == "genome" or name in MODEL_SIDE:
        return 3
    if room == "finetuning" or name in ("official", "official_script", "hub", "hub_tokenizer", "convert"):
        return 4
    if name in TOP:
        return 5
    return 1


MODEL_SIDE = (
    "tokenizer",
    "model",
    "inference",
    "generation",
    "embed",
    "score",
    "marginals",
    "windows",
    "output_files",
)
TOP = ("pretrain", "pretraining_run", "finetune", "validation", "demo", "doctor", "model_commands", "cli")


def imports_of(path: Path) -> set[str]:
    """Dotted paths below dnagpt_fast that the file imports, inside functions too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names = [module] + [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            target = ROOT / Path(*name.split("."))
            if name.startswith("dnagpt_fast.") and target.with_suffix(".py").is_file():
                found.add(name.removeprefix("dnagpt_fast."))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for imported in imports_of(path):
        assert floor(imported) <= floor(module), f"{module} (floor {floor(module)}) imports {imported}"
        if module.startswith("training."):
            assert not imported.startswith(("ops.", "genome.")), (
                f"{module} knows a kernel or a genome: {imported}"
            )
        sides = {module.split(".")[0], imported.split(".")[0]}
        assert not ("genome" in sides and sides & set(MODEL_SIDE)), f"{module} imports {imported}"


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
