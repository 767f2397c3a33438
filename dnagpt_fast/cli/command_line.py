"""The commands in their groups, and the command line made of them: only commands among the arguments are read in full,
because reading the options of all takes a fifth of the time of a short one (benchmarks/LOG.md).
"""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Annotated, Any

import typer

from dnagpt_fast.cli.command import command, epilog, help_and_examples

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

# Group -> command -> the module in dnagpt_fast/cli that has its function, in the order of --help.
GROUPS: dict[str, dict[str, str]] = {
    "Genomes and data": {
        "pack": "genome_commands",
        "info": "genome_commands",
        "extract": "genome_commands",
        "make-task": "genome_commands",
    },
    "Train": {
        "plan": "run_commands",
        "config": "about_commands",
        "pretrain": "run_commands",
        "finetune": "run_commands",
    },
    "Use a model": {
        "generate": "model_commands",
        "embed": "model_commands",
        "score": "model_commands",
        "predict": "run_commands",
    },
    "Single bases and variants": {
        "variants": "variant_commands",
        "calibrate": "variant_commands",
        "track": "place_commands",
        "mutate": "place_commands",
        "attribute": "place_commands",
        "attention": "place_commands",
    },
    "Models and this installation": {
        "evaluate": "evaluate_commands",
        "convert": "model_commands",
        "models": "about_commands",
        "doctor": "about_commands",
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}


def function_of(name: str) -> Callable[..., Any]:
    """The function of a command, whose module is imported."""
    function: Callable[..., Any] = getattr(
        import_module(f"dnagpt_fast.cli.{COMMANDS[name]}"), name.replace("-", "_")
    )
    return function


def command_line(arguments: Collection[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command line for these arguments: commands that are not among them have only a name and a help text, and
    are left out if the first argument is a command. By default all are complete."""
    made = typer.Typer(
        name="dnagpt-fast",
        pretty_exceptions_enable=False,
        # the groups need it; so no text of a command may have square brackets (tests/cli/test_commands.py)
        rich_markup_mode="rich",
        context_settings=HELP_OPTIONS,
    )
    made.callback(
        invoke_without_command=True,
        epilog="First steps: `dnagpt-fast doctor`, then `dnagpt-fast pretrain --demo`.\n\n"
        "`dnagpt-fast COMMAND -h` has an example for each command.",
    )(_every_command)
    asked = COMMANDS.keys() & set(arguments)
    only = asked if next(iter(arguments), None) in COMMANDS else COMMANDS
    for group, names in GROUPS.items():
        for name in names:
            if name not in only:
                continue
            function = function_of(name)
            made.command(
                name=name,
                help=help_and_examples(function)[0],
                epilog=epilog(function),
                rich_help_panel=group,
                context_settings=HELP_OPTIONS,
            )(command(function) if name in asked else _listed)
    return made


def _listed() -> None:
    """A command that --help lists. It cannot run, because its name is not among the arguments."""
    raise RuntimeError("this command is not among the arguments")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"dnagpt-fast {version('dnagpt-fast')}")
        except PackageNotFoundError:
            typer.echo("dnagpt-fast, not installed: it runs from a folder of the source")
        raise typer.Exit


def _every_command(
    context: typer.Context,
    wanted: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="print the version and end",
        ),
    ] = False,
) -> None:
    """Train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
