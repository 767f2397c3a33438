"""Every command that writes files, with small inputs, and two ways to start it: as a user does, or by a fork.

The forked process has torch loaded already, so that hundreds of kills hit the work and not the imports.
"""

import contextlib
import ctypes
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "tests" / "data" / "runs_before_the_rooms.tar.xz"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
INTERRUPTED_BEFORE_IT_BEGAN = 77


@dataclass(frozen=True)
class Job:
    """arguments: of the command; {} is the folder of the inputs, with the output folder `out`. files: its
    outputs. makes_a_run: it writes a run folder, which `--resume` continues."""

    arguments: str
    files: frozenset[str]
    makes_a_run: bool = False

    def in_folder(self, folder: Path) -> list[str]:
        return [text.format(folder) for text in self.arguments.split()]


def job(arguments: str, *files: str, makes_a_run: bool = False) -> Job:
    return Job(arguments, frozenset(files), makes_a_run)


JOBS = {
    "score": job("score {}/pretrained {}/s.fa -o {}/out/x.tsv --device cpu", "x.tsv"),
    "embed": job("embed {}/pretrained {}/s.fa -o {}/out/x.npy --device cpu", "x.npy", "x.npy.names"),
    "generate": job(
        "generate {}/pretrained -o {}/out/x.fa --samples 60 --max-tokens 20 --device cpu", "x.fa"
    ),
    "extract": job("extract {}/s.fa -o {}/out/x.fa", "x.fa"),
    "pack": job("pack {}/s.fa {}/out/x.2bit", "x.2bit"),
    "predict": job("predict {}/tuned {}/labels.csv -o {}/out/x.tsv --device cpu", "x.tsv"),
    "convert": job("convert {}/pretrained {}/out/x.safetensors --to safetensors", "x.safetensors"),
    "make-task": job(
        "make-task tis --genome {}/genes.fa --annotation {}/genes.txt -o {}/out/x.tsv --window-bp 60 --block-bp 100 "
        "--negatives 9",
        "x.tsv",
        "x.json",
    ),
    "variants": job(
        "variants {}/pretrained {}/genome.fa {}/in.vcf -o {}/out/x.vcf --context-bp 12 --after-bp 6 --device cpu",
        "x.vcf",
    ),
    "mutate": job(
        "mutate {}/pretrained {}/genome.fa one:100-130 -o {}/out/x.tsv --context-bp 12 --after-bp 6 --device cpu",
        "x.tsv",
    ),
    "calibrate": job(
        # the small model's window is too short for an indel with 30 bases on each side
        "calibrate dna_gpt6m_m {}/genome.fa -o {}/out/x.json --context-bp 12 --after-bp 6 --sites 2 --indels 2 "
        "--device cpu",
        "x.json",
    ),
    "variants bcf": job(
        "variants {}/pretrained {}/genome.fa {}/in.vcf -o {}/out/x.bcf --context-bp 12 --after-bp 6 --device cpu",
        "x.bcf",
        "x.bcf.csi",
    ),
    "attribute": job(
        "attribute {}/tuned {}/genome.fa one:100-110 -o {}/out/x.tsv --plot {}/out/x.svg --device cpu",
        "x.tsv",
        "x.svg",
    ),
    "attention": job(
        "attention {}/pretrained {}/genome.fa one:100-110 -o {}/out/x.npz --device cpu", "x.npz"
    ),
    "track": job("track {}/pretrained {}/genome.fa -o {}/out/x --region one:0-400 --device cpu", "x"),
    "pretrain": job("pretrain --config {}/pretrain.toml --out {}/out/x", "x", makes_a_run=True),
    "finetune": job("finetune --config {}/finetune.toml --out {}/out/x", "x", makes_a_run=True),
}
STEPS = {"pretrain": 40, "finetune": 12}
PRETRAIN = """
[model]
max_len = 24
num_layers = 1
num_heads = 1
embedding_dim = 8
[vocabulary]
k = 1
[data]
genomes = [{{ path = "{0}/genome.fa", species = "human", held_out = ["one:600-800"] }}]
[schedule]
warmup_steps = 2
[run]
steps = 40
batch_size = 4
device = "cpu"
[checkpoint]
every_steps = 5
"""
FINETUNE = """
[start]
path = "{0}/pretrained"
[task]
kind = "classification"
[data]
path = "{0}/labels.csv"
[split]
kind = "column"
[run]
epochs = 4
patience = 0
batch_size = 4
device = "cpu"
"""


