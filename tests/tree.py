"""The tree of docs/tree.md: every source file with its role, which is the first sentence of the file.

`python -m tests.tree` writes the page again; tests/test_readme.py compares it with the files.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tree.md"
FOLDERS = ("csrc", "dnagpt_fast", "benchmarks", "packaging", "recipes")
PYTHON = {".py"}
NATIVE = {".cpp", ".h", ".cu", ".cuh"}
INTRODUCTION = """\
# Every file

Every source file and its role, which is its own first sentence. Written by `python -m tests.tree`, checked by a test.
The tests are in `tests/`, in the same tree.
"""


def sources() -> list[Path]:
    """Source files of the repository, relative to its root, including files not yet added to git."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {Path(line) for line in listed if (ROOT / line).is_file()}
    return sorted(p for p in found if p.suffix in PYTHON | NATIVE and p.name != "__init__.py")


def role(path: Path) -> str:
    """First sentence of a Python docstring, or of the first comment of a C++ file; empty if there is none."""
    text = (ROOT / path).read_text()
    if path.suffix in PYTHON:
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"((?://[^\n]*\n)+)", text)
        said = re.sub(r"^// ?", "", comment.group(1), flags=re.MULTILINE) if comment else ""
    paragraph = " ".join(said.split("\n\n")[0].split())
    return re.split(r"(?<=[^A-Z\d.][.])\s", paragraph)[0].rstrip(".")


def page() -> str:
    lines = [INTRODUCTION]
    folder = None
    for path in sorted(sources(), key=lambda p: (str(p.parent), p.name)):
        if path.parent != folder:
            folder = path.parent
            lines.append(f"\n## {folder}/\n")
        lines.append(f"- `{path.name}`: {role(path)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
