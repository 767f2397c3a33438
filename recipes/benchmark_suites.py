"""The suites of `dnagpt-fast evaluate` on public data, and the tables of docs/benchmarks.md.

    python recipes/benchmark_suites.py --labelled FOLDER --out benchmark_reports
    python recipes/benchmark_suites.py --out benchmark_reports --page docs/benchmarks.md    # its measured part, again

FOLDER has the labelled data, as docs/benchmarks.md lists them. Human chr20 (hg19), its variants and its genes come from
public packages (recipes/fetch.py). A suite whose report is in --out already is not run again.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from fetch import debian, wheel
from stage import HERE, write_measured

from dnagpt_fast.suites.figures import draw
from dnagpt_fast.suites.report import tables
from dnagpt_fast.variants.vcf import VcfFile

NEEDS_GENOME = ("genomic-benchmarks", "variants", "zero-shot", "lm")
SHOWN_WIDTH = 8
SHOWN = "gue"
"""The suite whose figures are on the page."""


def write_ranges(folder: Path, ranges: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [text.replace(":", "\t").replace("-", "\t") for text in ranges]
    (folder / "held_out.bed").write_text("\n".join(lines) + "\n")


def write_variants(folder: Path, vcf: Path, rare_most_count: int, common_frequency: float) -> None:
    """Single-base variants as a labelled VCF: rare, or common; the ones between are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for record in VcfFile(vcf).records():
        if len(record.reference) != 1 or [len(text) for text in record.alternatives] != [1]:
            continue
        info = dict(part.split("=", 1) for part in record.text.split("\t")[7].split(";") if "=" in part)
        count, share = int(info["AC"]), int(info["AC"]) / int(info["AN"])
        if 1 <= count <= rare_most_count:
            label = "rare"
        elif common_frequency <= share <= 1 - common_frequency:
            label = "common"
        else:
            continue
        place = f"{record.contig}\t{record.start_bp + 1}\t.\t{record.reference}\t{record.alternatives[0]}"
        lines.append(f"{place}\t.\t.\tLABEL={label}")
    (folder / "rare_common.vcf").write_text("\n".join(lines) + "\n")


def arguments(name: str, settings: dict[str, Any], data: Path, out: Path, model: str) -> list[str]:
    """Of the command, without those for genome and annotation."""
    words = ["evaluate", settings.get("suite", name), "--data", str(data), "--model", model, "-o", str(out)]
    for key, value in settings.items():
        if key not in ("suite", "data"):
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{key.replace('_', '-')}", str(one)]
    return words


def run(chosen: argparse.Namespace, settings: dict[str, Any]) -> None:
    fasta, vcf = (debian(name, chosen.data) for name in ("vt-examples", "shapeit4-example"))
    annotation = wheel("pyrose2", chosen.data) / "rose2/annotation/hg19_refseq.ucsc"
    made = chosen.data / "made"
    write_ranges(made / "ranges", settings["ranges"])
    write_variants(made / "variants", vcf, **settings["rare_common"])
    for name, suite in settings["suites"].items():
        out = chosen.out / name
        if out.exists() or (chosen.only and name not in chosen.only):
            continue
        data = (chosen.data if suite["data"].startswith("made/") else chosen.labelled) / suite["data"]
        words = arguments(name, suite, data, out, chosen.model or settings["model"])
        kind = suite.get("suite", name)
        if kind in NEEDS_GENOME:
            words += ["--genome", str(fasta)]
        if kind == "zero-shot":
            words += ["--annotation", str(annotation)]
        if (chosen.out / f".{name}.evaluation").exists():
            words.append("--resume")
        chosen.out.mkdir(parents=True, exist_ok=True)
        print("dnagpt-fast", *words, flush=True)
        subprocess.run([sys.executable, "-m", "dnagpt_fast", *words], check=True)


def measured(out: Path, settings: dict[str, Any]) -> str:
    """The tables of scores and differences of every report."""
    parts = []
    for name in settings["suites"]:
        path = out / name / "report.json"
        if not path.is_file():
            continue
        report = json.loads(path.read_text())
        job = report["job"]
        rows = f"at most {job['max_rows']:,} rows of each part" if job["max_rows"] else "all rows"
        parts.append(
            f"### {name}: {report['about']}\n\n{rows}, seed {job['seed']}, {report['seconds']:,.0f} s in all."
        )
        for table in tables(report):
            if "is better" in table.title or table.title.startswith("Differences"):
                shown = replace(turned(table), note="")
                parts.append(shown.markdown().replace("## ", "#### ", 1))
    return "\n\n".join(parts)


def turned(table: Any) -> Any:
    """A table with more methods than fit beside each other, with rows and columns exchanged."""
    if len(table.header) <= SHOWN_WIDTH or len(table.rows) >= len(table.header):
        return table
    header = ["method", *(row[0] for row in table.rows)]
    rows = [
        [name, *(row[i] for row in table.rows)]
        for i, name in enumerate(table.header)
        if i and any(r[i] for r in table.rows)
    ]
    return type(table)(table.title, header, rows, table.note)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=Path, help="the labelled data; without it no suite is run")
    parser.add_argument("--data", type=Path, default=Path("recipe_data"), help="packages are fetched to here")
    parser.add_argument("--out", type=Path, default=Path("benchmark_reports"), help="reports go here")
    parser.add_argument("--only", action="append", help="only this suite; repeat for more")
    parser.add_argument("--model", help="another model than that of benchmark_suites.toml")
    parser.add_argument("--page", type=Path, help="the page whose measured part is written again")
    chosen = parser.parse_args()
    settings = tomllib.loads((HERE / "benchmark_suites.toml").read_text())
    if chosen.labelled is not None:
        run(chosen, settings)
    text = measured(chosen.out, settings)
    if chosen.page is None:
        print(text)
        return
    write_measured(chosen.page, text)
    shown = chosen.out / SHOWN / "report.json"
    if shown.is_file():
        draw(chosen.page.with_name(f"benchmarks_{SHOWN}.png"), json.loads(shown.read_text()))


if __name__ == "__main__":
    main()
