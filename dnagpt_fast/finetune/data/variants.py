"""Reads the variants of a VCF, BCF or .haps file one at a time.

VCF: https://samtools.github.io/hts-specs/VCFv4.5.pdf; pysam converts BCF to VCF lines.
.haps: the format of SHAPEIT and Eagle, a line per variant: contig, id, position (1-based), allele 0, allele 1, then one
0 or 1 for each haplotype.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.input_files import inner_suffix, is_bcf, parse_integer, readable, text_lines

_VCF_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
# VCF 4.4 also allows the phase before the first allele.
_GENOTYPE = re.compile(r"[|/]?([01])([|/])([01])")


@dataclass(frozen=True)
class Variant:
    """One variant. position_bp is 0-based, letters are upper case.

    genotypes   VCF: FORMAT and the samples' fields; .haps: uint8 (H,) alleles
    """

    where: str
    contig: str
    position_bp: int
    reference: str
    alternatives: tuple[str, ...]
    genotypes: list[str] | np.ndarray


def read_variants(path: Path) -> tuple[list[str], Iterator[Variant]]:
    """The names of the haplotypes, two per person, and the variants in file order.

    Raises InputFileError (LabelError for a line) that names file and line, at once or while the variants are
    read.
    """
    if inner_suffix(path) == ".haps":
        return _haps(path)
    return _vcf(path, _bcf_lines(path) if is_bcf(path) else text_lines(path))


def _vcf(path: Path, lines: Iterable[tuple[int, str]]) -> tuple[list[str], Iterator[Variant]]:
    lines = iter(lines)
    for number, line in lines:
        if line.startswith("##") or not line.strip():
            continue
        samples = _samples(line.rstrip("\r\n").split("\t"), f"{path}:{number}")
        return [f"{name}_{i}" for name in samples for i in (1, 2)], _vcf_rows(path, lines, len(samples))
    raise LabelError(f"{path}: no line '#CHROM POS ID ...' in it: this is not a VCF file")


def _samples(fields: list[str], where: str) -> list[str]:
    if tuple(fields[:8]) != _VCF_COLUMNS[:8]:
        raise LabelError(
            f"{where}: {' '.join(fields)[:40]!r}: wanted the line '#CHROM POS ID ...', separated by tabs, before "
            f"the first variant"
        )
    samples = [readable(name, where, "sample") for name in fields[9:]]
    if not samples:
        raise LabelError(f"{where}: no samples in it, so no haplotypes")
    if len(set(samples)) != len(samples):
        twice = sorted(name for name in set(samples) if samples.count(name) > 1)
        raise LabelError(f"{where}: sample {twice[0]!r} appears twice")
    return samples


def _vcf_rows(path: Path, lines: Iterable[tuple[int, str]], samples: int) -> Iterator[Variant]:
    for number, line in lines:
        if line.startswith("#") or not line.strip():
            continue
        where = f"{path}:{number}"
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 9 + samples:
            raise LabelError(
                f"{where}: {len(fields)} tab-separated fields: wanted {9 + samples}, as the line #CHROM has"
            )
        yield Variant(
            where,
            readable(fields[0], where, "contig"),
            _position(fields[1], where),
            fields[3].upper(),
            () if fields[4] == "." else tuple(fields[4].upper().split(",")),
            fields[8:],
        )


def _position(text: str, where: str) -> int:
    """The 0-based position; VCF's 0, the telomere before the first base, becomes -1."""
    position = parse_integer(text, where, "position")
    if position < 0:
        raise LabelError(f"{where}: position {position}: wanted 0 or more")
    return position - 1


def _bcf_lines(path: Path) -> Iterator[tuple[int, str]]:
    """BCF as numbered VCF lines."""
    import pysam  # imported late, because most runs read tables

    # htslib reports a missing index as an error, but reading from the start needs none
    loudness = pysam.set_verbosity(0)
    try:
        file = pysam.VariantFile(str(path))
    except (OSError, ValueError, NotImplementedError) as error:
        raise LabelError(f"{path} cannot be read as BCF: {error}") from error
    finally:
        pysam.set_verbosity(loudness)
    with file:
        header = str(file.header).splitlines(keepends=True)
        yield from enumerate(header, 1)
        number = len(header)
        while True:
            number += 1
            try:
                record = next(file, None)
                if record is None:
                    return
                line = str(record)
            except (OSError, ValueError) as error:
                raise LabelError(f"{path}: record {number - len(header)}: {error}") from error
            yield number, line


