"""Every block of code in README.md and docs/ is run, or is in a list that says why not."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dnagpt_fast import DNAGPT
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.pack import pack_fasta
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from tests.docs import blocks
from tests.pretrain.runs import CONTIG, GENOME, write_config

# Pages whose commands have a test of their own, because they need more than a folder of small files.
OWN_TEST = {
    "docs/finetuning.md": "tests/docs/test_finetuning.py",
    "docs/howto/constraints.md": "tests/docs/test_howto_pages.py",
    "docs/howto/extract.md": "tests/docs/test_howto_pages.py",
    "docs/howto/python.md": "tests/docs/test_howto_pages.py",
    "docs/howto/shuffled_controls.md": "tests/docs/test_howto_pages.py",
    "docs/training.md": "tests/docs/test_training.py",
}
# (page, beginning of the block): why no test runs it.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install . && "): "as on docs/index.md",
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'"): ".ci/run runs it",
    (
        "docs/index.md",
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/dnagpt-fast pretrain --demo",
    ): ("installs the package; tests/pretrain/test_demo.py runs the demonstration in short"),
    (
        "docs/howto/resume.md",
        "dnagpt-fast embed dna_gpt6m_m genome.2bit --bed peaks.bed -o vectors.npy --resume",
    ): ("needs a job that was killed; tests/cli/test_resume.py kills them"),
    ("docs/howto/command_line.md", "dnagpt-fast --install-completion"): "writes into the home of its user",
    ("docs/howto/offline.md", "pip wheel '.[hf,finetune]' -w wheels"): "needs a package index",
    (
        "docs/howto/several_gpus.md",
        "torchrun --standalone --nproc-per-node=8 -m dnagpt_fast pretrain --config run.toml --out run --resume",
    ): "eight processes; tests/docs/test_training.py runs the command with two",
    (
        "docs/benchmarks.md",
        "dnagpt-fast evaluate gue --data GUE --model dna_gpt6m_m --model hf:FOLDER -o report",
    ): ("needs the data of other projects; tests/suites runs every suite on small files"),
    (
        "docs/learning.md",
        "dnagpt-fast pretrain --start dna_gpt0.1b_m.pth --genome W=axolotl.2bit --out run",
    ): ("steps of 0.1 billion parameters; tests/pretrain/test_start.py starts from small models"),
    (
        "docs/learning_curves.md",
        "python recipes/learning_curves.py --labelled FOLDER --out curve_runs",
    ): "hours, on data of other projects; tests/recipes/test_learning_curves.py runs both commands on small rows",
    (
        "docs/differences.md",
        "DNAGPT_TRANSFORMERS=<clone of transformers> python -m benchmarks.library_suite",
    ): ("needs a clone of transformers"),
    (
        "docs/variants.md",
        "dnagpt-fast track dna_gpt6m_m 20.fa.gz --region 20:60667000-60669000",
    ): "needs chr20 of a Debian package; the block before it has the command",
    (
        "docs/variants.md",
        "dnagpt-fast mutate dna_gpt6m_m 20.fa.gz 20:60667440-60667510 -o map.tsv --plot example_mutations.svg",
    ): "needs chr20 of a Debian package; the first block has the command",
}
LENGTH_BP = 120_000


def runnable(page: str) -> list[blocks.Block]:
    return [
        block
        for block in blocks.blocks(page)
        if block.language in (*blocks.COMMANDS, *blocks.PYTHON, "toml")
        and not any(where == page and block.text.startswith(begin) for where, begin in NOT_RUN)
    ]


RUN = [
    page
    for page in blocks.PAGES
    if page not in OWN_TEST
    and not blocks.is_notebook(page)
    and any(block.language != "toml" for block in runnable(page))
]
# Implementations that this processor could not use without being asked to.
ENVIRONMENT = {
    "docs/howto/fewer_bits.md": {"DNAGPT_FAST_IMPL": "linear_int8=reference,linear_bfloat16=reference"}
}


def test_what_is_not_run_is_still_on_its_page():
    for page, begin in NOT_RUN:
        assert any(b.text.startswith(begin) for b in blocks.blocks(page)), f"{page} has no block {begin!r}"
    for page, test in OWN_TEST.items():
        assert Path(page).name in (blocks.ROOT / test).read_text()


def test_no_block_is_without_a_language():
    """A block of commands without a language would not be run, and nobody would notice."""
    for page in blocks.PAGES:
        for block in blocks.blocks(page):
            commands = block.text.lstrip().startswith(("dnagpt-fast ", "python ", "pytest ", "$ ", ">>> "))
            assert block.language or not commands, f"{page}, line {block.line}"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The files that the pages name."""
    folder = tmp_path_factory.mktemp("files")
    with Genome.open(GENOME) as opened:
        bases = opened.sequence(CONTIG, 0, LENGTH_BP)
    text = f">chr22\n{bases}\n"
    (folder / "genome.fa").write_text(text)
    (folder / "genome.fa.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    pack_fasta([folder / "genome.fa"], folder / "genome.2bit")
    starts = range(30_000, 110_000, 10_000)
    (folder / "peaks.bed").write_text("".join(f"chr22\t{s}\t{s + 300}\tpeak{s}\t0\t-\n" for s in starts))
    (folder / "sequences.fa").write_text("".join(f">s{s}\n{bases[s : s + 300]}\n" for s in starts))
    records = [
        f"chr22\t{s + 1}\t.\t{bases[s]}\t{'C' if bases[s] != 'C' else 'T'}\t.\t.\t.\n" for s in starts[:3]
    ]
    header = f"##fileformat=VCFv4.2\n##contig=<ID=chr22,length={LENGTH_BP}>\n"
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "variants.vcf").write_text(header + columns + "".join(records))
    parts = ("train", "train", "validation", "test")
    rows = [
        f"{bases[s : s + 240]},{'ab'[i % 2]},{parts[i // 2 % 4]}"
        for i, s in enumerate(range(20_000, 68_000, 1000))
    ]
    (folder / "labels.csv").write_text("\n".join(["sequence,label,split", *rows]) + "\n")
    for name, place in (
        ("mine.2bit", "genome.2bit"),
        ("GENOME", "genome.2bit"),
        ("promoters.bed", "peaks.bed"),
    ):
        shutil.copy(folder / place, folder / name)
    (folder / "in.vcf.gz").write_bytes(gzip.compress((folder / "variants.vcf").read_bytes(), mtime=0))
    return folder