def make_inputs(folder: Path, sequences: int = 200) -> Path:
    """The inputs of all jobs, and an empty `out`."""
    from tests.finetune.data.genomes import two_gene_genome

    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    draw = random.Random(0)
    records = (f">s{i}\n{''.join(draw.choices('ACGT', k=120))}\n" for i in range(sequences))
    (folder / "s.fa").write_text("".join(records))
    (folder / "genes").mkdir()
    _, table = two_gene_genome(folder / "genes")
    (folder / "genes" / "g.fa").rename(folder / "genes.fa")
    Path(table).rename(folder / "genes.txt")
    bases = (folder / "genome.fa").read_text().split("\n", 1)[1].replace("\n", "")
    rows = (
        f"one\t{at}\t.\t{bases[at - 1]}\t{'CA'[bases[at - 1] == 'C']}\t.\t.\t.\n" for at in range(50, 250, 5)
    )
    head = f"##fileformat=VCFv4.2\n##contig=<ID=one,length={len(bases)}>\n"
    head += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "in.vcf").write_text(head + "".join(rows))
    (folder / "pretrain.toml").write_text(PRETRAIN.format(folder))
    (folder / "finetune.toml").write_text(FINETUNE.format(folder))
    (folder / "out").mkdir()
    return folder


def start(
    *arguments: str | Path,
    before: Callable[[], object] | None = None,
    stdout: int = subprocess.PIPE,
    **environment: str | None,
) -> subprocess.Popen:
    """`dnagpt-fast ARGUMENTS` as a user starts it. before: called in the child. None takes a variable away."""
    settings = {**os.environ, **ENVIRONMENT, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "dnagpt_fast", *map(str, arguments)],
        cwd=ROOT,
        env={name: value for name, value in settings.items() if value is not None},
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        text=True,
    )


def no_larger_files(size: int) -> Callable[[], None]:
    """Imitates a full disk: the system refuses to write more."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def obey_permissions() -> None:
    """Makes file permissions apply to this process and its children, even as root."""
    if os.geteuid() == 0:
        drop_from_bounding_set = 24
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None, use_errno=True).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def permissions_count() -> bool:
    """Whether a folder without write permission refuses a process that has called `obey_permissions`."""
    code = (
        "import os, sys, tempfile\nwith tempfile.TemporaryDirectory() as room:\n    os.chmod(room, 0o500)\n"
        "    try: open(room + '/x', 'w')\n    except PermissionError: sys.exit(0)\n    sys.exit(1)"
    )
    return (
        subprocess.run([sys.executable, "-c", code], preexec_fn=obey_permissions, check=False).returncode == 0
    )


@dataclass
class Forked:
    """A command in a process that was forked with torch loaded."""

    process: multiprocessing.Process
    said_by: Connection

    def has_begun(self) -> None:
        """Returns when the command runs."""
        assert os.read(self.said_by.fileno(), 1) == b"!"

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def wait(self, timeout_s: float = 120) -> tuple[int, str]:
        """The exit code, negative for a signal, and what came on standard output and error. Raises TimeoutError."""
        said, end = b"", time.monotonic() + timeout_s
        while wait([self.said_by], max(end - time.monotonic(), 0)):
            piece = os.read(self.said_by.fileno(), 1 << 16)
            if not piece:
                break
            said += piece
        self.process.join(max(end - time.monotonic(), 0))
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(said.decode())
        return self.process.exitcode, said.decode()


class Forks:
    """Starts commands by multiprocessing's fork server, which has torch loaded."""

    def __init__(self) -> None:
        os.environ.update(ENVIRONMENT)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.preloaded"])

    def start(self, arguments: list[str], most_bytes: int | None = None) -> Forked:
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(arguments, writer, most_bytes))
        process.start()
        writer.close()
        forked = Forked(process, reader)
        forked.has_begun()
        return forked

    def run(self, arguments: list[str], most_bytes: int | None = None) -> tuple[int, str]:
        return self.start(arguments, most_bytes).wait()


def _run(arguments: list[str], said: Connection, most_bytes: int | None) -> None:
    from dnagpt_fast.cli import main

    for standard in (1, 2):
        os.dup2(said.fileno(), standard)
    said.close()
    # Those of the fork server were made for the files that stood under these numbers.
    sys.stdout, sys.stderr = (os.fdopen(standard, "w", buffering=1, closefd=False) for standard in (1, 2))
    os.chdir(ROOT)
    if most_bytes is not None:
        no_larger_files(most_bytes)()
    code = 0
    try:
        os.write(1, b"!")
        main(arguments)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED_BEFORE_IT_BEGAN)
    except SystemExit as end:
        code = int(end.code or 0)
    # a signal that comes now would meet multiprocessing's own code
    sys.stdout.flush()
    os._exit(code)
