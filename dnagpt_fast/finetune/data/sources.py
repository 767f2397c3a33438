"""Reads the labelled sequences of a run with the reader for the file's suffix."""

from collections.abc import Sequence
from pathlib import Path

from dnagpt_fast.finetune.data.examples import Examples, LabelError, filter_n
from dnagpt_fast.finetune.data.haplotypes import HaplotypePanel, read_haplotypes
from dnagpt_fast.finetune.data.sequence_files import read_bed, read_labelled_fasta
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.finetune.data.token_tags import FeatureTags, read_features, tagged_examples
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import check_file, inner_suffix

TABLES = (".csv", ".tsv", ".txt", ".parquet")
FASTA = (".fa", ".fasta", ".fna", ".fas", ".ffn")
HAPLOTYPES = (".vcf", ".bcf", ".haps")
FEATURES = (".gff3", ".gff", ".gtf")


def kind_of(path: Path) -> str:
    """table, fasta, bed, haplotypes or features, by suffix. Raises LabelError for another suffix."""
    suffix = inner_suffix(path)
    for kind, suffixes in (
        ("table", TABLES),
        ("fasta", FASTA),
        ("bed", (".bed",)),
        ("haplotypes", HAPLOTYPES),
        ("features", FEATURES),
    ):
        if suffix in suffixes:
            return kind
    known = ", ".join((*TABLES, *FASTA, ".bed", *HAPLOTYPES, *FEATURES))
    raise LabelError(f"{path}: unknown kind of file ({suffix or 'no suffix'}): wanted {known}")


def read_examples(settings: LabelledDataSettings, *, labelled: bool = True) -> Examples:
    """The labelled sequences of data.path; data.on_n decides about sequences with many N.

    Raises LabelError, FileNotFoundError.
    """
    path = Path(settings.path)
    kind = kind_of(path)
    check_file(path)
    if kind == "haplotypes":
        raise LabelError(f"{path}: haplotypes have no labels: they are for task.kind = 'generation'")
    if kind == "features":
        raise LabelError(
            f"{path}: features of a genome are for training with task.kind = 'tagging'; wanted sequences: a table, "
            f"FASTA or BED. For a table of sites from an annotation use `dnagpt-fast make-task`"
        )
    if kind == "bed":
        if not settings.genome:
            raise LabelError(f"{path}: intervals need their genome: set data.genome")
        with Genome.open(settings.genome) as genome:
            found = read_bed(
                path, genome, label_column=settings.label_column, labelled=labelled,
                number_columns=settings.number_columns, split_column=settings.split_column,
            )  # fmt: skip
    elif kind == "fasta":
        found = read_labelled_fasta(
            path, label_column=settings.label_column, label_pattern=settings.label_pattern,
            number_columns=settings.number_columns, split_column=settings.split_column,
            on_lower_case=settings.on_lower_case, labelled=labelled,
        )  # fmt: skip
    else:
        found = read_table(
            path, sequence_column=settings.sequence_column, label_column=settings.label_column,
            number_columns=settings.number_columns, split_column=settings.split_column,
            on_lower_case=settings.on_lower_case, labelled=labelled,
        )  # fmt: skip
    return filter_n(found, settings.max_n_share, settings.on_n)


def read_tagged(settings: LabelledDataSettings, kinds: Sequence[str], *, k: int, longest_bp: int) -> Examples:
    """Windows of data.genome with the features of data.path as tags; data.on_n decides about windows with
    many N.

    kinds       as in `FeatureTags`; empty: the one kind of the file
    longest_bp  what the model takes: the length of a window unless data.window_bp says another

    Raises LabelError, RegionError, FileNotFoundError.
    """
    path = Path(settings.path)
    if kind_of(path) not in ("features", "bed"):
        raise LabelError(f"{path}: tagging needs features: wanted a file {', '.join((*FEATURES, '.bed'))}")
    check_file(path)
    if not settings.genome:
        raise LabelError(f"{path}: features need their genome: set data.genome")
    longest_bp = longest_bp // k * k
    window_bp = settings.window_bp or longest_bp
    if window_bp % k or not 0 < window_bp <= longest_bp:
        raise LabelError(
            f"data.window_bp = {settings.window_bp}: wanted a multiple of {k}, the length of a k-mer, up to "
            f"{longest_bp:,}, the limit of this model"
        )
    features = read_features(path)
    there = sorted({feature.kind for feature in features})
    if not kinds and len(there) > 1:
        raise LabelError(
            f"{path} has features of {len(there)} kinds ({', '.join(there[:20])}): name the kinds to tag in "
            f"task.classes; where they overlap, the first named kind counts"
        )
    unknown = [kind for kind in kinds if kind not in there]
    if unknown:
        raise LabelError(f"{path} has no feature {unknown[0]!r}; there are {', '.join(there[:20])}")
    with Genome.open(settings.genome) as genome:
        tags = FeatureTags(genome, features, kinds or there)
        found = tagged_examples(path, genome, tags, window_bp=window_bp, k=k, region=settings.region)
    return filter_n(found, settings.max_n_share, settings.on_n)


def read_panel(settings: LabelledDataSettings) -> HaplotypePanel:
    """The haplotypes of data.path, compared with data.genome if it is given. Raises LabelError,
    FileNotFoundError."""
    path = Path(settings.path)
    check_file(path)
    genome = Genome.open(settings.genome) if settings.genome else None
    try:
        return read_haplotypes(
            path,
            genome=genome,
            region=settings.region,
            min_allele_count=settings.min_allele_count,
            max_sites=settings.max_sites,
        )
    finally:
        if genome is not None:
            genome.close()
