"""The command line `dnagpt-fast`. Each command is a thin function: it reads options, calls one module, prints.

Exit codes: 0 done, 1 the input or the work failed (one line on stderr), 2 the command line was wrong, 130 interrupted.
DNAGPT_FAST_TRACEBACK=1 shows where an error came from.
"""

import os
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

import typer

from dnagpt_fast.cli import genome_commands, model_commands, run_commands, variant_commands

app = typer.Typer(
    name="dnagpt-fast",
    help="Train, fine-tune and use DNAGPT straight from packed 2-bit genomes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def every_command() -> None:
    """Train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""


def doctor() -> None:
    """Say what is installed, what is built, which implementation each op takes here, and how to fix what is wrong."""
    from dnagpt_fast.cli.doctor import examine

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what:{width}}  {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def models() -> None:
    """List the models that the package carries; their names are accepted wherever a command takes a model."""
    from dnagpt_fast.weights.packaged import known_names, packaged_models

    found = packaged_models()
    if not found:
        typer.echo(known_names(), err=True)
        raise typer.Exit(1)
    for name, model in found.items():
        typer.echo(f"{name}  {model.about}  ({model.file.stat().st_size / 1e6:.1f} MB)")


# In the order of --help.
COMMANDS: dict[str, Callable[..., None]] = {
    "pack": genome_commands.pack,
    "info": genome_commands.info,
    "make-task": genome_commands.make_task,
    "pretrain": run_commands.pretrain,
    "finetune": run_commands.finetune,
    "predict": run_commands.predict,
    "plan": run_commands.plan,
    "generate": model_commands.generate,
    "embed": model_commands.embed,
    "score": model_commands.score,
    "track": variant_commands.track,
    "variants": variant_commands.variants,
    "convert": model_commands.convert,
    "models": models,
    "doctor": doctor,
}
for _name, _command in COMMANDS.items():
    app.command(name=_name)(_command)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits; bad input is one line on stderr, not a traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            app(args=arguments, prog_name="dnagpt-fast")
        except (ValueError, IndexError, OSError, RuntimeError, ImportError) as error:
            if os.environ.get("DNAGPT_FAST_TRACEBACK") == "1":
                raise
            typer.echo(f"dnagpt-fast: error: {_one_line(error)}", err=True)
            sys.exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"dnagpt-fast: warning: {message}", err=True)
