"""Phased haplotypes from VCF/BCF (by pysam) or .haps, as a matrix of alleles and as texts for the model.

.haps: the format of SHAPEIT and Eagle, a line per variant: contig, id, position (1-based), allele 0, allele 1, then one
0 or 1 for each haplotype.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pysam

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.tables import open_text
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import find_contig
from dnagpt_fast.output_files import TextFile

logger = logging.getLogger(__name__)

_BASES = frozenset("ACGT")


@dataclass(frozen=True)
class HaplotypePanel:
    """H haplotypes at S biallelic SNPs of one contig.

    alleles            uint8 (H, S): 0 reference, 1 alternative
    position_bp        int64 (S,), ascending, 0-based
    reference, alternative   uint8 (S,): the letters, as ASCII
    names              H names; the two haplotypes of a person are neighbours, `HG00096_1`, `HG00096_2`
    skipped            variants left out, by reason
    """

    path: Path
    contig: str
    alleles: np.ndarray
    position_bp: np.ndarray
    reference: np.ndarray
    alternative: np.ndarray
    names: list[str]
    skipped: dict[str, int]

    def take_sites(self, index: np.ndarray) -> "HaplotypePanel":
        return replace(
            self,
            alleles=self.alleles[:, index],
            position_bp=self.position_bp[index],
            reference=self.reference[index],
            alternative=self.alternative[index],
        )

    def take(self, index: np.ndarray) -> "HaplotypePanel":
        """The haplotypes at these places."""
        return replace(self, alleles=self.alleles[index], names=[self.names[i] for i in index])

    def texts(self) -> list[str]:
        """Each haplotype as the letters it carries at the S variants."""
        letters = np.where(self.alleles == 1, self.alternative, self.reference).astype(np.uint8)
        return [row.tobytes().decode("ascii") for row in letters]

    def alleles_of(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """(alleles uint8 (n, S), count of letters that are neither allele): the way back from texts.

        A letter that is neither allele, and a text's missing end, becomes the reference allele and is counted.
        """
        alleles = np.zeros((len(texts), len(self.position_bp)), np.uint8)
        foreign = 0
        for row, text in zip(alleles, texts, strict=True):
            letters = np.zeros(len(row), np.uint8)
            known = np.frombuffer(text.encode("ascii", "replace"), np.uint8)[: len(row)]
            letters[: len(known)] = known
            row[:] = letters == self.alternative
            foreign += int(((letters != self.alternative) & (letters != self.reference)).sum())
        return alleles, foreign


def read_haplotypes(
    path: str | Path,
    *,
    genome: Genome | None = None,
    region: str = "",
    min_allele_count: int = 1,
    max_sites: int = 0,
) -> HaplotypePanel:
    """A phased panel from .vcf, .vcf.gz, .bcf or .haps(.gz).

    genome            every REF is held against it
    region            `contig:start_bp-end_bp` (0-based, half-open) or a contig; needed where the file has several
    min_allele_count  rarer variants are skipped (of either allele)
    max_sites         the first so many variants that are left; 0: all
    Only biallelic SNPs are taken; the rest is counted in `skipped` and told in one warning. Raises LabelError for an
    unphased or missing genotype, positions out of order, a REF that contradicts the genome, naming file and line.
    """
    path = Path(path)
    contig, start_bp, end_bp = parse_region(region)
    name = path.name.removesuffix(".gz")
    rows = _haps_rows(path) if name.endswith(".haps") else _variant_rows(path)
    names = next(rows)[1]
    skipped: Counter[str] = Counter()
    kept: list[tuple[int, int, int, np.ndarray]] = []
    last_bp, seen_contig = -1, contig
    for where, (row_contig, position_bp, reference, alternatives, alleles) in rows:
        if contig and row_contig != contig:
            continue
        if seen_contig and row_contig != seen_contig:
            raise LabelError(
                f"{where}: contig {row_contig!r} after {seen_contig!r}: choose one by data.region"
            )
        seen_contig = row_contig
        if position_bp < last_bp:
            raise LabelError(
                f"{where}: position {position_bp + 1} after {last_bp + 1}: the file is not sorted; `bcftools sort` it"
            )
        same_place, last_bp = position_bp == last_bp, position_bp
        if not start_bp <= position_bp < end_bp:
            continue
        if genome is not None:
            _check_reference(genome, row_contig, position_bp, reference, where)
        if len(alternatives) != 1:
            skipped["not biallelic"] += 1
        elif not {reference, alternatives[0]} <= _BASES:
            skipped["not a SNP"] += 1
        elif same_place and kept and kept[-1][0] == position_bp:
            skipped["second variant of one position"] += 1
        else:
            values = alleles() if callable(alleles) else alleles
            count = int(values.sum())
            if min(count, len(values) - count) < min_allele_count:
                skipped[f"an allele seen fewer than {min_allele_count} time(s)"] += 1
                continue
            kept.append((position_bp, ord(reference), ord(alternatives[0]), values))
            if max_sites and len(kept) == max_sites:
                break
    if not kept:
        raise LabelError(f"{path}: no usable variants{f' in {region}' if region else ''}: {dict(skipped)}")
    if skipped:
        told = "; ".join(f"{count} ({reason})" for reason, count in skipped.items())
        logger.warning("%s: variants left out: %s", path, told)
    return HaplotypePanel(
        path=path,
        contig=seen_contig,
        alleles=np.stack([k[3] for k in kept], axis=1),
        position_bp=np.array([k[0] for k in kept], np.int64),
        reference=np.array([k[1] for k in kept], np.uint8),
        alternative=np.array([k[2] for k in kept], np.uint8),
        names=names,
        skipped=dict(skipped),
    )


def parse_region(region: str) -> tuple[str, int, int]:
    """`20:1000-2000` -> ("20", 1000, 2000); `20` the whole contig; empty: anything. Raises LabelError."""
    contig, colon, span = region.partition(":")
    if not colon:
        return contig, 0, 1 << 62
    start, _, end = span.replace(",", "").partition("-")
    if not (start.isdigit() and end.isdigit() and int(start) < int(end)):
        raise LabelError(f"region {region!r}: wanted contig:start_bp-end_bp, 0-based and half-open")
    return contig, int(start), int(end)


def _check_reference(genome: Genome, contig: str, position_bp: int, reference: str, where: str) -> None:
    name = find_contig(genome, contig, where)
    end_bp = position_bp + len(reference)
    length = int(genome.lengths[genome.names.index(name)])
    there = genome.sequence(name, position_bp, end_bp) if end_bp <= length else "the contig's end"
    if there != reference.upper():
        raise LabelError(
            f"{where}: REF is {reference!r}, {genome.path} has {there!r} at {name}:{position_bp + 1}: the VCF was made "
            f"on another assembly; give its genome"
        )


def _variant_rows(path: Path) -> Iterator[tuple]:
    """First ("", names), then (where, (contig, position_bp, REF, ALTs, function that gives the alleles))."""
    # htslib calls a missing index an error; reading from the start on needs none
    loudness = pysam.set_verbosity(0)
    try:
        file = pysam.VariantFile(str(path))
    except NotImplementedError:
        raise LabelError(
            f"{path} is compressed by gzip: VCF wants BGZF; `gunzip` it, then `bgzip` it"
        ) from None
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} cannot be read as VCF or BCF: {error}") from error
    finally:
        pysam.set_verbosity(loudness)
    with file:
        samples = list(file.header.samples)
        if not samples:
            raise LabelError(f"{path}: no samples in it, so no haplotypes")
        line = str(file.header).count("\n")
        # pysam completes the header it holds (a FILTER=PASS line), so lines are counted in the file where it is text
        if not path.name.endswith((".bcf", ".bcf.gz")):
            with open_text(path) as text:
                line = next((i for i, row in enumerate(text) if not row.startswith("#")), line)
        yield "", [f"{name}_{i}" for name in samples for i in (1, 2)]
        while True:
            line += 1
            try:
                record = next(file, None)
            except (OSError, ValueError) as error:
                raise LabelError(f"{path}:{line}: {error}: mend the line, or remove it") from error
            if record is None:
                return
            where = f"{path}:{line}"
            genotypes = str(record).rstrip("\n").split("\t")[8:]
            yield (
                where,
                (
                    record.contig,
                    record.start,
                    record.ref,
                    record.alts or (),
                    lambda genotypes=genotypes, where=where: _alleles(genotypes, samples, where),
                ),
            )


def _alleles(fields: list[str], samples: list[str], where: str) -> np.ndarray:
    """uint8 (2 * samples,) from the FORMAT field and the genotype fields of a VCF line."""
    keys = fields[0].split(":")
    if "GT" not in keys:
        raise LabelError(f"{where}: FORMAT is {fields[0]!r}: no genotypes (GT)")
    at = keys.index("GT")
    out = np.empty(2 * len(samples), np.uint8)
    for i, text in enumerate(fields[1:]):
        genotype = text.split(":")[at]
        if len(genotype) != 3 or genotype[1] != "|" or genotype[0] not in "01" or genotype[2] not in "01":
            problem = (
                "is missing: impute it, or remove the variant"
                if "." in genotype
                else "is not phased: phase it (SHAPEIT, Eagle, Beagle)"
                if "/" in genotype
                else "is not diploid: choose a region where everyone has two haplotypes"
            )
            raise LabelError(f"{where}: genotype {genotype!r} of {samples[i]} {problem}")
        out[2 * i] = genotype[0] == "1"
        out[2 * i + 1] = genotype[2] == "1"
    return out


def _haps_rows(path: Path) -> Iterator[tuple]:
    with open_text(path) as file:
        width = 0
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            fields = line.split()
            if len(fields) < 7 or len(fields) % 2 == 0 or (width and len(fields) != width):
                raise LabelError(
                    f"{where}: {len(fields)} fields: wanted {width or '5 and an even number of haplotypes'}"
                )
            if not width:
                width = len(fields)
                yield "", [f"person{i}_{j}" for i in range((width - 5) // 2) for j in (1, 2)]
            if not fields[2].isdigit():
                raise LabelError(f"{where}: position {fields[2]!r}: wanted an integer")
            strange = set(fields[5:]) - {"0", "1"}
            if strange:
                raise LabelError(
                    f"{where}: allele {sorted(strange)[0]!r}: wanted 0 or 1, phased and without gaps"
                )
            alleles = np.array(fields[5:], np.uint8)
            yield where, (fields[0], int(fields[2]) - 1, fields[3], (fields[4],), alleles)
        if not width:
            raise LabelError(f"{path}: the file is empty")


def write_haps(path: Path, panel: HaplotypePanel, alleles: np.ndarray) -> None:
    """Haplotypes at the panel's variants in the .haps format."""
    with TextFile(path) as file:
        for s, position_bp in enumerate(panel.position_bp.tolist()):
            values = " ".join(map(str, alleles[:, s].tolist()))
            letters = f"{chr(panel.reference[s])} {chr(panel.alternative[s])}"
            file.write(
                f"{panel.contig} {panel.contig}:{position_bp + 1} {position_bp + 1} {letters} {values}"
            )
