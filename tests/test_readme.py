"""README.md and docs/tree.md fit the files."""

import re
from pathlib import Path

from tests import tree

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if not {"generated", "_build"} & set(page.parts)),
]


def test_the_tree_is_that_of_the_files():
    assert tree.PAGE.read_text() == tree.page(), "remake it with `python -m tests.tree`"


def test_every_file_states_its_role_and_all_roles_differ():
    roles = {path: tree.role(path) for path in tree.sources()}
    assert not [str(path) for path, role in roles.items() if not role]
    assert len(set(roles.values())) == len(roles)


def test_every_folder_of_sources_is_in_the_readme():
    for folder in {path.parent for path in tree.sources()}:
        assert f"`{folder}/`" in README, f"README.md does not say what is in {folder}/"


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_has_a_place_in_the_site():
    """A page that no toctree names would be built, but nobody would find it."""
    named = set()
    for page in PAGES[1:]:
        for tree_ in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL):
            entries = [
                re.sub(r"^.* <(.*)>$", r"\1", line.removesuffix(", if it exists"))
                for line in tree_.splitlines()
                if line[:1] not in ("", ":")
            ]
            named |= {found.resolve() for entry in entries for found in page.parent.glob(f"{entry}.md")}
    assert {page for page in PAGES[1:] if page not in named} == {ROOT / "docs" / "index.md"}


def test_there_are_two_commands_to_set_up_and_run():
    commands = [block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "venv " in block]
    assert len(commands) == 2
    assert "pretrain --demo" in commands[0]
    assert commands[1].rstrip().endswith("pytest")
