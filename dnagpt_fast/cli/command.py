"""Makes commands of functions: help with examples, the options that every command has, and one way to show results.

The docstring of the function is the help; its lines that begin with `$ ` are the examples, which
tests/cli/test_examples.py runs. A function that returns a `Report` has the option --json, and names the keys that it
prints by `@prints`.
"""

import functools
import inspect
import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from dnagpt_fast.cli.options import Json, flag
from dnagpt_fast.output_files import is_stream
from dnagpt_fast.progress import quiet, reading

Quiet = Annotated[bool, flag("--quiet")]
Verbose = Annotated[bool, flag("--verbose")]
EXAMPLE = "$ "
STDIN = Path("/dev/stdin")
# Parameters that name what is written, or both: `pack` reads the names itself.
WRITTEN = ("output", "figure", "target", "out", "files")
LINES_AT_ONCE = 4096

# What the keys mean that --json prints; a key means the same in every command.
KEYS = {
    "about": "one sentence",
    "alternative": "alternative base",
    "alternatives": "alternative alleles",
    "answer": "answer of the fine-tuned model",
    "answers": "rows of the table of predictions",
    "answer_name": "what the answer is, such as the logit of a class",
    "bases": "bases that were read, scored or trained on",
    "batch_size": "sequences of one step, over all devices",
    "checkpoint_bytes": "size of one checkpoint",
    "device": "name of the GPU, or cpu",
    "disk_bytes": "all checkpoints that are kept, and one being written",
    "gpus": "number of GPUs",
    "hours": "time of the run, null if it does not fit",
    "micro_batch": "sequences of one forward pass of one device",
    "model": "name or shape of the model",
    "parameters": "number of weights",
    "precision": "bf16 or fp32",
    "sharded": "true if the weights are split over the GPUs",
    "tokens_per_s": "speed over all devices, null if the run does not fit",
    "baseline": "answer for the baseline of the attribution, null for a plain gradient",
    "classes": "classes of variants",
    "contig": "name of the contig",
    "control_mean": "mean log-likelihood per base of the shuffled controls",
    "control_sd": "their standard deviation",
    "contigs": "number of contigs",
    "end_bp": "end of the place, 0-based and not part of it",
    "few": "classes with fewer examples than a calibration needs",
    "file_bytes": "size of the file",
    "fits": "true if the run fits the memory of the device",
    "flags": "number of alternatives with each flag",
    "form": "form of the model on disk",
    "gap": "what the attributions miss of the difference between answer and baseline",
    "gc": "share of G and C among the known bases, null if no base is known",
    "gc_bp": "bases G and C",
    "genome": "name of the genome's file",
    "heads": "attention heads",
    "job": "what the results depend on",
    "labels": "rows of each label in each part",
    "layers": "blocks of the model",
    "left_out_tokens": "tokens that are no bases and are not in the sequence",
    "left_out": "what was left out, by reason",
    "length_bp": "bases of the contig or sequence",
    "log_likelihood": "nats",
    "log_likelihood_per_bp": "nats per scored base, null if no base is scored",
    "log_ratio": "log P(alternative) - log P(reference), nats",
    "masked_bp": "soft-masked bases",
    "memory_bytes": "peak memory of one device, by part",
    "message": "what was found, and what to do",
    "models": "facts about each model",
    "n_blocks": "runs of N",
    "n_bp": "unknown bases",
    "new_tokens": "tokens that were generated",
    "name": "name of the contig, sequence or model",
    "ok": "false if something must be fixed",
    "output": "file or folder that was written",
    "position": "0-based position",
    "prompt_bp": "bases of the prompt, which the sequence begins with",
    "plot": "figure that was written, null without --plot",
    "records": "records of the VCF file",
    "reference": "base of the genome",
    "region": "the region",
    "remedies": "ways to make the run fit",
    "report": "scores of the finished run, null if there are none",
    "rows": "rows of the table",
    "runs": "steps and scores of each run",
    "scored_bp": "bases that the log-likelihood is summed over",
    "seconds": "seconds of the work",
    "sequence": "bases",
    "sequences": "number of sequences",
    "settings": "the settings",
    "sha256": "SHA-256 of the table",
    "shape": "shape of one vector",
    "start_bp": "start of the place, 0-based",
    "steps": "optimizer steps done",
    "strand": "+ or -",
    "substitutions": "single-base substitutions",
    "suite": "name of the suite",
    "tasks": "scores and differences of each task",
    "tokens": "tokens of the region",
    "variants": "random variants that were scored",
    "vectors": "number of vectors",
    "versions": "versions of Python and libraries",
    "z": "how many standard deviations the sequence is above its controls",
    "what": "what was examined",
}


@dataclass(frozen=True)
class Report:
    """What a command found or did.

    text       for people: lines; several of them are a table
    values     what --json prints: an object, or an iterable of objects, one a line
    is_result  the text is what the command was asked for; otherwise it is a note, which --quiet leaves out
    output     where the command wrote: if that is standard output, this report goes to standard error
    notes      lines for standard error
    code       exit code
    """

    text: str | Iterable[str]
    values: dict[str, Any] | Iterable[dict[str, Any]]
    is_result: bool = False
    output: Path | None = None
    notes: list[str] = field(default_factory=list)
    code: int = 0


