"""The names and texts of all options of all commands: one meaning has one name and one text."""

from collections import defaultdict
from typing import Any

import pytest
import typer

from dnagpt_fast.cli.command_line import command_line
from dnagpt_fast.cli.options import MEANINGS

COMMANDS: dict[str, Any] = typer.main.get_command(command_line()).commands
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option"
]


def test_an_option_of_several_commands_has_one_meaning():
    commands = defaultdict(list)
    for command, option in OPTIONS:
        commands[option.opts[0]].append((command, option))
    for name, uses in commands.items():
        texts = {option.help for _, option in uses}
        if len(texts) > 1 or name in MEANINGS:
            assert name in MEANINGS, f"{name} of {[command for command, _ in uses]}: {texts}"
        for command, option in uses if name in MEANINGS else ():
            rest = option.help.removeprefix(MEANINGS[name])
            assert rest != option.help or not rest, f"{command} {name}: {option.help}"
            assert rest[:1] in ("", ":", ",", ";", " ", "("), f"{command} {name}: {option.help}"
        assert len({tuple(option.opts) for _, option in uses}) == 1, f"{name}: {uses}"


def test_a_meaning_has_one_name():
    names = defaultdict(set)
    for _, option in OPTIONS:
        names[option.help].add(option.opts[0])
    assert [found for found in names.values() if len(found) > 1] == []
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    assert set(MEANINGS) <= {option.opts[0] for _, option in OPTIONS}, "a meaning without an option"


def test_values_have_names_of_the_field_and_not_of_python():
    for command, option in OPTIONS:
        if option.opts[0] not in ("--help", "--version"):
            assert option.metavar is not None, f"{command} {option.opts}"
            assert bool(option.metavar) != option.is_flag, f"{command} {option.opts}: {option.metavar!r}"
    for name, command in COMMANDS.items():
        for argument in command.params:
            if argument.param_type_name == "argument":
                assert argument.metavar == argument.metavar.upper(), f"{name} {argument.metavar}"


# Earlier names and names of other programs for what has a name here.
OTHER_NAMES = {
    "--output": "--out", "--output-dir": "--out", "--figure": "--plot", "--intervals": "--bed", "--regions": "--region",
    "--batch": "--batch-size", "--model-path": "--model", "--reference": "--genome", "--settings": "--config",
    "--window": "--window-bp", "--gff": "--annotation", "--gtf": "--annotation", "--continue": "--resume",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_names_follow_the_rules(command):
    for option in COMMANDS[command].params:
        assert option.help, f"{command} {option.name}: no help"
        if option.param_type_name != "option":
            continue
        assert set(option.opts).isdisjoint(OTHER_NAMES), OTHER_NAMES
        if option.is_flag and option.default is False:
            assert not option.secondary_opts, f"{command} {option.opts[0]} is off: it needs no --no- form"
        if option.multiple:
            assert "repeat for " in option.help, f"{command} {option.opts[0]}: {option.help}"
        for unit, end in (("bases ", "-bp"), ("base pairs ", "-bp"), ("tokens computed", "-tokens")):
            if option.help.startswith(unit):
                assert option.opts[0].endswith(end), f"{command} {option.opts[0]}: {option.help}"
