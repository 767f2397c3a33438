"""The tables of measured CPU figures in benchmarks/README.md and README.md, made from the rows in benchmarks/results.

    python -m benchmarks.tables           writes both again; benchmarks/cpu_rows.py does so after a run

One file of rows for each instruction set: machines differ, so their figures stand apart. A test compares the pages
with the files.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = {HERE / "README.md": "cpu tables", HERE.parent / "README.md": "cpu summary"}
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON", "scalar": "no vector instructions"}
H100_TOKENS = 0.8e6  # tokens a second that one H100 could train, the yardstick of the sampler

Rows = dict[str, dict[str, Any]]
Line = tuple[str, str, str]
"""What, measured, target."""


def rows_of(path: Path) -> Rows:
    """op -> row; fasta_pack without the version of zlib that its op names."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {row["op"].partition(" (")[0]: row for row in rows}


def files() -> dict[str, Path]:
    """Instruction set -> its file, for those that exist."""
    found = {isa: RESULTS / f"cpu_{isa}.jsonl" for isa in SETS}
    return {isa: path for isa, path in found.items() if path.is_file()}


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 30 else f"{value:.1f}" if value >= 3 else f"{value:.2f}"


def span(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low}-{high}"


def rates(row: dict[str, Any], *names: str) -> str:
    return span([row["rate"][name] for name in names])


def times(row: dict[str, Any], one: str, other: str) -> float:
    """The rate of one contender over that of another."""
    return row["rate"][one] / row["rate"][other]


def kmer_lines(rows: Rows, isa: str) -> Iterator[Line]:
    for dtype in ("uint16", "int32", "int64"):
        row = rows.get(f"kmer_tokenize torch.{dtype}")
        if row is None:
            continue
        call = row.get("call", "`out=`")
        turned = [name for name in row["rate"] if name.startswith(isa) and "N every" not in name]
        ours = [name for name in turned if "new" not in name]
        text = f"{rates(row, *ours)} Gbp/s in the four orientations, "
        text += f"{span([times(row, name, 'memcpy') for name in ours])} of memcpy's rate"
        goal = "0.9 of memcpy"
        if dtype != "uint16":
            text += f", {span([times(row, name, 'memset') for name in ours])} of memset's"
            goal = "0.8 of writing as many bytes"
        yield f"64 MB packed -> 6-mer ids, {dtype}, {call}", text, goal
        if f"{isa} new memory" in row["rate"]:
            ratio = 1 / times(row, f"{isa} new memory", "copy into new memory")
            yield (
                f"the same into new memory, {dtype}",
                f"{rates(row, f'{isa} new memory')} Gbp/s, {ratio:.2f} of the time of numpy's copy into new memory",
                "1.2 of that time" if dtype == "uint16" else "-",
            )
        if dtype == "uint16":
            for lower, least in (("avx2", 0.5), ("scalar", 0.25)):
                if lower != isa and f"{lower} forward" in row["rate"]:
                    names = (f"{lower} forward", f"{lower} reverse complement")
                    text = f"{span([times(row, name, 'memcpy') for name in names])} of memcpy's rate"
                    yield f"the same with {lower} code", text, f"{least} of memcpy"
        dense = [f"{isa} N every 50", f"{isa} N every 50, reverse complement"]
        yield (
            f"an N every 50 bases, {dtype}",
            f"{rates(row, *dense)} Gbp/s, {times(row, dense[0], f'{isa} forward'):.2f} of the rate without N",
            "0.3 of that rate",
        )
        if "numpy table" in row["rate"]:
            ratio = times(row, f"{isa} forward", "numpy table")
            yield (
                "numpy table, int64",
                f"{rates(row, 'numpy table')} Gbp/s: we are {number(ratio)} times as fast",
                "-",
            )


def gc_lines(rows: Rows, isa: str) -> Iterator[Line]:
    row = rows["gc_count"]
    fastest = max(row["rate"][name] for name in ("read", "read, sum", "read, max"))
    parts = [f"{isa} whole", f"{isa} windows of 100 kb"]
    share = [row["rate"][name] / fastest for name in parts]
    text = (
        f"{number(row['rate'][parts[0]])} Gbp/s whole, {number(row['rate'][parts[1]])} in windows of 100 kb: "
    )
    text += f"{share[0]:.2f}, {share[1]:.2f} of the fastest of three ways to read the bytes"
    if "py2bit.bases" in row["rate"]:
        text += f"; {number(times(row, parts[0], 'py2bit.bases'))} times as fast as py2bit"
    yield "GC of 64 MB packed", text, "0.9 of reading"


def sampler_lines(rows: Rows, isa: str) -> Iterator[Line]:
    rate = rows["sample_batch"]["rate"]
    draws = rate["BatchSampler, uint16"]
    yield (
        "random windows of 64 x 510 six-mers, sampled, tokenized, counted, labelled",
        f"{number(draws)} million tokens/s, {number(draws * 1e6 / H100_TOKENS)} times what an H100 could train; "
        f"{number(rate['whole training batch'])} as whole training batches",
        "20 times",
    )


def text_lines(rows: Rows, isa: str) -> Iterator[Line]:
    for length in ("3060", "1200000"):
        row = rows[f"text_encode {length} bp"]
        text = f"{rates(row, 'ours')} Gbp/s"
        for peer, name in (
            ("official", "the official tokenizer"),
            ("Hugging Face tokenizers", "Hugging Face tokenizers"),
        ):
            if peer in row["rate"]:
                text += f", {number(times(row, 'ours', peer))} times {name}"
        yield f"text of {int(length):,} bp -> ids", text, "50 times the official tokenizer"


def fasta_lines(rows: Rows, isa: str) -> Iterator[Line]:
    row = rows["fasta_pack"]
    packed, gz = f"{isa} FASTA to packed", "gzip FASTA to packed"
    text = f"{number(times(row, packed, 'pysam'))} times as fast as pysam only reads the file"
    if "needletail" in row["rate"]:
        text += f", {number(times(row, packed, 'needletail'))} times needletail"
    yield "FASTA -> packed bases in memory", text, "-"
    yield (
        "FASTA -> .2bit on disk",
        f"{number(times(row, 'FASTA to .2bit', 'pysam'))} times as fast as pysam only reads the file",
        "3 times",
    )
    yield (
        "FASTA.gz -> packed",
        f"{rates(row, gz)} Gbp/s, {times(row, gz, 'inflate'):.2f} of the rate of only inflating, "
        f"{number(times(row, gz, 'pysam, gzip'))} times as fast as pysam only reads it",
        "limited by inflate",
    )


def call_lines(rows: Rows, isa: str) -> Iterator[Line]:
    for op, what, calls in (
        ("calls", "a call", 1000),
        ("call_overhead", "a call on CUDA without its kernel", 10_000),
    ):
        if op not in rows:
            continue
        us = {name: 1e6 * seconds / calls for name, seconds in rows[op]["seconds"].items()}
        groups = []
        for name in ("kmer_tokenize", "gc_count", "sample_batch"):
            groups.append(f"{name} {span([value for key, value in us.items() if key.split(',')[0] == name])}")
        yield what, f"{'; '.join(groups)} us (`torch.empty` alone {number(us['torch.empty'])})", "10 us"


def variant_lines(rows: Rows, isa: str) -> Iterator[Line]:
    for op, row in rows.items():
        if op.startswith("variants "):
            spaced = [key.removeprefix("variants/s, ") for key in row if key.startswith("variants/s, ")]
            texts = [
                f"{number(row[f'variants/s, {what}'])} a second {what}, {number(row[f'times naive, {what}'])} times as "
                "fast as two forward passes an allele through transformers"
                for what in spaced
            ]
            texts.append(f"`score` {row['score bp/s']:,.0f} bp/s, `track` {row['track bp/s']:,.0f}")
            yield (
                f"variants, {row['model']}, {row['context_bp']} bp of context, {row['threads']} threads",
                "; ".join(texts),
                "5 times",
            )


def start_lines(rows: Rows, isa: str) -> Iterator[Line]:
    if "start_up" not in rows:
        return
    row = rows["start_up"]
    python, torch = row["seconds"]["python"], row["seconds"]["import torch"]
    for name, wanted in row["wanted"].items():
        yield (
            f"`{name}`" if name.startswith("--") or name in ("info", "doctor") else name,
            f"{row['seconds'][name]:.2f} s from start to end (only Python {python:.2f}, `import torch` {torch:.2f})",
            f"{wanted:.2f} s",
        )


def job_lines(rows: Rows, isa: str) -> Iterator[Line]:
    for op, row in rows.items():
        if op.startswith("whole job: "):
            ours, *others = row["seconds"]
            text = f"{row['seconds'][ours]:.1f} s, {row['peak_gib'][ours]:.2f} GiB"
            for other in others:
                text += (
                    f"; {other} {row['seconds'][other]:.1f} s, {row['peak_gib'][other]:.2f} GiB: "
                    f"{row['ratio'][other]:.2f} times our time"
                )
                # what ours does besides is named in the row's first column
                text += "" if "training_s" in row else " for the same work"
            if "training_s" in row:
                steps = ", ".join(f"{side} {seconds:.1f}" for side, seconds in row["training_s"].items())
                text += f"; training steps alone, s: {steps}"
            yield row["what"], text, "-"


LINES: list[Callable[[Rows, str], Iterator[Line]]] = [
    kmer_lines, gc_lines, sampler_lines, text_lines, fasta_lines, call_lines, variant_lines, start_lines, job_lines,
]  # fmt: skip


def heading(isa: str, rows: Rows) -> str:
    def named(key: str) -> str:
        return ", ".join(sorted({str(row[key]) for row in rows.values()}))

    return f"### {SETS[isa]}: {named('machine')}, {named('date')}, torch {named('torch')}"


def cpu_tables() -> str:
    """A table for each instruction set, for benchmarks/README.md."""
    parts = []
    for isa, path in files().items():
        rows = rows_of(path)
        lines = [line for make in LINES for line in make(rows, isa)]
        table = [
            "| what | measured | target |",
            "|---|---|---|",
            *(f"| {' | '.join(line)} |" for line in lines),
        ]
        parts.append("\n".join([heading(isa, rows), "", f"All rows: `results/{path.name}`.", "", *table]))
    return "\n\n".join(parts)


def cpu_summary() -> str:
    """A few figures of each instruction set side by side, for README.md."""
    found = {isa: rows_of(path) for isa, path in files().items()}

    def cell(isa: str, rows: Rows, what: str) -> str:
        kmers, text = rows["kmer_tokenize torch.uint16"], rows["text_encode 1200000 bp"]["rate"]
        peer = "official" if "official" in text else "Hugging Face tokenizers"
        if what.startswith("packed bases to"):
            ours = kmers["rate"][f"{isa} forward"]
            call = f" ({kmers['call']})" if "call" in kmers else ""
            new = kmers["rate"].get(f"{isa} new memory")
            into = f"; {number(new)} into new memory" if new else ""
            return f"{number(ours)} Gbp/s, {ours / kmers['rate']['memcpy']:.1f} of memcpy's rate{call}{into}"
        if what == "GC content":
            gc = rows["gc_count"]
            ratio = (
                f", {number(times(gc, f'{isa} whole', 'py2bit.bases'))} times py2bit"
                if "py2bit.bases" in gc["rate"]
                else ""
            )
            return f"{number(gc['rate'][f'{isa} whole'])} Gbp/s{ratio}"
        if what.startswith("random"):
            return f"{number(rows['sample_batch']['rate']['BatchSampler, uint16'])} million tokens/s"
        if what.startswith("text"):
            return f"{number(text['ours'] / text[peer])} times {peer.replace('official', 'the official tokenizer')}"
        return f"{number(times(rows['fasta_pack'], 'FASTA to .2bit', 'pysam'))} times as fast as pysam reads the file"

    lines = [
        "packed bases to 6-mer ids, uint16, into a given tensor",
        "GC content",
        "random training windows: sampled, tokenized, counted, labelled",
        "text of 1.2 Mbp to ids",
        "FASTA to .2bit",
    ]
    table = [
        f"| what, one thread | {' | '.join(SETS[isa] for isa in found)} |",
        "|---" * (1 + len(found)) + "|",
    ]
    for what in lines:
        table.append(f"| {what} | {' | '.join(cell(isa, rows, what) for isa, rows in found.items())} |")
    return "\n".join(table)


MAKERS = {"cpu tables": cpu_tables, "cpu summary": cpu_summary}


def replaced(page: str, name: str, table: str) -> str:
    """The page with the text between its two marks replaced. Raises ValueError without the marks."""
    start, end = f"<!-- {name}: python -m benchmarks.tables -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page lacks the marks {start.strip()} and {end}")
    return f"{before}{start}\n{table}\n\n{end}{after}"


def write() -> None:
    for path, name in PAGES.items():
        path.write_text(replaced(path.read_text(), name, MAKERS[name]()))


if __name__ == "__main__":
    write()
