"""Damaged files of every format: the error names the file, or the result is that of a simple second reader.

A short corpus by default; 100,000 files by `pytest -m slow tests/test_corpus.py`.
"""

import dataclasses
import gzip
import json
import logging
import random
import re
import time
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.haplotypes import read_haplotypes
from dnagpt_fast.finetune.data.sequence_files import read_bed, read_labelled_fasta
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.genome import Genome
from dnagpt_fast.model.config import preset
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.forms import load_model, save_model
from tests.harm import harmed, harmed_text, put

SHORT, LONG = 250, 10_000
LONGEST_S = 5.0  # CPU time of one file: a reader that hangs, or whose time grows faster than the file

BASES = "".join(random.Random(5).choices("ACGT", k=400))
ROWS = [
    (BASES[i : i + 12], "yes" if i % 2 else "no", ("train", "validation", "test")[i % 3]) for i in range(9)
]
TABLE = "\n".join(",".join(row) for row in [("sequence", "label", "split"), *ROWS]) + "\n"
BED = "".join(f"20\t{i * 20}\t{i * 20 + 12}\t{'ab'[i % 2]}\t0\t{'+-'[i % 2]}\n" for i in range(9))
FASTA = "".join(
    f">s{i} label={label}\n{bases[:6]}\n{bases[6:]}\n" for i, (bases, label, _) in enumerate(ROWS)
)
VCF = (
    "##fileformat=VCFv4.2\n##contig=<ID=20>\n"
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tP1\tP2\tP3\n"
    + "".join(
        f"20\t{10 + 5 * i}\t.\t{'ACGT'[i % 4]}\t{'CGTA'[i % 4]}\t.\tPASS\t.\tGT:PS\t0|1:7\t{i % 2}|0:7\t1|1:7\n"
        for i in range(6)
    )
)
HAPS = "".join(f"20 rs{i} {10 + 5 * i} {'ACGT'[i % 4]} {'CGTA'[i % 4]} 0 1 {i % 2} 0 1 1\n" for i in range(6))
SPANS = [("t1", 11, 60, "+"), ("t1", 81, 120, "+"), ("t2", 201, 260, "-"), ("t3", 301, 330, "+")]
GTF = "".join(
    f'20\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t0\tgene_id "g_{name}"; transcript_id "{name}"; tag "basic";\n'
    for name, start, end, strand in SPANS
    for kind in ("exon", "CDS")
)
GFF3 = (
    "##gff-version 3\n20\tx\tregion\t1\t400\t.\t+\t.\tID=r\n"
    + "".join(f"20\tx\tmRNA\t{s}\t{e}\t.\t{d}\t.\tID={n};Parent=g\n" for n, s, e, d in SPANS[1:])
    + "".join(
        f"20\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t0\tID={kind}{name};Parent={name}\n"
        for name, start, end, strand in SPANS
        for kind in ("exon", "CDS")
    )
)
REFGENE = "".join(
    f"1\t{name}\t20\t{strand}\t{start}\t{end}\t{start}\t{end}\t1\t{start},\t{end},\t0\tG\tcmpl\tcmpl\t0,\n"
    for name, start, end, strand in SPANS
)
TOML = (
    'data = { path = "/x.csv", max_sites = 3, number_columns = ["a", "b"] }\n[task]\nkind = "regression"\n'
    'classes = ["0", "1"]\n[optimizer]\nlr = 1e-4\n[run]\nepochs = 3\nseed = 7\n'
)


