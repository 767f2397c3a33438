"""Settings of labelled data and of its split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledDataSettings:
    """Labelled sequences.

    path              .csv .tsv .txt .parquet (a table), .fa .fasta .fna (labels in the header), .bed (with
                      `genome`), all except parquet also .gz; for generation also .vcf .vcf.gz .bcf .haps(.gz); for
                      tagging .gff3 .gff .gtf .bed of features (with `genome`)
    genome            .2bit or FASTA, for positions in the data
    sequence_column   column of a table
    label_column      column of a table, or key in the header of a FASTA record
    label_pattern     regular expression whose first group is the label, for headers of FASTA records
    number_columns    columns of side inputs of a regression
    split_column      column with train, validation or test
    on_lower_case     upper: soft-masked bases are read as bases; error
    on_n              rows with more than max_n_share N: error, drop or keep
    max_n_share       share of unknown bases in a row that is always allowed
    on_long           sequences that do not fit the model: error, crop_end, crop_start, crop_both or window
    region            contig or contig:start-end, for haplotypes and tagging
    min_allele_count  haplotypes: variants with fewer copies of either allele are left out
    max_sites         haplotypes: the most variants, taken from the start; 0: all
    window_bp         tagging: bases of a window; 0: the longest window of the model
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
    """Training, validation and test rows. Haplotypes are always split at random by person.

    kind           column (of the table), block (of the chromosomes) or random
    shares         of training, validation and test rows
    block_bp       bases of a block
    drop_overlaps  training windows that overlap a window of another set are left out
    drop_copies    near copies of a row of another set are left out
    held_out       ranges, contig:start_bp-end_bp, which the start model's training left out; with kind = block,
                   validation and test windows are inside them
    seed           of what is drawn
    """

    kind: str = "column"
    shares: tuple[float, ...] = (0.7, 0.1, 0.2)
    block_bp: int = 1_000_000
    drop_overlaps: bool = True
    drop_copies: bool = False
    held_out: tuple[str, ...] = ()
    seed: int = 0
