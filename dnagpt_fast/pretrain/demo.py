"""The demonstration: the packaged megabase of human chromosome 22, and one sequence from the model it trains."""

from pathlib import Path

import torch
from rich.console import Console

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import LINE_BP
from dnagpt_fast.pretrain.run import load_run
from dnagpt_fast.vocab import SPECIES, Vocabulary, reserved_id

DEMO_CONFIG = Path(__file__).parents[1] / "data" / "demo.toml"


def free_folder(wanted: Path) -> Path:
    """`wanted`, or with -2, -3 ... behind it, whichever does not exist yet."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def sample_bases(model: DNAGPT, vocabulary: Vocabulary, species: str, n_kmers: int, seed: int) -> str:
    """Bases drawn from the model, `n_kmers` tokens after the species token; reserved tokens among them are left out."""
    prompt = torch.tensor([[reserved_id(SPECIES[species])]], device=next(model.parameters()).device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = model.generate(prompt, n_kmers, do_sample=True)[0, 1:].tolist()
    return KmerTokenizer.of(vocabulary).decode_bases(drawn)


def show_sample(run: Path, console: Console | None = None) -> None:
    """Prints one sequence of the run's newest checkpoint as FASTA, its GC content in the header."""
    model, vocabulary, record = load_run(run)
    bases = sample_bases(model, vocabulary, "human", record["n_kmers"], seed=0)
    known = len(bases) - bases.count("N")
    gc = (bases.count("G") + bases.count("C")) / known if known else float("nan")
    console = console or Console()
    console.print(f">generated human, {len(bases)} bp, GC {gc:.3f}", highlight=False)
    for start in range(0, len(bases), LINE_BP):
        console.print(bases[start : start + LINE_BP], highlight=False)