def _haps(path: Path) -> tuple[list[str], Iterator[Variant]]:
    lines = ((f"{path}:{number}", fields) for number, line in text_lines(path) if (fields := line.split()))
    first = next(lines, None)
    if first is None:
        raise LabelError(f"{path}: the file is empty")
    width = len(first[1])
    names = [f"person{i}_{j}" for i in range((width - 5) // 2) for j in (1, 2)]
    return names, _haps_rows(chain([first], lines), width)


def _haps_rows(lines: Iterable[tuple[str, list[str]]], width: int) -> Iterator[Variant]:
    for where, fields in lines:
        if len(fields) != width or width < 7 or width % 2 == 0:
            wanted = width if width >= 7 and width % 2 else "5 and an even number of haplotypes"
            raise LabelError(f"{where}: {len(fields)} fields: wanted {wanted}")
        strange = set(fields[5:]) - {"0", "1"}
        if strange:
            raise LabelError(
                f"{where}: allele {sorted(strange)[0]!r}: wanted 0 or 1, phased and without gaps"
            )
        position_bp = _position(fields[2], where)
        contig = readable(fields[0], where, "contig")
        alleles = np.array(fields[5:], np.uint8)
        yield Variant(where, contig, position_bp, fields[3].upper(), (fields[4].upper(),), alleles)


def alleles_of(variant: Variant, names: Sequence[str]) -> np.ndarray:
    """uint8 (H,): the haplotypes' alleles. Raises LabelError for a genotype without two known, phased alleles.

    A homozygous genotype needs no phase: WhatsHap writes it as 0/0 or 1/1.
    """
    if isinstance(variant.genotypes, np.ndarray):
        return variant.genotypes
    keys = variant.genotypes[0].split(":")
    if "GT" not in keys:
        raise LabelError(f"{variant.where}: FORMAT is {variant.genotypes[0]!r}: no genotypes (GT)")
    at = keys.index("GT")
    out = np.empty(len(names), np.uint8)
    for i, text in enumerate(variant.genotypes[1:]):
        parts = text.split(":")
        genotype = parts[at] if at < len(parts) else "."
        match = _GENOTYPE.fullmatch(genotype)
        if match is None or (match[2] == "/" and match[1] != match[3]):
            problem = (
                "is missing: impute it, or remove the variant"
                if "." in genotype
                else "is not phased: phase it (SHAPEIT, Eagle, Beagle)"
                if "/" in genotype
                else "is not diploid: choose a region where everyone has two haplotypes"
            )
            raise LabelError(f"{variant.where}: genotype {genotype!r} of {_person(names, i)} {problem}")
        out[2 * i], out[2 * i + 1] = match[1] == "1", match[3] == "1"
    return out


def _person(names: Sequence[str], i: int) -> str:
    return names[2 * i].removesuffix("_1")


class PhaseSets:
    """The phase set (PS) of each person's heterozygous genotypes; between two sets the phase is unknown."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._first: dict[int, tuple[str, str]] = {}

    def check(self, variant: Variant, alleles: np.ndarray) -> None:
        """Raises LabelError if a person's heterozygous genotype is in another set than an earlier one."""
        if isinstance(variant.genotypes, np.ndarray):
            return
        keys = variant.genotypes[0].split(":")
        at = keys.index("PS") if "PS" in keys else -1
        for i in np.nonzero(alleles[::2] != alleles[1::2])[0].tolist():
            parts = variant.genotypes[1 + i].split(":") if at >= 0 else []
            mine = parts[at] if 0 <= at < len(parts) else "."
            theirs, where = self._first.setdefault(i, (mine, variant.where))
            if mine != theirs:
                raise LabelError(
                    f"{variant.where}: {_person(self.names, i)} is in phase set {mine} here and {theirs} in "
                    f"{where}: the phase between them is not known; choose a region within one phase set with "
                    f"data.region, or phase the file again (SHAPEIT, Eagle, Beagle)"
                )
