"""The options that several commands share: one meaning has one name and one help text everywhere.

`MEANINGS` has a text for each of them. A command that needs to say more adds it after that text:
`option("--out", ".npy or .safetensors")`. The rules for names are in docs/design.md; tests/cli/test_options.py checks
them for every command.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

MEANINGS = {
    "--after-bp": "bases after the variant whose probabilities count; default 192",
    "--annotation": "genes: GTF, GFF3 or refGene, plain or .gz",
    "--batch-size": "sequences of one step",
    "--batch-tokens": "tokens computed at once; limits the memory, does not change the results",
    "--bed": "BED file of intervals, plain or gzip; strand and name are used",
    "--both-strands": "average with the reverse complement",
    "--config": "settings, a TOML file; `dnagpt-fast config` prints one",
    "--context-bp": "fewest bases before the variant; default 384",
    "--data": "labelled data",
    "--device": "cpu or cuda; default cuda if available",
    "--dtype": "float32, bfloat16 or float16; default as stored",
    "--epochs": "passes over the data",
    "--genome": ".2bit or FASTA (plain, gzip, BGZF)",
    "--json": "print results as JSON, one object a line",
    "--label": "class that a fine-tuned model is asked about; default the second of two",
    "--layer": "block 1, 2 ..., or -1 the last",
    "--model": "model",
    "--num-heads": "attention heads; needed for a bare file whose shape is not a published one",
    "--number": "side input of a fine-tuned model; repeat for each, in their order",
    "--out": "output",
    "--overlap": "fewest k-mers of context before a base, where windows overlap",
    "--phases": "token boundaries tried; divides k, default k",
    "--plot": "figure, .pdf, .svg or .png",
    "--pooling": "mean, last or max over the k-mers",
    "--prefix": "tokens before every sequence; the species token of the training",
    "--products": "matrix products on the CPU: float32, or bfloat16 or int8 where the processor has instructions for "
    "them",
    "--region": "CONTIG or CONTIG:START-END, 0-based and half-open; (-) after it: reverse strand; repeat for more",
    "--quiet": "only results and errors: no progress, notes, warnings",
    "--resume": "continue the unfinished job of this output",
    "--rule": "dnagpt, full-ll (Evo 2, Carbon) or next-token (GENERator)",
    "--seed": "seed of what is drawn",
    "--set": "one setting: section.key=value",
    "--start": "model to start from: run folder, published .pth, Hugging Face folder or packaged model",
    "--strand": "+ or -: the strand that is read and shown",
    "--strands": "2, or 1 for the forward strand only",
    "--stride-bp": "windows begin every so many bases, so that neighbours share them; default half of --context-bp; "
    "0: each variant has exactly --context-bp",
    "--verbose": "also what is read, chosen and used, and time and memory at the end",
    "--window-bp": "bases of a window",
}
# Options that have the same box in the help of every command; the others are in `Options`.
PANELS = {
    "Windows and score": (
        "--after-bp", "--context-bp", "--overlap", "--phases", "--prefix", "--rule", "--strands", "--stride-bp"
    ),
    "Model and machine": ("--batch-size", "--batch-tokens", "--device", "--dtype", "--num-heads", "--products"),
    "What is printed": ("--json", "--quiet", "--verbose"),
}  # fmt: skip
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
SHORT = {"--out": "-o", "--quiet": "-q", "--verbose": "-v"}


def option(name: str, special: str = "", **more: Any) -> Any:
    """The option of this name, with its meaning and after it what is special in one command, for `Annotated`.

    special  goes on after the meaning; a colon is put between unless it begins with a blank or punctuation
    more     further arguments of typer.Option
    """
    text = MEANINGS[name]
    if special:
        text += special if special[0] in " ,;(" else f": {special}"
    return _option(name, help=text, **more)


def flag(name: str, help: str = "", **more: Any) -> Any:
    """An option that is off unless it is given: it has no `--no-` form, and no value in the help."""
    return _option(name, help=help or MEANINGS[name], metavar="", **more)


def _option(name: str, **more: Any) -> Any:
    more.setdefault("rich_help_panel", PANEL_OF.get(name))
    return typer.Option(name, *([SHORT[name]] if name in SHORT else []), **more)


Model = Annotated[
    Path,
    typer.Argument(
        help="packaged model (see `models`), published .pth, run folder, its checkpoint, or Hugging Face folder"
    ),
]
GenomeFile = Annotated[Path, typer.Argument(help=MEANINGS["--genome"])]

AfterBp = Annotated[int | None, option("--after-bp")]
BatchTokens = Annotated[int, option("--batch-tokens")]
Bed = Annotated[Path | None, option("--bed")]
BothStrands = Annotated[bool, flag("--both-strands")]
Config = Annotated[Path | None, option("--config")]
ContextBp = Annotated[int | None, option("--context-bp")]
Device = Annotated[str | None, option("--device")]
Dtype = Annotated[str | None, option("--dtype")]
Heads = Annotated[int | None, option("--num-heads")]
Json = Annotated[bool, flag("--json")]
Label = Annotated[str | None, option("--label")]
Number = Annotated[list[float] | None, option("--number")]
Phases = Annotated[int | None, option("--phases")]
Pooling = Annotated[str, option("--pooling")]
Prefix = Annotated[str, option("--prefix")]
Products = Annotated[str, option("--products")]
Regions = Annotated[list[str] | None, option("--region")]
Resume = Annotated[bool, flag("--resume")]
Rule = Annotated[str, option("--rule")]
Start = Annotated[Path | None, option("--start")]
Strand = Annotated[str, option("--strand")]
Strands = Annotated[int | None, option("--strands")]
StrideBp = Annotated[int | None, option("--stride-bp")]
WindowBp = Annotated[
    int | None, option("--window-bp", ", into which contigs or ranges are cut, one row each")
]