def prepare(page: str) -> None:
    """What few pages need, and takes a second or more to make; in the current folder."""
    text = "".join(block.text for block in runnable(page))
    if "dna_gpt0.1b_m.pth" in text:
        # random weights under the published names and in the published shape: 0.5 GB
        torch.save(DNAGPT.from_name("dna_gpt0.1b_m", vocab_size=19_564).state_dict(), "dna_gpt0.1b_m.pth")
    if "--out run --resume" in text:
        settings = load_config(write_config(Path()), ["run.steps=4", "schedule.warmup_steps=1"])
        pretrain(settings, Path("run"), console=Console(quiet=True))
    if " MODEL " in text:
        blocks.run_line("dnagpt-fast convert dna_gpt6m_m MODEL --to folder", "MODEL")
    if " TUNED " in text:
        command = (
            "dnagpt-fast finetune --task classification --start dna_gpt6m_m --data labels.csv --out TUNED"
        )
        blocks.run_line(command, "TUNED")


@pytest.mark.slow  # a minute of processor time in all
@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs(page, files, tmp_path, monkeypatch):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(blocks.ROOT))
    for name, value in ENVIRONMENT.get(page, {}).items():
        monkeypatch.setenv(name, value)
    prepare(page)
    names: dict[str, object] = {}
    for block in runnable(page):
        blocks.run_block(block, tmp_path, names)
    shutil.rmtree(tmp_path)
