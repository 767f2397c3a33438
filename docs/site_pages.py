"""Pages of the site that are made from the code: commands, public names, and files of the repository outside docs/."""

import importlib
import inspect
import os
import re
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
# Files outside docs/ that are pages of the site: file -> page, and the heading of the page where the file has none.
MIRRORED = {
    "benchmarks/README.md": "speed",
    "benchmarks/LOG.md": "failed_attempts",
    "recipes/README.md": "recipes",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "packaging/README.md": "packaging",
}
PACKAGES = {
    "dnagpt_fast": "Models, tokenizer, genomes, and what one does with them.",
    "dnagpt_fast.ops": "The kernels, each one function over a plain reference.",
    "dnagpt_fast.hub": "Hugging Face transformers: the Auto classes know DNAGPT after `import dnagpt_fast.hub`.",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def write(page: Path, text: str) -> None:
    """Only if it differs, so that an unchanged page is not built again."""
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


# ---------------------------------------------------------------------------------------------------- commands


def parameters(command: Any) -> list[tuple[inspect.Parameter, Any, Any]]:
    """(parameter, type, typer's Argument or Option) of a command, in the order of the command line."""
    hints = typing.get_type_hints(inspect.unwrap(command), include_extras=True)
    found = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints.get(parameter.name, parameter.annotation)
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        found.append((parameter, kind, extras[0] if extras else parameter.default))
    return found


def type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments if a is not type(None))
    if origin is list:
        return f"{type_name(arguments[0])}, repeatable"
    if origin is tuple:
        return f"{len(arguments)} {type_name(arguments[0])}s"
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if isinstance(kind, type) and issubclass(kind, str) and hasattr(kind, "__members__"):
        return ", ".join(f"`{member.value}`" for member in kind)
    return {"Path": "file", "str": "text", "int": "integer", "float": "number", "bool": "flag"}.get(
        getattr(kind, "__name__", ""), str(kind)
    )


