"""Reads phased haplotypes into a matrix of alleles, which becomes texts for the model."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.variants import PhaseSets, alleles_of, read_variants
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import contig_key, parse_range
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
    skipped            number of variants left out, by reason
    """

    path: Path
    contig: str
    alleles: np.ndarray
    position_bp: np.ndarray
    reference: np.ndarray
    alternative: np.ndarray
    names: list[str]
    skipped: dict[str, int]

    def take(self, index: np.ndarray) -> "HaplotypePanel":
        """The haplotypes with these row numbers."""
        return replace(self, alleles=self.alleles[index], names=[self.names[i] for i in index])

    def texts(self) -> list[str]:
        """The letters of each haplotype at the S variants."""
        letters = np.where(self.alleles == 1, self.alternative, self.reference).astype(np.uint8)
        return [row.tobytes().decode("ascii") for row in letters]

    def alleles_of(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """The inverse of `texts`: (alleles uint8 (n, S), count of letters that are neither allele).

        Letters that are neither allele, and missing letters at the end of a text, become the reference allele
        and are counted.
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
    """A phased panel from VCF, BCF or .haps, plain or compressed.

    genome            every REF is compared with it
    region            `contig:start_bp-end_bp` (0-based, half-open) or a contig; needed if the file has
                      several contigs
    min_allele_count  variants with fewer copies of either allele are skipped
    max_sites         the most variants, taken from the start; 0: all
    Only biallelic SNPs are used; the others are counted in `skipped` and in one warning. Letters may have
    either case. Raises LabelError that names file and line for an unphased heterozygous or missing genotype,
    phase sets that are not linked, positions out of order, and a REF that contradicts the genome.
    """
    path = Path(path)
    contig, start_bp, end_bp = parse_range(region, "data.region")
    end_bp = 1 << 62 if end_bp is None else end_bp
    names, rows = read_variants(path)
    skipped: Counter[str] = Counter()
    kept: list[tuple[int, int, int, np.ndarray]] = []
    phase_sets = PhaseSets(names)
    last_bp, seen_contig = -1, ""
    for row in rows:
        if contig and contig_key(row.contig) != contig_key(contig):
            continue
        if seen_contig and contig_key(row.contig) != contig_key(seen_contig):
            raise LabelError(
                f"{row.where}: contig {row.contig!r} after {seen_contig!r}: choose one with data.region"
            )
        seen_contig = row.contig
        if row.position_bp < last_bp:
            raise LabelError(
                f"{row.where}: position {row.position_bp + 1} after {last_bp + 1}: the file is not sorted; "
                f"`bcftools sort` it"
            )
        same_place, last_bp = row.position_bp == last_bp, row.position_bp
        if row.position_bp < 0:
            skipped["position 0, before the first base"] += 1
            continue
        if not start_bp <= row.position_bp < end_bp:
            continue
        if genome is not None:
            _check_reference(genome, row.contig, row.position_bp, row.reference, row.where)
        if len(row.alternatives) != 1:
            skipped["not biallelic"] += 1
        elif not {row.reference, row.alternatives[0]} <= _BASES:
            skipped["not a SNP"] += 1
        elif same_place and kept and kept[-1][0] == row.position_bp:
            skipped["second variant of one position"] += 1
        else:
            values = alleles_of(row, names)
            count = int(values.sum())
            if min(count, len(values) - count) < min_allele_count:
                skipped[f"an allele seen fewer than {min_allele_count} time(s)"] += 1
                continue
            phase_sets.check(row, values)
            kept.append((row.position_bp, ord(row.reference), ord(row.alternatives[0]), values))
            if max_sites and len(kept) == max_sites:
                break
    if contig and not seen_contig:
        raise LabelError(
            f"{path}: no variant on the contig of data.region = {region!r}: wanted contig or contig:start_bp-end_bp, "
            f"0-based and half-open"
        )
    if not kept:
        raise LabelError(f"{path}: no usable variants{f' in {region}' if region else ''}: {dict(skipped)}")
    if skipped:
        reasons = "; ".join(f"{count} ({reason})" for reason, count in skipped.items())
        logger.warning("%s: variants left out: %s", path, reasons)
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


def _check_reference(genome: Genome, contig: str, position_bp: int, reference: str, where: str) -> None:
    place = genome.contigs.find(contig, where)
    there = genome.other_bases_at(place, position_bp, reference)
    if there is not None:
        has = there or "the contig's end"
        raise LabelError(
            f"{where}: REF is {reference!r}, {genome.path} has {has!r} at "
            f"{genome.names[place]}:{position_bp + 1}: the VCF was made on another assembly; give its genome"
        )


def write_haps(path: Path, panel: HaplotypePanel, alleles: np.ndarray) -> None:
    """Haplotypes at the panel's variants in the .haps format."""
    with TextFile(path) as file:
        for s, position_bp in enumerate(panel.position_bp.tolist()):
            values = " ".join(map(str, alleles[:, s].tolist()))
            letters = f"{chr(panel.reference[s])} {chr(panel.alternative[s])}"
            file.write(
                f"{panel.contig} {panel.contig}:{position_bp + 1} {position_bp + 1} {letters} {values}"
            )
