"""Runs the commands of docs/finetuning.md in order, on small files with the names that they use."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dnagpt_fast.cli import main
from dnagpt_fast.genome.pack import pack_fasta
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from tests.finetune.data.genomes import random_bases
from tests.finetune.labelled import split_of

PAGE = (Path(__file__).resolve().parents[2] / "docs/finetuning.md").read_text()
# The default blocks of 1 Mb: a split in three sets needs several blocks; 120 genes give each set some.
LENGTH_BP, GENES = 6_000_000, 120
# Windows of 600 bp are 100 k-mers; with the template they fit into 128 positions. One epoch: other tests
# check learning.
SHAPE = (
    "model.max_len=128",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.embedding_dim=8",
    "model.bias=true",
)
SHORT = ("--set", "run.epochs=1", "--set", "run.batch_size=32", "--set", "run.device=cpu")


def write_genome(folder: Path) -> str:
    bases = random_bases(LENGTH_BP, seed=3)
    starts = [m.start() for m in re.finditer("ATG", bases)][1000 :: LENGTH_BP // 64 // GENES][:GENES]
    rows = [f"T{s}\tchr20\t+\t{s}\t{s + 900}\t{s}\t{s + 600}\t1\t{s},\t{s + 900},\n" for s in starts]
    (folder / "refGene.txt").write_text("".join(rows))
    (folder / "chr20.fa").write_text(f">20\n{bases}\n")
    pack_fasta([folder / "chr20.fa"], folder / "chr20.2bit")
    return bases


def write_files(folder: Path) -> None:
    bases = write_genome(folder)
    rng = np.random.default_rng(0)
    (folder / "genes.gff3").write_text(
        "".join(
            f"chr20\tx\t{kind}\t{s + 1}\t{s + 300 + 300 * (kind == 'exon')}\t.\t+\t.\tID=x{s}\n"
            for s in range(0, 890_000, 5_000)
            for kind in ("exon", "CDS")
        )
    )
    (folder / "peaks.bed").write_text(
        "".join(f"chr20\t{s}\t{s + 200}\t{'ab'[s // 10_000 % 2]}\t0\t-\n" for s in range(0, 900_000, 10_000))
    )
    rows = [
        f"{bases[600 * i :][:300]},{rng.exponential():.4f},{rng.normal():.4f},{rng.normal():.4f},{split_of(i, 60)}"
        for i in range(60)
    ]
    (folder / "levels.csv").write_text("\n".join(["sequence,label,length,gc,split", *rows]) + "\n")
    people = "\t".join(f"P{i}" for i in range(20))
    lines = [
        "##fileformat=VCFv4.2",
        "##contig=<ID=20>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">',
        f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{people}",
    ]
    for position in range(100, 1700, 100):
        alternative = "ACGT"[("ACGT".index(bases[position]) + 1) % 4]
        genotypes = "\t".join("|".join(map(str, pair)) for pair in rng.integers(0, 2, (20, 2)))
        lines.append(f"20\t{position + 1}\t.\t{bases[position]}\t{alternative}\t.\tPASS\t.\tGT\t{genotypes}")
    (folder / "phased.vcf").write_text("\n".join(lines) + "\n")
    (folder / "new.fa").write_text(f">one\n{bases[:300]}\n>two\n{bases[:100].lower()}NNNNNNNNNN\n")
    settings = load_config(
        None,
        [*SHAPE, "run.steps=2", "run.batch_size=2", "schedule.warmup_steps=1", "run.device=cpu"],
        [f"human={folder / 'chr20.2bit'}"],
    )
    pretrain(settings, folder / "run", console=Console(quiet=True))


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.slow  # a minute of CPU: 14 commands, each with its bootstrap
def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands():
        program, *arguments = shlex.split(command)
        assert program == "dnagpt-fast"
        if arguments[0] == "finetune" and "--resume" not in arguments:
            arguments += SHORT
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert not exit_.value.code, command
    for run in (
        "tuned",
        "from_official",
        "from_hf",
        "peaks",
        "levels",
        "lora",
        "frozen",
        "three/run-2",
        "tagger",
    ):
        assert json.loads((tmp_path / run / "results.json").read_text())["test"], run
    assert len((tmp_path / "haplotypes/made.tsv").read_text().splitlines()) == 51
    assert len((tmp_path / "new.tsv").read_text().splitlines()) == 3
    assert (tmp_path / "spans.tsv").read_text().startswith("contig\t")


def test_the_page_names_every_setting_it_sets():
    from dnagpt_fast.finetune.settings import FinetuneConfig

    known = {f"{section}.{key}" for section, keys in FinetuneConfig().to_dict().items() for key in keys}
    named = set(
        re.findall(r"(?<!\.)\b((?:start|task|data|split|tuning|optimizer|run|sampling)\.[a-z_]+)\b", PAGE)
    )
    assert len(named) > 20
    assert named <= known
