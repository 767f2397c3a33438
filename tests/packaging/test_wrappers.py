"""The files of packaging/ name commands, options, versions and dependencies that the package has."""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer.main

from dnagpt_fast.cli.command_line import command_line

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GALAXY = sorted(path for path in (PACKAGING / "galaxy").glob("*.xml") if path.name != "macros.xml")
MODULES = sorted((PACKAGING / "nf-core").rglob("main.nf"))
WRAPPERS = [*GALAXY, *MODULES, PACKAGING / "snakemake/Snakefile", *PACKAGING.rglob("*.Dockerfile")]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@cache
def options_of(command: str) -> dict[str, bool]:
    """Every option of a command, and whether it must be given."""
    group = typer.main.get_command(command_line())
    options = {"--help": False}
    for part in (group, group.commands[command]) if command else (group,):
        options |= {
            name: part.required for part in part.params for name in (*part.opts, *part.secondary_opts)
        }
    return options


def commands_in(text: str) -> list[list[str]]:
    """The words of every call of dnagpt-fast, up to the end of its string, line or continued lines."""
    found = []
    text = re.sub(r"\\+\n", " ", text)
    for call in re.findall(r"dnagpt-fast ((?:[a-z-]).*(?:\n(?:#.*|    .*))*)", text):
        lines = [line for line in call.splitlines() if not line.startswith("#")]
        words = re.split(r"\s+", " ".join(lines).split('"')[0].split("]]>")[0].strip())
        found.append([word for word in words if word])
    return found


def calls() -> list[tuple[str, list[str]]]:
    return [
        (str(path.relative_to(ROOT)), call) for path in WRAPPERS for call in commands_in(path.read_text())
    ]


def test_every_wrapper_calls_the_three_commands():
    for folder in ("galaxy", "nf-core", "snakemake"):
        names = {call[0] for path, call in calls() if f"/{folder}/" in path}
        assert {"embed", "score", "variants"} <= names, folder


@pytest.mark.parametrize(("path", "call"), calls(), ids=lambda part: part if type(part) is str else part[0])
def test_commands_and_options_exist(path, call):
    command = "" if call[0].startswith("-") else call[0]
    options = options_of(command)
    used = {word for word in call if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    assert used <= set(options), f"{path}: dnagpt-fast {command} has no {sorted(used - set(options))}"
    required = {name for name, wanted in options.items() if wanted and name.startswith("--")}
    assert required <= used or not command, f"{path}: dnagpt-fast {command} needs {sorted(required - used)}"


@pytest.mark.parametrize("path", GALAXY, ids=lambda path: path.stem)
def test_galaxy_parameters(path):
    """What a command uses is an input, and what an input says of its option is true."""
    tool, macros = ElementTree.parse(path).getroot(), ElementTree.parse(path.parent / "macros.xml").getroot()
    params = list(tool.iter("param"))
    for expand in tool.iter("expand"):
        (macro,) = (one for one in macros.iter("xml") if one.get("name") == expand.get("macro"))
        params += macro.iter("param")
    tokens = "".join(token.text or "" for token in macros.iter("token"))
    inputs = {
        param.get("name") or param.get("argument", "").lstrip("-").replace("-", "_") for param in params
    }
    command = (tool.findtext("command") or "") + tokens
    used = set(re.findall(r"\$(\w+)", command))
    assert used - {"on_string", "tool"} <= inputs, path
    options = options_of(path.stem)
    said = [param.get("argument") for param in params if param.get("argument")]
    assert set(said) <= set(options)
    for output in tool.iter("data"):
        assert (output.get("from_work_dir") or "").removesuffix(".names") in command
    for param in tool.iter("param"):
        if param.get("value", "").startswith("two."):
            assert (path.parent / "test-data" / param.get("value", "")).is_file()


def test_versions_agree():
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'  version: "{version}"\n' in (PACKAGING / "conda/recipe.yaml").read_text()
    assert f'"@TOOL_VERSION@">{version}<' in (PACKAGING / "galaxy/macros.xml").read_text()
    for module in MODULES:
        assert f'container "dnagpt-fast:{version}"' in module.read_text()
        assert f"dnagpt-fast={version}" in (module.parent / "environment.yml").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)[0] == "Unreleased"
    assert version in changes
    for dockerfile in PACKAGING.rglob("*.Dockerfile"):
        asked = re.findall(r"torch==([\d.]+)", dockerfile.read_text())
        assert asked == re.findall(r"^torch==([\d.]+)", (ROOT / ".ci/constraints.txt").read_text(), re.M)


def test_conda_dependencies():
    recipe = (PACKAGING / "conda/recipe.yaml").read_text()
    run = recipe.split("  run:\n")[1].split("\ntests:")[0]
    listed = set(re.findall(r"(?:- |then: )([a-z-]+ >=[\d.]+)$", run, re.MULTILINE))
    wanted = set()
    for dependency in PROJECT["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", dependency).groups()
        wanted.add(f"{CONDA_NAMES.get(name, name)} >={bound}")
    assert listed == wanted
    for built_with in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
        name, _, bound = built_with.partition(">=")
        assert re.search(rf"- (python-)?{name}{f' >={bound}' * bool(bound)}\n", recipe), built_with
    (script,) = PROJECT["scripts"].items()
    assert f"- {script[0]} = {script[1]}\n" in recipe


def test_nf_core_names():
    for module in MODULES:
        process = re.match(r"process (\w+) \{", module.read_text())
        assert process is not None
        assert process[1] == f"DNAGPTFAST_{module.parent.name.upper()}"
        meta = (module.parent / "meta.yml").read_text()
        assert f'name: "{process[1].lower()}"' in meta
        for channel in re.findall(r"emit: (\w+)", module.read_text()):
            assert f"\n  {channel}:\n" in meta


def test_the_docker_context_has_what_a_build_needs():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in kept:
        assert (ROOT / name).exists(), name
    manifest = (ROOT / "MANIFEST.in").read_text().split("\n", 1)[1]
    assert {word for line in manifest.splitlines() for word in shlex.split(line)[1:] if "*" not in word} - {
        "__pycache__"
    } <= kept