def default_of(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty or value is ...:
        return "required"
    if value is None or value is False or value in ([], ()):
        return ""
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    return f"`{getattr(value, 'value', value)}`"


def option_names(parameter: inspect.Parameter, info: Any) -> str:
    if type(info).__name__ == "ArgumentInfo":
        return getattr(info, "metavar", None) or parameter.name.upper()
    # within Annotated the first name of an option is in the place of its default
    first = getattr(info, "default", None)
    names = [first] if isinstance(first, str) and first.startswith("-") else []
    names += getattr(info, "param_decls", None) or ()
    if not any(name.startswith("--") for name in names):
        names.insert(0, f"--{parameter.name.replace('_', '-')}")
    if parameter.default is True and not any("/" in name for name in names):
        names[0] += f"/--no-{names[0].removeprefix('--')}"
    return ", ".join(names)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def command_page(name: str, function: Any) -> str:
    """From the parsed function of a command: what it does, examples, parameters, and the keys of --json."""
    from dnagpt_fast.cli.command import KEYS, help_and_examples

    command = inspect.unwrap(function)
    text, examples = help_and_examples(command)
    lines = [f"(command-{name})=", f"# {name}", ""]
    lines += [f"{cell(paragraph)}\n" for paragraph in re.split(r"\n\s*\n", text)]
    lines += ["```sh", *examples, "```", ""] if examples else []
    rows: dict[str, list[str]] = {}
    arguments = []
    for parameter, kind, info in parameters(function):
        if getattr(info, "hidden", False):
            continue
        text = cell(getattr(info, "help", "") or "")
        shown, names = type_name(kind), option_names(parameter, info)
        row = f"| `{names}` | {text} | {shown} | {default_of(parameter)} |"
        if type(info).__name__ == "ArgumentInfo":
            arguments.append(row)
        else:
            rows.setdefault(getattr(info, "rich_help_panel", None) or "Options", []).append(row)
    usage = " ".join(
        option_names(parameter, info)
        for parameter, _, info in parameters(function)
        if type(info).__name__ == "ArgumentInfo"
    )
    lines[3:3] = ["```text", f"dnagpt-fast {name} [OPTIONS] {usage}".rstrip(), "```", ""]
    for title, part in ([("Arguments", arguments)] if arguments else []) + list(rows.items()):
        lines += [f"## {title}", "", "| name | meaning | type | default |", "|---|---|---|---|", *part, ""]
    if keys := getattr(command, "keys", ()):
        rows_of_keys = [f"| `{key}` | {cell(KEYS[key])} |" for key in keys]
        lines += ["## Keys of --json", "", "| key | meaning |", "|---|---|", *rows_of_keys, ""]
    return "\n".join(lines)


def write_commands() -> None:
    from dnagpt_fast.cli.command_line import command_line

    groups: dict[str, list[Any]] = {}
    for info in command_line().registered_commands:
        groups.setdefault(info.rich_help_panel or "Commands", []).append(info)
    lines = [
        "# Commands",
        "",
        "Made from the command line itself; `dnagpt-fast COMMAND --help` says the same.",
        "",
    ]
    for title, commands in groups.items():
        lines += [f"## {title}", "", "| command | |", "|---|---|"]
        for info in commands:
            write(GENERATED / "commands" / f"{info.name}.md", command_page(info.name, info.callback))
            first = cell(re.split(r"\n\s*\n", inspect.cleandoc(info.help))[0])
            lines.append(f"| [{info.name}](#command-{info.name}) | {first} |")
        lines += ["", "```{toctree}", ":hidden:", "", *(f"{info.name}" for info in commands), "```", ""]
    write(GENERATED / "commands" / "index.md", "\n".join(lines))


# ----------------------------------------------------------------------------------------------- public names


def rst_of(docstring: list[str]) -> list[str]:
    """The house's plain docstrings as reStructuredText: `code`, tables of arguments, equations, examples."""
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", "\n".join(docstring).strip("\n"))
    lines: list[str] = []
    for paragraph in paragraphs:
        rows = paragraph.splitlines()
        while rows and not rows[0].startswith((" ", ">>>")):
            start = rows.pop(0)
            if re.match(ARGUMENT, start) and lines:
                rows.insert(0, start)
                break
            text = [start]
            while rows and not rows[0].startswith((" ", ">>>")) and not re.match(ARGUMENT, rows[0]):
                text.append(rows.pop(0))
            lines += [prose(" ".join(text)), ""]
        if rows and rows[0].lstrip().startswith(">>>"):
            lines += [*inspect.cleandoc("\n".join(rows)).splitlines(), ""]
        elif rows and re.match(ARGUMENT, rows[0].strip()):
            lines += arguments_of(rows)
        elif rows:
            lines += ["::", "", *(f"    {row}" for row in rows), ""]
    return lines


ARGUMENT = re.compile(r"^([A-Za-z_*][\w*]*(?:, [A-Za-z_*][\w*]*)*)(?:  +)(\S.*)$")


def arguments_of(rows: list[str]) -> list[str]:
    indent = min(len(row) - len(row.lstrip()) for row in rows)
    lines: list[str] = []
    rest: list[str] = []
    for row in rows:
        row = row[indent:]
        if rest or (lines and not row.startswith(" ") and not re.match(ARGUMENT, row)):
            rest.append(row)
        elif found := re.match(ARGUMENT, row):
            lines += [f"**{found[1].replace('*', chr(92) + '*')}**", f"    {prose(found[2])}", ""]
        elif lines:
            lines[-2] += " " + prose(row.strip())
    return [*lines, *(rst_of(rest) if rest else [])]


def prose(text: str) -> str:
    """Literals in single backticks become double ones; everything that would be markup outside of them is escaped."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"``{part[1:-1]}``" if part.startswith("`") and part.endswith("`") and len(part) > 2
        else re.sub(r"([*|\\])|(?<=\w)(_)(?!\w)", lambda found: "\\" + found[0], part)
        for part in parts
    )  # fmt: skip


def plain_docstring(app: "Sphinx", what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = rst_of(lines)


def readable_signature(
    app: "Sphinx", what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A default such as <function ...> cannot be parsed as Python; then Sphinx shows the whole line as it is."""
    return signature and re.sub(r"(?<!['\"])<[^<>]*(?:<[^<>]*>[^<>]*)*>(?!['\"])", "...", signature), returned


def api_page(package: str, name: str, thing: Any) -> str:
    directive = (
        "autoclass" if inspect.isclass(thing) else "automodule" if inspect.ismodule(thing) else "autofunction"
    )
    title = f"{package}.{name}".removeprefix("dnagpt_fast.") if package != "dnagpt_fast" else name
    return "\n".join([f"# {title}", "", "```{eval-rst}", f".. {directive}:: {package}.{name}", "```", ""])


def write_api() -> None:
    lines = ["# Python", "", "Every public name, from its docstring.", ""]
    for package, about in PACKAGES.items():
        module = importlib.import_module(package)
        names = [name for name in module.__all__ if f"{package}.{name}" not in PACKAGES]
        lines += [f"## {package}", "", about, "", "| name | |", "|---|---|"]
        for name in names:
            thing = getattr(module, name)
            page = f"{package}.{name}"
            write(GENERATED / "api" / f"{page}.md", api_page(package, name, thing))
            first = re.split(r"(?<=[.])\s|\n\s*\n", inspect.getdoc(thing) or "")[0]
            lines.append(f"| [`{name}`]({page}.md) | {cell(first)} |")
        lines += ["", "```{toctree}", ":hidden:", "", *(f"{package}.{name}" for name in names), "```", ""]
    write(GENERATED / "api" / "index.md", "\n".join(lines))


# ------------------------------------------------------------------------------- files of the repository, links


def with_links_of_the_site(text: str, page: Path) -> str:
    """Links of a page (a file of the repository) to files that are no pages become the file's name."""

    def replaced(found: re.Match[str]) -> str:
        picture, label, target, anchor = found.groups()
        path = Path(os.path.normpath(page.parent / target))
        if not picture and label.strip("`").split("/")[-1] == path.name and path.suffix == ".md":
            label = ""  # the title of the page
        if picture or path.is_relative_to(DOCS):
            if page.is_relative_to(DOCS):
                return f"{picture}[{label}]({target}{anchor or ''})"
            target = os.path.relpath(path, GENERATED / "repository")
            return f"{picture}[{label}]({target}{anchor or ''})"
        if not path.is_relative_to(ROOT):
            return found[0]
        name = str(path.relative_to(ROOT))
        if name in MIRRORED:
            home = page.parent if page.is_relative_to(DOCS) else GENERATED / "repository"
            target = os.path.relpath(GENERATED / "repository" / f"{MIRRORED[name]}.md", home)
            return f"[{label}]({target}{anchor or ''})"
        return f"`{name}`" if label.strip("`") in ("", name, path.name) else f"{label} (`{name}`)"

    return LINK.sub(replaced, text)


def write_repository_files() -> None:
    for name, page in MIRRORED.items():
        file = ROOT / name
        if file.exists():
            write(GENERATED / "repository" / f"{page}.md", with_links_of_the_site(file.read_text(), file))


def without_missing_pages(text: str, page: Path) -> str:
    """Entries `PAGE, if it exists` of a toctree: other parts of the project may write these pages later."""

    def kept(found: re.Match[str]) -> str:
        found_pages = set(page.parent.glob(f"{found[1]}.md")) - {page}
        return f"{found[1]}\n" if found_pages else ""

    return re.sub(r"^(\S+), if it exists\n", kept, text, flags=re.MULTILINE)


def links(app: "Sphinx", docname: str, source: list[str]) -> None:
    page = DOCS / f"{docname}.md"
    if not docname.startswith("generated/"):
        source[0] = with_links_of_the_site(without_missing_pages(source[0], page), page)


def write_pages(app: "Sphinx") -> None:
    write_commands()
    write_api()
    write_repository_files()


def setup(app: "Sphinx") -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    app.connect("source-read", links)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-process-signature", readable_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