def prints(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Names the keys of the objects that a command prints with --json; their meanings are in KEYS."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.keys = keys  # type: ignore[attr-defined]
        return function

    return mark


def help_and_examples(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """The docstring without its examples, and the examples without `$ `."""
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    examples = [line.removeprefix(EXAMPLE) for line in lines if line.startswith(EXAMPLE)]
    return "\n".join(line for line in lines if not line.startswith(EXAMPLE)).strip(), examples


def epilog(function: Callable[..., Any]) -> str:
    """What stands under the options: the examples, and the keys of --json."""
    _, examples = help_and_examples(function)
    keys = getattr(function, "keys", ())
    lines = [f"{EXAMPLE}{example}" for example in examples]
    return "\n\n".join(
        [
            *([f"Example{'s' * (len(lines) > 1)}:"] if lines else []),
            *lines,
            *([f"Keys of --json: {', '.join(keys)}"] if keys else []),
        ]
    )


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """The function as a command: with --quiet, --verbose and, if it returns a report, --json; empty paths are errors.

    ValueError stands for EOFError, which typer takes for the end of the input from a keyboard.
    """
    hints = get_type_hints(function, include_extras=True)
    returned = hints.pop("return", None)
    reports = Report in (returned, *get_args(returned))
    common = {"as_quiet": Quiet, "as_verbose": Verbose}
    if reports:
        common = {"as_json": Json, **common}
    for name, hint in hints.items():
        _parse_paths(hint, path if name in WRITTEN else input_path)
        _name_value(name, hint)

    @functools.wraps(function)
    def run(*, as_quiet: bool = False, as_verbose: bool = False, as_json: bool = False, **given: Any) -> None:
        if "as_json" in hints:
            given["as_json"] = as_json
        if sum(value == STDIN for value in given.values()) > 1:
            raise typer.BadParameter("- is standard input, which only one parameter can read")
        with _manner(function.__name__, as_quiet, as_verbose):
            try:
                report = function(**given)
            except EOFError as error:
                raise ValueError(str(error) or "a file ends too early") from error
            if report is not None:
                _show(report, getattr(function, "keys", ()), as_json)
        if report is not None and report.code:
            raise typer.Exit(report.code)

    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in common.items()
        if name not in hints
    ]
    run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, **{parameter.name: parameter.annotation for parameter in more}}
    return run


def _show(report: Report, keys: tuple[str, ...], as_json: bool) -> None:
    err = is_stream(report.output) if report.output is not None else False
    if as_json:
        rows = [report.values] if isinstance(report.values, dict) else report.values
        echo_lines((json_line(row, keys) for row in rows), err=err)
    elif report.is_result or not quiet.get():
        echo_lines([report.text] if isinstance(report.text, str) else report.text, err=err)
    for note in report.notes:
        typer.echo(note, err=True)


def json_line(row: dict[str, Any], keys: Sequence[str] = tuple(KEYS)) -> str:
    """One line of --json: numbers that are not finite are null, paths are text. Raises TypeError for a key that is not
    in `keys`."""
    if unknown := set(row) - set(keys):
        raise TypeError(f"the keys {sorted(unknown)} of --json are not documented")
    return json.dumps(_plain(row), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a number of numpy or torch
        return _plain(value.item())
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def echo_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Many at once: each call flushes, which takes longer than the rest for a million contigs."""
    lines = iter(lines)
    while some := list(islice(lines, LINES_AT_ONCE)):
        typer.echo("\n".join(some), err=err)


class _Notes(logging.Handler):
    """What the package logs, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        typer.echo(f"dnagpt-fast: {kind}{record.getMessage()}", err=True)


@contextmanager
def _manner(name: str, as_quiet: bool, as_verbose: bool) -> Iterator[None]:
    """How much a command says on standard error."""
    if as_quiet and as_verbose:
        raise typer.BadParameter("wanted --quiet or --verbose, not both", param_hint="--verbose")
    log, began = logging.getLogger("dnagpt_fast"), time.monotonic()
    level, handler = log.level, _Notes()
    log.setLevel(logging.ERROR if as_quiet else logging.INFO if as_verbose else logging.WARNING)
    log.addHandler(handler)
    token = quiet.set(as_quiet)
    try:
        with reading():
            yield
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        log.info(
            "%s: %.1f s, processor %.1f s, peak memory %.2f GiB",
            name, time.monotonic() - began, used.ru_utime + used.ru_stime, peak / 2**30,
        )  # fmt: skip
    finally:
        quiet.reset(token)
        log.removeHandler(handler)
        log.setLevel(level)


def path(text: str) -> Path:
    """The value of a path parameter. An empty name, as of an unset variable in a script, would be the current folder.
    Files are not looked at here: a command reports them like all its errors, in one line."""
    if not str(text).strip():
        raise typer.BadParameter("the name is empty: wanted a file or folder")
    return Path(text)


def input_path(text: str) -> Path:
    """As `path`; `-` is standard input. What is read twice refuses it (input_files.check_file)."""
    return STDIN if text == "-" else path(text)


# What --help calls the value of an option of this type; Python's names of types mean little to most users.
VALUES = {Path: "FILE", int: "N", float: "X", str: "TEXT", bool: ""}


def _name_value(name: str, hint: Any) -> None:
    """Gives a parameter without a metavar one: an argument its name, an option the kind of its value."""
    if get_origin(hint) is not Annotated:
        return
    (parameter,) = hint.__metadata__
    if parameter.metavar is not None:
        return
    if isinstance(parameter, ArgumentInfo):
        parameter.metavar = name.upper()
        return
    kind = next((one for one in get_args(hint.__origin__) if one is not type(None)), hint.__origin__)
    kinds = get_args(kind) if get_origin(kind) in (list, tuple) else (kind,)
    if all(one in VALUES for one in kinds):
        parameter.metavar = " ".join(VALUES[one] for one in kinds)


def _parse_paths(hint: Any, parser: Callable[[str], Path]) -> None:
    if get_origin(hint) is Annotated and {Path, list[Path]} & {hint.__origin__, *get_args(hint.__origin__)}:
        (parameter,) = hint.__metadata__
        parameter.parser = parser
