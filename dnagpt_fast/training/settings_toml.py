"""Settings dataclasses as a TOML file of all defaults, with their docstrings as comments."""

import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

WIDTH = 100
# A line of a docstring that is about settings: their names, two blanks or more, text.
_ABOUT = re.compile(r"(\w+(?:, \w+)*)\s{2,}(\S.*)")


def settings_toml(config: Any) -> str:
    """The file, which `settings_tree` reads back as the same settings.

    config  a dataclass whose fields are sections: dataclasses of plain values, lists, and lists of such dataclasses

    The docstring of a section is its comment, and a line `name  text` in it that of one setting. A list of dataclasses
    is empty by default: it is a comment that shows one of its elements with the defaults.
    """
    return "\n".join(line for field in dataclasses.fields(config) for line in _section(config, field.name))


def _section(config: Any, name: str) -> Iterator[str]:
    section = getattr(config, name)
    head, about = documented(type(section))
    yield from _comment(head)
    yield f"[{name}]"
    yield from _values(section, about, name)
    yield ""


def _values(section: Any, about: dict[str, str], name: str) -> Iterator[str]:
    shown: set[str] = set()
    for field in dataclasses.fields(section):
        text = about.get(field.name, "")
        if _element_of(type(section), field.name) is not None:
            continue
        if text not in shown:
            yield from _comment(text)
            shown.add(text)
        yield f"{field.name} = {_toml(getattr(section, field.name))}"
    for field in dataclasses.fields(section):
        element = _element_of(type(section), field.name)
        if element is not None:
            yield ""
            head, inner = documented(element)
            yield from _comment(
                f"{name}.{field.name}: {about[field.name]}. None, or any number of these. {head}"
            )
            yield f"# [[{name}.{field.name}]]"
            yield from (
                line if line.startswith("#") else f"# {line}".rstrip()
                for line in _values(element(), inner, f"{name}.{field.name}")
            )


def documented(settings: type) -> tuple[str, dict[str, str]]:
    """(text about the settings as a whole, text of each setting that has a line of its own) of a docstring."""
    head: list[str] = []
    base = settings.__mro__[1]
    about = documented(base)[1] if dataclasses.is_dataclass(base) else {}
    names = {field.name for field in dataclasses.fields(settings)}
    current: list[str] = []
    for line in inspect.cleandoc(settings.__doc__ or "").splitlines():
        found = _ABOUT.fullmatch(line)
        if found and set(found[1].split(", ")) <= names:
            current = found[1].split(", ")
            for name in current:
                about[name] = found[2]
        elif current and line.startswith(" "):
            for name in current:
                about[name] += " " + line.strip()
        else:
            current = []
            head.append(line)
    return " ".join(" ".join(head).split()), about


def _element_of(settings: type, name: str) -> type | None:
    """The dataclass that is the element of a list, or None."""
    kind = typing.get_type_hints(settings)[name]
    arguments = typing.get_args(kind)
    element = arguments[0] if arguments else None
    return element if isinstance(element, type) and dataclasses.is_dataclass(element) else None


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
