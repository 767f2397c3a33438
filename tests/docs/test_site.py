"""The site's generated pages: every option of every command, every public name, docstrings as they are meant, links."""

import importlib
import importlib.util
import re

import pytest

from dnagpt_fast.cli.command_line import command_line
from tests.docs.blocks import ROOT

spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
site_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_pages)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@pytest.fixture
def generated(tmp_path, monkeypatch):
    monkeypatch.setattr(site_pages, "GENERATED", tmp_path)
    return tmp_path


def test_a_command_page_has_the_options_of_its_help(generated, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    site_pages.write_commands()
    index = (generated / "commands" / "index.md").read_text()
    app = command_line()
    for info in app.registered_commands:
        with pytest.raises(SystemExit):
            app([info.name, "--help"])
        page = (generated / "commands" / f"{info.name}.md").read_text()
        rows = re.findall(r"^\| `(-[^`]*)`", page, re.MULTILINE)
        helped = [found for found in re.findall(r"^│[ *]*(--[^ ]+)", capsys.readouterr().out, re.MULTILINE)]
        assert {OPTION.findall(row)[0] for row in rows} == {OPTION.findall(h)[0] for h in helped} - {
            "--help"
        }, info.name
        assert f"(#command-{info.name})" in index


def test_every_public_name_has_a_page(generated):
    pytest.importorskip("transformers", reason="needs the extra [hf]")
    site_pages.write_api()
    for package in site_pages.PACKAGES:
        for name in importlib.import_module(package).__all__:
            page = generated / "api" / f"{package}.{name}.md"
            assert page.exists() or f"{package}.{name}" in site_pages.PACKAGES, page.name


def test_a_docstring_becomes_text_arguments_and_examples():
    lines = """The ids of `texts`, * and num_heads_ too.

    texts   one
            or more
    layer, head  which
    Raises ValueError for `x|y`.

    >>> 1 + 1
    2""".splitlines()
    text = "\n".join(site_pages.rst_of([line.removeprefix("    ") for line in lines]))
    assert "The ids of ``texts``, \\* and num_heads\\_ too." in text
    assert "**texts**\n    one or more\n" in text
    assert "**layer, head**\n    which\n" in text
    assert "\nRaises ValueError for ``x|y``.\n" in text
    assert ">>> 1 + 1\n2" in text


def test_links_to_files_that_are_no_pages_become_their_names():
    page = ROOT / "docs" / "howto" / "x.md"
    text = "[a](../../setup.py), [speed](../../benchmarks/README.md#cpu), [t](../training.md), ![p](../rooms.svg)"
    assert site_pages.with_links_of_the_site(text, page) == (
        "a (`setup.py`), [speed](../generated/repository/speed.md#cpu), [t](../training.md), ![p](../rooms.svg)"
    )
    mirrored = site_pages.with_links_of_the_site(
        "[d](../docs/design.md#x)", ROOT / "benchmarks" / "README.md"
    )
    assert mirrored == "[d](../../design.md#x)"


def test_an_entry_of_a_toctree_waits_for_its_page(tmp_path):
    page = tmp_path / "index.md"
    (tmp_path / "one.md").touch()
    assert (
        site_pages.without_missing_pages("one, if it exists\ntwo, if it exists\nthree\n", page)
        == "one\nthree\n"
    )
