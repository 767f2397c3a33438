"""Whole jobs beside what a user would take instead: pack, embed, score, generate, fine-tune.

    python -m benchmarks.bench_whole_jobs                    a first look, small sizes
    python -m benchmarks.bench_whole_jobs --tables           the sizes of benchmarks/README.md; writes its tables again
    python -m benchmarks.bench_whole_jobs --tables --jobs score --bp 1000000 --peer-bp 50000

| job | ours | instead |
|---|---|---|
| pack | FASTA.gz to .2bit, as `dnagpt-fast pack` | pysam only reads it: no package of Debian or PyPI writes .2bit |
| embed | `embed` of promoter-sized sequences, 300 bp | AutoTokenizer, AutoModel, batches of 32, mean of the k-mers |
| score | `score` of one contig | transformers: AutoModelForCausalLM over the same windows, in batches of 16 |
| generate | `generate_sequences`, top-p 0.95 | transformers' `generate` with the same settings and batches |
| finetune | `finetune`, one epoch with validation and report | transformers' Trainer, one epoch with evaluation |

Both sides have the weights of the packaged model dna_gpt6m_m, all cores and a process of their own. Seconds are of the
job, after imports and loading of the model; the memory is the peak of the process. Results are compared before any
figure is printed. Where a job would take the other side too long, it does a part of it, and the ratio is of the time
for the same work. Sequences are from the packaged megabase of human chr22.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dnagpt_fast as df
from benchmarks import tables
from benchmarks.contest import RESULTS, circumstances, record
from benchmarks.cpu_rows import merge, results_of
from dnagpt_fast.ops import compiled

ROOT = Path(__file__).resolve().parents[1]
MEGABASE = ROOT / "dnagpt_fast" / "data" / "hg19_chr22_20-21Mb.2bit"
MODEL = "dna_gpt6m_m"
SEQUENCE_BP, MOTIF = 300, "TATAAATAGGCCTATAAATA"
FINETUNE_SET = (
    "run.epochs=1", "run.batch_size=32", "run.warmup_epochs=0", "run.min_lr_share=1.0", "optimizer.lr=1e-3",
    "optimizer.beta2=0.999", "optimizer.weight_decay=0.01", "optimizer.clip_norm=1.0",
)  # fmt: skip
# Sizes of a first look, and those of the tables.
SIZES = {
    "pack_bp": (4_000_000, 50_000_000),
    "sequences": (500, 10_000),
    "bp": (30_000, 5_000_000),
    "peer_bp": (15_000, 200_000),
    "samples": (64, 1_000),
    "tokens": (32, 64),
    "rows": (400, 4_000),
}
HELP = {
    "pack_bp": "bases to pack", "sequences": "sequences to embed", "bp": "length of the contig to score",
    "peer_bp": "the part of it that transformers scores", "samples": "sequences to generate",
    "tokens": "tokens of each", "rows": "labelled sequences to fine-tune on",
}  # fmt: skip


def megabase() -> str:
    """The packaged megabase without its run of N: 900,000 bases."""
    with df.Genome.open(MEGABASE) as genome:
        return genome.sequence(genome.names[0]).replace("N", "")


def pieces(count: int, seed: int) -> list[str]:
    text = megabase()
    starts = np.random.default_rng(seed).integers(0, len(text) - SEQUENCE_BP, count)
    return [text[start : start + SEQUENCE_BP] for start in starts]


def contig(length_bp: int) -> str:
    text = megabase()
    return (text * (length_bp // len(text) + 1))[:length_bp]


# Each function makes the files of its job, in the parent.


def prepare_model(folder: Path) -> None:
    from dnagpt_fast.weights.forms import convert

    convert(Path(MODEL), folder / "hf", "hf")


def prepare_pack(folder: Path, sizes: dict[str, int]) -> None:
    """Contigs of at most 900,000 bases, in lines of 60."""
    text, left, number = megabase(), sizes["pack_bp"], 0
    with gzip.open(folder / "in.fa.gz", "wt", 6) as file:
        while left > 0:
            bases = text[:left]
            lines = "\n".join(bases[i : i + 60] for i in range(0, len(bases), 60))
            file.write(f">contig{number}\n{lines}\n")
            left, number = left - len(bases), number + 1


def prepare_finetune(folder: Path, sizes: dict[str, int]) -> None:
    """Half of the rows have MOTIF at a random place: a task that both sides can learn in one epoch."""
    rng, lines = np.random.default_rng(5), ["sequence,label,split"]
    for i, text in enumerate(pieces(sizes["rows"], seed=4)):
        if i % 2:
            at = int(rng.integers(0, SEQUENCE_BP - len(MOTIF)))
            text = text[:at] + MOTIF + text[at + len(MOTIF) :]
        split = ("train", "train", "train", "train", "validation", "test")[i // 2 % 6]
        lines.append(f"{text},{'yes' if i % 2 else 'no'},{split}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


# Each side of a job: a generator that yields once when it is ready, and then its answer, a JSON value.


def pack_ours(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    from dnagpt_fast.genome.pack import pack_fasta

    yield
    pack_fasta([folder / "in.fa.gz"], folder / "out.2bit")
    yield None


def pack_pysam(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    import pysam

    yield
    with pysam.FastxFile(str(folder / "in.fa.gz")) as records:
        yield sum(len(entry.sequence) for entry in records)


def embed_ours(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    model, tokenizer = df.load_model(MODEL)
    sequences = pieces(sizes["sequences"], seed=1)
    yield
    vectors = np.stack(list(df.embed(model, tokenizer, sequences)))
    np.save(folder / "ours.npy", vectors)
    yield None


def embed_transformers(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from dnagpt_fast import hub  # noqa: F401 it registers the classes

    model = AutoModel.from_pretrained(folder / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    sequences = [f"<R>{text}" for text in pieces(sizes["sequences"], seed=1)]
    yield
    made = []
    for first in range(0, len(sequences), 32):
        batch = tokenizer(sequences[first : first + 32], padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        # left padding: the species token is the first that is not masked
        mask = batch["attention_mask"].bool()
        mask &= mask.cumsum(1) > 1
        sums = (hidden * mask[..., None]).sum(1)
        made.append((sums / mask.sum(1, keepdim=True)).numpy())
    np.save(folder / "transformers.npy", np.concatenate(made))
    yield None


def score_ours(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    model, tokenizer = df.load_model(MODEL)
    text = contig(sizes["bp"])
    (part,) = df.score(model, tokenizer, [text[: sizes["peer_bp"]]])
    yield
    (whole,) = df.score(model, tokenizer, [text])
    assert whole.scored_bp == sizes["bp"]
    yield part.log_likelihood


def score_transformers(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    """The windows of `score`: half of a window is context, each k-mer is counted once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dnagpt_fast import hub  # noqa: F401 it registers the classes

    model = AutoModelForCausalLM.from_pretrained(folder / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    text = contig(sizes["bp"])[: sizes["peer_bp"]]
    yield
    ids = tokenizer(text)["input_ids"]
    prefix, length = tokenizer("<R>")["input_ids"], model.config.max_len
    windows, done = [], 0
    while done < len(ids):
        begin = max(done - length // 2, 0)
        windows.append((begin, done, prefix + ids[begin : begin + length - 1]))
        done = begin + length - 1
    total = 0.0
    for first in range(0, len(windows), 16):
        some = windows[first : first + 16]
        longest = max(len(tokens) for _, _, tokens in some)
        batch = torch.full((len(some), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(batch)
        for row, (_, _, tokens) in enumerate(some):
            batch[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.no_grad():
            logs = model(input_ids=batch, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        logs = logs.gather(2, batch[:, 1:, None])[..., 0].double()
        for row, (begin, counted, tokens) in enumerate(some):
            total += float(logs[row, counted - begin : len(tokens) - 1].sum())
    yield total


def generate_ours(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    model, tokenizer = df.load_model(MODEL)
    settings: dict[str, Any] = {"max_tokens": sizes["tokens"], "stop_ids": (), "batch_size": 32}
    (greedy,) = df.generate_sequences(model, tokenizer, ["<R>ACGTAC"], do_sample=False, **settings)
    yield
    made = df.generate_sequences(
        model, tokenizer, ["<R>ACGTAC"], num_samples=sizes["samples"], top_p=0.95, **settings
    )
    texts = [tokenizer.decode_bases(one.new_ids) for one in made]
    yield {"greedy": greedy.new_ids, "bases": gc_of(texts), "samples": len(texts)}


def gc_of(texts: list[str]) -> list[float]:
    """GC of each sequence: the two sides draw other numbers, but from one distribution."""
    return [sum(text.count(base) for base in "GC") / max(len(text), 1) for text in texts]


def generate_transformers(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dnagpt_fast import KmerTokenizer, hub  # noqa: F401 it registers the classes

    model = AutoModelForCausalLM.from_pretrained(folder / "hf").eval()
    tokenizer, kmers = AutoTokenizer.from_pretrained(folder / "hf"), KmerTokenizer()
    prompt = tokenizer("<R>ACGTAC", return_tensors="pt")["input_ids"]
    settings: dict[str, Any] = {
        "max_length": sizes["tokens"], "eos_token_id": None, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip

    def made(count: int, **more: Any) -> list[list[int]]:
        batch = prompt.repeat(count, 1)
        out = model.generate(batch, attention_mask=torch.ones_like(batch), **settings, **more)
        return out[:, prompt.shape[1] :].tolist()

    (greedy,) = made(1, do_sample=False)
    torch.manual_seed(0)
    yield
    ids: list[list[int]] = []
    while len(ids) < sizes["samples"]:
        ids += made(min(32, sizes["samples"] - len(ids)), do_sample=True, top_p=0.95, top_k=0)
    texts = [kmers.decode_bases(tokens) for tokens in ids]
    yield {"greedy": greedy, "bases": gc_of(texts), "samples": len(texts)}


def finetune_ours(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    from rich.console import Console

    from dnagpt_fast.finetune.run import finetune
    from dnagpt_fast.finetune.settings import load_finetune_config

    data = [f'data.path="{folder / "rows.csv"}"', f'start.path="{MODEL}"', *FINETUNE_SET]
    config = load_finetune_config(None, data)
    yield
    finetune(config, folder / "run", console=Console(quiet=True))
    results = json.loads((folder / "run" / "results.json").read_text())
    yield {"accuracy": results["test"]["accuracy"][0], "training_s": results["seconds"]}


def finetune_transformers(folder: Path, sizes: dict[str, int]) -> Iterator[Any]:
    import csv

    import transformers

    from dnagpt_fast import hub  # noqa: F401 it registers the classes

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "hf", num_labels=2)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        adam_beta2=0.999,
        max_grad_norm=1.0,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        eval_strategy="epoch",
        disable_tqdm=True,
    )
    yield
    with open(folder / "rows.csv") as file:
        for row in csv.DictReader(file):
            encoded = tokenizer(f"<R>{row['sequence']}")
            rows[row["split"]].append({**encoded, "label": int(row["label"] == "yes")})
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    trained = trainer.train()
    evaluated = sum(entry.get("eval_runtime", 0.0) for entry in trainer.state.log_history)
    found = trainer.predict(rows["test"])
    yield {
        "accuracy": float((found.predictions.argmax(1) == found.label_ids).mean()),
        "training_s": trained.metrics["train_runtime"] - evaluated,
    }


# Each function compares the answers, and raises AssertionError before any figure is printed.


def check_pack(folder: Path, sizes: dict[str, int], answers: dict[str, Any]) -> None:
    import py2bit

    assert answers["pysam"] == sizes["pack_bp"], answers
    text, packed = megabase(), py2bit.open(str(folder / "out.2bit"))
    lengths = packed.chroms()
    assert sum(lengths.values()) == sizes["pack_bp"]
    for name, length in lengths.items():
        assert packed.sequence(name).upper() == text[:length], name


def check_embed(folder: Path, sizes: dict[str, int], answers: dict[str, Any]) -> None:
    ours, theirs = np.load(folder / "ours.npy"), np.load(folder / "transformers.npy")
    assert ours.shape == theirs.shape == (sizes["sequences"], ours.shape[1])
    difference = np.abs(ours - theirs).max()
    assert difference < 1e-4 * np.abs(theirs).max(), f"the vectors differ by {difference}"


def check_score(folder: Path, sizes: dict[str, int], answers: dict[str, Any]) -> None:
    assert abs(answers["ours"] - answers["transformers"]) < 1e-5 * abs(answers["transformers"]), answers


def check_generate(folder: Path, sizes: dict[str, int], answers: dict[str, Any]) -> None:
    ours, theirs = answers["ours"], answers["transformers"]
    assert ours["greedy"] == theirs["greedy"], "the greedy tokens differ"
    assert ours["samples"] == theirs["samples"] == sizes["samples"]
    error = np.hypot(*(np.std(side["bases"]) / np.sqrt(sizes["samples"]) for side in (ours, theirs)))
    assert abs(np.mean(ours["bases"]) - np.mean(theirs["bases"])) < 5 * error, "the GC of the samples differs"


def check_finetune(folder: Path, sizes: dict[str, int], answers: dict[str, Any]) -> None:
    """The heads differ (answer tokens; a new linear layer), so only that both have learnt the motif."""
    accuracy = {side: answer["accuracy"] for side, answer in answers.items()}
    if sizes["rows"] >= 4000:
        assert min(accuracy.values()) > 0.6, accuracy
    print(f"test accuracy: {accuracy}")


JOBS: dict[str, dict[str, Any]] = {
    "pack": {"ours": pack_ours, "pysam": pack_pysam},
    "embed": {"ours": embed_ours, "transformers": embed_transformers},
    "score": {"ours": score_ours, "transformers": score_transformers},
    "generate": {"ours": generate_ours, "transformers": generate_transformers},
    "finetune": {"ours": finetune_ours, "transformers": finetune_transformers},
}
PREPARE = {"pack": prepare_pack, "finetune": prepare_finetune}
CHECK = {
    "pack": check_pack, "embed": check_embed, "score": check_score, "generate": check_generate,
    "finetune": check_finetune,
}  # fmt: skip
WHAT = {
    "pack": "FASTA.gz of {pack_bp:,} bp -> .2bit; pysam only reads it",
    "embed": "embeddings of {sequences:,} sequences of 300 bp, {model}",
    "score": "score of a contig of {bp:,} bp, {model}; transformers: {peer_bp:,} bp of it",
    "generate": "{samples:,} generated sequences of {tokens} tokens, {model}",
    "finetune": "fine-tuning, {rows:,} sequences of 300 bp: one epoch of two thirds, validation, test, {model}; ours "
    "with checkpoints, intervals, plain baselines and figures besides",
}


SHOWN = ("what", "seconds", "ratio", "training_s", "peak_gib")
"""What is printed of a row, if it has it."""


def peak_gib() -> float:
    """VmHWM: the most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def work(job: str, side: str, folder: Path, sizes: dict[str, int]) -> None:
    """In the child: the job once; one line of JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    steps = JOBS[job][side](folder, sizes)
    next(steps)
    began = time.perf_counter()
    answer = next(steps)
    seconds = time.perf_counter() - began
    print(json.dumps({"answer": answer, "seconds": seconds, "peak_gib": peak_gib()}), file=answers)


def measure(job: str, sizes: dict[str, int]) -> dict[str, Any]:
    """The row of one job. Raises RuntimeError for a failed child, AssertionError for answers that disagree."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_model(folder)
        if job in PREPARE:
            PREPARE[job](folder, sizes)
        for side in JOBS[job]:
            command = [sys.executable, "-m", "benchmarks.bench_whole_jobs", "--worker", job, side, name]
            done = subprocess.run(
                [*command, json.dumps(sizes)], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{job}, {side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
            found[side] = json.loads(done.stdout.splitlines()[-1])
        CHECK[job](folder, sizes, {side: one["answer"] for side, one in found.items()})
    share = sizes["peer_bp"] / sizes["bp"] if job == "score" else 1.0
    seconds = {side: round(one["seconds"], 3) for side, one in found.items()}
    row = {
        "op": f"whole job: {job}",
        "what": WHAT[job].format(**sizes, model=MODEL),
        "seconds": seconds,
        "peak_gib": {side: round(one["peak_gib"], 3) for side, one in found.items()},
        "ratio": {
            side: round(value / (share * seconds["ours"]), 3)
            for side, value in seconds.items()
            if side != "ours"
        },
        "sizes": sizes,
        **circumstances(),
    }
    if job == "finetune":
        row["training_s"] = {side: round(one["answer"]["training_s"], 3) for side, one in found.items()}
    return row


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        job, side, folder, sizes = sys.argv[2:]
        work(job, side, Path(folder), json.loads(sizes))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB")
    parser.add_argument("--tables", dest="full", action="store_true", help="the sizes and rows of the tables")
    for name, (small, large) in SIZES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, help=f"{HELP[name]}: {small:,}, {large:,}"
        )
    options = parser.parse_args()
    sizes = {name: vars(options)[name] or SIZES[name][options.full] for name in SIZES if name != "rows"}
    sizes["rows"] = options.rows or SIZES["rows"][options.full]
    sizes["peer_bp"] = min(sizes["peer_bp"], sizes["bp"])
    for job in options.jobs:
        row = measure(job, sizes)
        print(
            json.dumps({key: row[key] for key in SHOWN if key in row}, indent=1),
            flush=True,
        )
        record(row)
        if options.full and RESULTS not in os.environ:
            merge(results_of(compiled.cpu_isa()), [row])
            tables.write()


if __name__ == "__main__":
    main()