def unpacked(data: bytes) -> str:
    """The text of a file, read in the simplest way. Raises ValueError for a damaged file."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, OSError) as error:
            raise ValueError(str(error)) from error
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def lines_of(text: str) -> list[str]:
    return [line for line in re.split("\r\n|\r|\n", text) if line.strip()]


def read_rows(read: Callable, path: Path, **settings: Any) -> Any:
    rows = read(path, **settings)
    return list(zip(rows.sequence, rows.label, strict=True))


def plain_table(data: bytes, separator: str = ",") -> Any:
    text = unpacked(data)
    if '"' in text:
        return None  # quoted fields are the csv module's own
    header, *rows = ([field.strip() for field in line.split(separator)] for line in lines_of(text))
    rows = [row for row in rows if any(row)]
    found = [dict(zip(header, row, strict=True)) for row in rows]
    return [(_bases(row["sequence"]), row["label"]) for row in found]


def _bases(text: str) -> str:
    return re.sub("[RYSWKMBDHVX]", "N", text.upper().replace("U", "T"))


def plain_bed(data: bytes) -> Any:
    found = []
    for line in lines_of(unpacked(data)):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if line.startswith("#") or not (fields[1:] and re.fullmatch("[+-]?[0-9]+", fields[1])):
            continue
        bases = BASES[int(fields[1]) : int(fields[2])]
        if fields[5:] and fields[5] == "-":
            bases = bases[::-1].translate(str.maketrans("ACGT", "TGCA"))
        found.append((bases, fields[3]))
    return found if not re.search("^#.*\t.*\t", unpacked(data), re.MULTILINE) else None


def plain_fasta(data: bytes) -> Any:
    found = []
    for record in re.split(r"(?:^|[\r\n])[^\S\r\n]*>", unpacked(data))[1:]:
        header, *rest = re.split("\r\n|\r|\n", record)
        label = re.search(r"(?:^|[\s;|])label=([^\s;|]+)", header.strip())
        found.append((_bases("".join("".join(rest).split())), label[1] if label else None))
    return found


def read_alleles(path: Path) -> Any:
    panel = read_haplotypes(path, min_allele_count=0)
    letters = zip(panel.reference.tolist(), panel.alternative.tolist(), strict=True)
    sites = zip(panel.position_bp.tolist(), letters, panel.alleles.T.tolist(), strict=True)
    return [(at, chr(r), chr(a), alleles) for at, (r, a), alleles in sites]


def plain_vcf(data: bytes) -> Any:
    found: dict[int, tuple] = {}
    for line in lines_of(unpacked(data)):
        fields = line.split("\t")
        if line.startswith("#"):
            continue
        reference, alternative = fields[3].upper(), fields[4].upper()
        if len(reference) == len(alternative) == 1 and {reference, alternative} <= set("ACGT"):
            place = fields[8].split(":").index("GT")
            genotypes = [field.split(":")[place] for field in fields[9:]]
            alleles = [int(text) for genotype in genotypes for text in re.findall("[01]", genotype)]
            found.setdefault(int(fields[1]) - 1, (int(fields[1]) - 1, reference, alternative, alleles))
    return [site for at, site in found.items() if at >= 0]  # POS 0 is the telomere


def plain_haps(data: bytes) -> Any:
    found: dict[int, tuple] = {}
    for line in lines_of(unpacked(data)):
        _, _, position, reference, alternative, *alleles = line.split()
        if {reference.upper(), alternative.upper()} <= set("ACGT") and len(reference + alternative) == 2:
            at = int(position) - 1
            found.setdefault(at, (at, reference.upper(), alternative.upper(), list(map(int, alleles))))
    return [site for at, site in found.items() if at >= 0]


def read_spans(path: Path) -> Any:
    """Exons of all transcripts, and the ends of the coding parts."""
    return [
        (t.contig, t.strand, sorted(map(tuple, t.exons.tolist())), t.coding_bp) for t in read_annotation(path)
    ]


def spans_are_of_the_file(found: list, data: bytes) -> bool:
    """Whether every coordinate of the transcripts is in the file."""
    numbers = {int(text) for text in re.findall("[0-9]{1,18}", unpacked(data))}
    for _, strand, exons, coding in found:
        starts = {s for s, _ in exons} | ({coding[0]} if coding else set())
        ends = {e for _, e in exons} | ({coding[1]} if coding else set())
        if strand not in "+-" or not ends <= numbers or not all({s, s + 1} & numbers for s in starts):
            return False
    return True


def read_settings(path: Path) -> Any:
    return load_finetune_config(path).to_dict()


def plain_settings(data: bytes) -> Any:
    tree = tomllib.loads(re.sub("\r\n?", "\n", unpacked(data)))
    return {
        f"{s}.{k}": v for s, section in tree.items() if isinstance(section, dict) for k, v in section.items()
    }


def settings_agree(found: dict, data: bytes) -> bool:
    def same(mine: Any, theirs: Any) -> bool:
        if isinstance(theirs, list):
            return len(mine) == len(theirs) and all(map(same, mine, theirs))
        if isinstance(mine, float):
            return mine == float(theirs)
        return mine == theirs or mine == str(theirs) or (isinstance(mine, str) and mine.endswith(str(theirs)))

    def value(key: str) -> Any:
        section, name = key.split(".", 1)
        return found[section][name]

    return all(same(value(key), theirs) for key, theirs in plain_settings(data).items())


@dataclass(frozen=True)
class Format:
    """read: the package's reader. agrees(its result, the file's bytes): whether a simple second reader gives
    the same."""

    name: str
    text: str
    separators: str
    read: Callable[[Path], Any]
    agrees: Callable[[Any, bytes], bool]


def same_as(plain: Callable[[bytes], Any]) -> Callable[[Any, bytes], bool]:
    def agrees(found: Any, data: bytes) -> bool:
        wanted = plain(data)
        return wanted is None or found == wanted

    return agrees


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">chr20\n{BASES}\n")
    with Genome.open(path) as opened:
        yield opened


FORMATS = (
    Format("x.csv", TABLE, ",", lambda p: read_rows(read_table, p), same_as(plain_table)),
    Format("x.tsv", TABLE.replace(",", "\t"), "\t", lambda p: read_rows(read_table, p),
           same_as(lambda data: plain_table(data, "\t"))),
    Format("x.fa", FASTA, " =", lambda p: read_rows(read_labelled_fasta, p), same_as(plain_fasta)),
    Format("x.vcf", VCF, "\t:|", read_alleles, same_as(plain_vcf)),
    Format("x.haps", HAPS, " ", read_alleles, same_as(plain_haps)),
    Format("x.gtf", GTF, '\t; "', read_spans, spans_are_of_the_file),
    Format("x.gff3", GFF3, "\t;=", read_spans, spans_are_of_the_file),
    Format("refGene.txt", REFGENE, "\t,", read_spans, spans_are_of_the_file),
    Format("x.toml", TOML, "= ,", read_settings, settings_agree),
)  # fmt: skip

COUNTS = [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]


def outcome(read: Callable, path: Path) -> tuple[Any, Exception | None]:
    try:
        return read(path), None
    except Exception as error:  # noqa: BLE001 whatever comes out is judged by the caller
        return None, error


def run(
    chance: random.Random,
    path: Path,
    mutants: Callable[[], bytes],
    count: int,
    read: Callable,
    agrees: Callable,
) -> None:
    refused = 0
    for _ in range(count):
        data = mutants()
        put(path, data)
        began = time.process_time()
        found, error = outcome(read, path)
        if error is None:
            assert agrees(found, data), (found, data)
        else:
            said = f"{type(error).__name__}: {error}"
            assert isinstance(error, ValueError), (said, data)
            assert not isinstance(error, UnicodeError), (said, data)
            assert str(path.parent) in said, (said, data)
            refused += 1
        assert time.process_time() - began < LONGEST_S, data
    assert count * 0.05 < refused < count * 0.995  # the harm reaches both outcomes


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_harmed_text(tmp_path, caplog, kind, count):
    caplog.set_level(logging.CRITICAL)
    chance = random.Random(kind.name)
    run(
        chance,
        tmp_path / kind.name,
        lambda: harmed_text(chance, kind.text, kind.separators),
        count,
        kind.read,
        kind.agrees,
    )


@pytest.mark.parametrize("count", COUNTS)
def test_harmed_bed(tmp_path, caplog, genome, count):
    caplog.set_level(logging.CRITICAL)
    chance = random.Random(8)
    read = lambda path: read_rows(read_bed, path, genome=genome)  # noqa: E731
    run(chance, tmp_path / "x.bed", lambda: harmed_text(chance, BED, "\t"), count, read, same_as(plain_bed))


def header_harmed(chance: random.Random, data: bytes) -> bytes:
    """A damaged JSON header of a safetensors file, mostly with the right length."""
    size = int.from_bytes(data[:8], "little")
    header = (
        harmed(chance, data[8 : 8 + size]) if chance.randrange(2) else json_harmed(chance, data[8 : 8 + size])
    )
    length = len(header) if chance.randrange(8) else chance.choice([0, 1, size, 2**31, 2**63, len(data)])
    return length.to_bytes(8, "little") + header + data[8 + size :]


def json_harmed(chance: random.Random, data: bytes) -> bytes:
    """One value somewhere in a JSON text replaced, dropped or moved to another key."""
    tree = json.loads(data)
    node, key = tree, chance.choice(list(tree))
    while isinstance(node[key], dict | list) and len(node[key]) and chance.randrange(4):
        node = node[key]
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
    wrong = [
        None,
        True,
        -1,
        0,
        1,
        2.5,
        10**7,
        2**63,
        10**40,
        "x",
        "",
        [],
        {},
        [1],
        {"a": 1},
        "F32",
        "F64",
        [0, 2**62],
        float("nan"),
    ]
    if isinstance(node, dict) and chance.randrange(4) == 0:
        value = node.pop(key)
        if chance.randrange(2):
            node[key + "x"] = value
    else:
        node[key] = chance.choice(wrong)
    return json.dumps(tree).encode()


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    vocabulary = Vocabulary(2)
    shape = dataclasses.replace(
        preset("dna_gpt0.1b_m", len(vocabulary)), max_len=16, num_layers=1, num_heads=2, embedding_dim=8
    )
    model = DNAGPT.from_config(shape)
    folder = tmp_path_factory.mktemp("model")
    for name, form in (("m.safetensors", "safetensors"), ("folder", "folder")):
        save_model(model, KmerTokenizer(vocabulary.k), folder / name, form)
    return model, folder


@pytest.mark.parametrize("count", COUNTS)
def test_harmed_safetensors(tmp_path, small_model, count):
    model, folder = small_model
    data = (folder / "m.safetensors").read_bytes()
    chance = random.Random(3)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def agrees(found: Any, _: bytes) -> bool:
        return {name: tensor.shape for name, tensor in found[0].state_dict().items()} == shapes

    run(chance, tmp_path / "m.safetensors", lambda: header_harmed(chance, data), count, load_model, agrees)


@pytest.mark.parametrize("count", COUNTS)
def test_harmed_config(tmp_path, small_model, count):
    model, folder = small_model
    data = (folder / "folder" / "config.json").read_bytes()
    (tmp_path / "model.safetensors").write_bytes((folder / "folder" / "model.safetensors").read_bytes())
    chance = random.Random(4)
    mutants = lambda: (json_harmed if chance.randrange(2) else harmed)(chance, data)  # noqa: E731

    def agrees(found: Any, _: bytes) -> bool:
        mine, theirs = found[0].state_dict(), model.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    read = lambda path: load_model(path.parent)  # noqa: E731
    run(chance, tmp_path / "config.json", mutants, count, read, agrees)


def test_the_long_corpus_has_100_000_files():
    assert LONG * (len(FORMATS) + 3) >= 100_000


def test_seeds_are_sound(tmp_path, genome):
    """Undamaged texts are read, and the simple readers agree."""
    for kind in FORMATS:
        path = tmp_path / kind.name
        path.write_text(kind.text)
        found = kind.read(path)
        assert len(found) >= 3
        assert kind.agrees(found, kind.text.encode()), kind.name
    assert np.array_equal([at for at, *_ in read_alleles(tmp_path / "x.haps")], range(9, 39, 5))
