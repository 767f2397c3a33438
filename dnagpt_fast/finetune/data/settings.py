"""Settings of labelled data and of its split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledDataSettings:
    """path: .csv .tsv .txt .parquet (a table), .fa .fasta .fna (labels in the header), .bed (with `genome`),
    all except parquet also .gz; for generation also .vcf .vcf.gz .bcf .haps(.gz); for tagging .gff3 .gff .gtf
    .bed of features (with `genome`).

    on_long: error, crop_end, crop_start, crop_both or window. on_n: error, drop or keep rows above max_n_share.
    region: for haplotypes and tagging. min_allele_count, max_sites: for haplotypes. window_bp: for tagging,
    0: the longest window of the model.
    """

    path: str = ""
    genome: str = ""
    sequence_column: str = "sequence"
    label_column: str = "label"
    label_pattern: str = ""
    number_columns: tuple[str, ...] = ()
    split_column: str = "split"
    on_lower_case: str = "upper"
    on_n: str = "error"
    max_n_share: float = 0.05
    on_long: str = "error"
    region: str = ""
    min_allele_count: int = 1
    max_sites: int = 0
    window_bp: int = 0


@dataclass(frozen=True)
class SplitSettings:
    """kind: column, block or random. Haplotypes are always split at random by person.

    drop_copies: near copies of a row of another set are left out. held_out: ranges, contig:start_bp-end_bp, which the
    start model's training left out; with kind = block, validation and test windows are inside them."""

    kind: str = "column"
    shares: tuple[float, ...] = (0.7, 0.1, 0.2)
    block_bp: int = 1_000_000
    drop_overlaps: bool = True
    drop_copies: bool = False
    held_out: tuple[str, ...] = ()
    seed: int = 0
