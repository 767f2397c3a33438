"""Makes labelled windows around genomic signals (translation starts, poly-A signals, splice sites) and hard
negatives.

A site is a motif at a position on a strand. The transcripts of one gene give each site once. A hard negative
is the same motif at another place.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.annotation import Transcript
from dnagpt_fast.finetune.data.examples import LabelError, Loci
from dnagpt_fast.finetune.data.splits import SPLITS, blocks_to_sets, overlapping, without_copies
from dnagpt_fast.finetune.data.tables import delimiter, write_rows
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.intervals import UnknownBases
from dnagpt_fast.genome.regions import RegionError
from dnagpt_fast.output_files import is_stream, refuse_inputs, whole, write_json
from dnagpt_fast.vocab import reverse_complement

logger = logging.getLogger(__name__)

KINDS = ("tis", "pas", "splice", "splice-donor", "splice-acceptor")
MOTIFS = {"tis": ("ATG",), "pas": ("AATAAA", "ATTAAA"), "donor": ("GT",), "acceptor": ("AG",)}
PAS_REACH_BP = 40  # a poly-A signal is in the last 40 bases of its transcript


@dataclass(frozen=True)
class TaskSettings:
    """Settings of `make-task`.

    window_bp        bases around the motif, half on each side
    keep_motif       False: the motif itself is removed, as for the published signal models
    negatives        hard negatives for each positive
    within_genes     negatives only from annotated transcripts and their strand, which are harder
    max_n_share      windows with more N are left out
    shares, block_bp, held_out   the split by blocks of the chromosome, as in splits.blocks_to_sets
    drop_copies      training and validation windows that are near copies of a later set's are left out
    """

    kind: str
    window_bp: int = 600
    keep_motif: bool = False
    negatives: float = 1.0
    within_genes: bool = False
    max_n_share: float = 0.05
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    block_bp: int = 1_000_000
    seed: int = 0
    held_out: tuple[str, ...] = ()
    drop_copies: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task {self.kind!r}: wanted one of {', '.join(KINDS)}")
        if self.window_bp < 2 or self.window_bp % 2:
            raise ValueError(
                f"window_bp = {self.window_bp}: wanted an even number of bases, half on each side"
            )
        if self.negatives < 0:
            raise ValueError(f"negatives = {self.negatives}: wanted 0 or more for each positive")

    @property
    def signals(self) -> tuple[str, ...]:
        if self.kind == "splice":
            return ("donor", "acceptor")
        return (self.kind.removeprefix("splice-"),)


@dataclass(frozen=True)
class Sites:
    """n sites: contig (index into genome.names), start_bp of the motif on the forward strand (for either
    strand), whether the site is on the reverse strand, motif length, and signal, all (n,)."""

    contig: np.ndarray
    start_bp: np.ndarray
    reverse: np.ndarray
    motif_bp: np.ndarray
    signal: np.ndarray

    def __len__(self) -> int:
        return len(self.contig)

    def take(self, index: np.ndarray) -> "Sites":
        return Sites(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def annotated_sites(
    transcripts: Sequence[Transcript], genome: Genome, kind: str
) -> tuple[Sites, dict[str, int]]:
    """The annotated sites that have the motif, each once; and counts of what was left out, by reason.

    Places without the motif are also counted by position and strand, so both add up to the places of the
    annotation (donors of hg19's chr20: 4,750 + 49 = 4,799). There may be fewer poly-A signals than transcript
    ends that have one: ends within 40 bp share a signal (446 of 451).

    Raises LabelError where the annotation has a contig or a position that the genome does not have.
    """
    settings = TaskSettings(kind)
    contig_of: dict[str, int | None] = {}
    found: dict[tuple[int, int, bool, str], int] = {}
    counts: Counter[str] = Counter()
    without: defaultdict[str, set[tuple[str, int, str]]] = defaultdict(set)
    for transcript in transcripts:
        if transcript.contig not in contig_of:
            contig_of[transcript.contig] = _contig_or_none(genome, transcript)
        contig = contig_of[transcript.contig]
        if contig is None:
            counts["transcripts on contigs that the genome lacks"] += 1
            continue
        length = int(genome.lengths[contig])
        if int(transcript.exons[-1, 1]) > length and transcript.circular_bp != length:
            raise LabelError(
                f"{transcript.where}: {transcript.name} ends at {transcript.exons[-1, 1]:,}, contig "
                f"{genome.names[contig]!r} of {genome.path} at {length:,}: not the same assembly"
            )
        for signal in settings.signals:
            for start_bp, motif in _sites_of(transcript, genome, genome.names[contig], signal, without):
                key = contig, start_bp, transcript.strand == "-", signal
                counts["annotated more than once"] += key in found
                found[key] = len(motif)
    keys = sorted(found)
    sites = Sites(
        np.array([k[0] for k in keys], np.int64),
        np.array([k[1] for k in keys], np.int64),
        np.array([k[2] for k in keys], bool),
        np.array([found[k] for k in keys], np.int64),
        np.array([k[3] for k in keys], dtype=object),
    )
    return sites, {**counts, **{reason: len(places) for reason, places in without.items()}}


def _contig_or_none(genome: Genome, transcript: Transcript) -> int | None:
    # An annotation of a whole genome may be used with one chromosome; no common contig at all is an error
    # later.
    try:
        return genome.contigs.find(transcript.contig, transcript.where)
    except RegionError:
        return None


def _sites_of(
    transcript: Transcript, genome: Genome, contig: str, signal: str, without: defaultdict[str, set]
) -> list[tuple[int, str]]:
    """(start of the motif on the forward strand, motif) of each site that has it; `without` gets the other
    places."""
    forward = transcript.strand == "+"
    length = 2 if signal in ("donor", "acceptor") else 3
    if signal == "tis":
        if transcript.coding_bp is None:
            return []
        if not transcript.start_complete:
            without["start of the coding part unknown"].add(
                (contig, transcript.coding_bp[not forward], transcript.strand)
            )
            return []
        starts = [transcript.coding_bp[0] if forward else transcript.coding_bp[1] - 3]
    elif signal == "pas":
        return _poly_a_signal(transcript, genome, contig, without)
    else:
        left, right = (
            transcript.exons[:-1, 1],
            transcript.exons[1:, 0] - 2,
        )  # of each intron: its first, last 2 bases
        starts = (left if (signal == "donor") == forward else right).tolist()
    sites = []
    for start in starts:
        # a gene over the origin of a circular contig ends past its length
        start = start % transcript.circular_bp if transcript.circular_bp else start
        if transcript.circular_bp and start + length > transcript.circular_bp:
            without["sites over the origin of a circular contig"].add((contig, start, transcript.strand))
            continue
        bases = genome.sequence(contig, start, start + length)
        bases = bases if forward else reverse_complement(bases)
        if bases in MOTIFS[signal]:
            sites.append((start, bases))
        else:
            reason = f"annotated {signal} without {' or '.join(MOTIFS[signal])}"
            without[reason].add((contig, start, transcript.strand))
    return sites


def _poly_a_signal(
    transcript: Transcript, genome: Genome, contig: str, without: defaultdict[str, set]
) -> list[tuple[int, str]]:
    first, last = int(transcript.exons[0, 0]), int(transcript.exons[-1, 1])
    for reason, holds in (
        ("transcripts whose end is unknown", not transcript.end_complete),
        ("transcripts over the origin of a circular contig", 0 < transcript.circular_bp < last),
    ):
        if holds:
            without[reason].add((contig, last if transcript.strand == "+" else first, transcript.strand))
            return []
    if transcript.strand == "+":
        begin = max(last - PAS_REACH_BP, first)
        text = genome.sequence(contig, begin, last)
    else:
        end = min(first + PAS_REACH_BP, last)
        text = reverse_complement(genome.sequence(contig, first, end))
    at, motif = max((text.rfind(motif), motif) for motif in MOTIFS["pas"])  # the one nearest to the end
    if at < 0:
        place = last if transcript.strand == "+" else first
        without["transcript ends without a signal"].add((contig, place, transcript.strand))
        return []
    return [(begin + at if transcript.strand == "+" else end - at - len(motif), motif)]


def motif_places(genome: Genome, contig: int, motif: str) -> tuple[np.ndarray, np.ndarray]:
    """The places of the motif: (start_bp int64 (n,), reverse bool (n,)), starts on the forward strand."""
    bases = np.frombuffer(genome.sequence(genome.names[contig]).encode(), np.uint8)
    places = []
    for text in (motif, reverse_complement(motif)):
        hit = np.ones(max(len(bases) - len(text) + 1, 0), bool)
        for i, letter in enumerate(text.encode()):
            hit &= bases[i : i + len(hit)] == letter
        places.append(np.nonzero(hit)[0])
    return np.concatenate(places), np.repeat([False, True], [len(p) for p in places])


def hard_negatives(
    genome: Genome, transcripts: Sequence[Transcript], positives: Sites, settings: TaskSettings
) -> tuple[Sites, dict[str, int]]:
    """Sites with the same motifs, on either strand, that no annotated transcript uses, drawn with the seed; and the
    number of places of each motif from which they were drawn.

    They come from the contigs that have positives, and the motifs have the proportions of the positives.
    Raises LabelError if the genome has too few.
    """
    rng = np.random.Generator(np.random.Philox(settings.seed))
    drawn: list[Sites] = []
    places: Counter[str] = Counter()
    contigs = np.unique(positives.contig).tolist()
    genes = _gene_spans(genome, transcripts) if settings.within_genes else {}
    for signal in settings.signals:
        used = positives.take(positives.signal == signal)
        motifs = _motif_texts(genome, used)
        for motif in MOTIFS[signal]:
            wanted = round(settings.negatives * int((motifs == motif).sum()) / len(settings.signals))
            if not wanted:
                continue
            parts = []
            for contig in contigs:
                start_bp, reverse = motif_places(genome, contig, motif)
                free = np.ones(len(start_bp), bool)
                for strand in (False, True):
                    mine = (used.contig == contig) & (used.reverse == strand)
                    free &= ~((reverse == strand) & np.isin(start_bp, used.start_bp[mine]))
                    if settings.within_genes:
                        spans = genes.get((contig, "-" if strand else "+"), np.empty((0, 2), np.int64))
                        free &= (reverse != strand) | _inside(start_bp, spans)
                parts.append((np.full(free.sum(), contig), start_bp[free], reverse[free]))
            contig_of, start_bp, reverse = (np.concatenate([p[i] for p in parts]) for i in range(3))
            places[motif] += len(start_bp)
            # some more are drawn, because windows with too many N, or over the contig's end, are removed
            # later
            order = rng.permutation(len(start_bp))[: wanted + wanted // 4 + 50]
            some = Sites(
                contig_of[order].astype(np.int64),
                start_bp[order].astype(np.int64),
                reverse[order],
                np.full(len(order), len(motif)),
                np.full(len(order), "negative", dtype=object),
            )
            some = some.take(_usable(genome, some, settings))
            if len(some) < wanted:
                raise LabelError(
                    f"{genome.path} has {len(some)} usable {motif} elsewhere: wanted {wanted}; set fewer negatives"
                )
            drawn.append(some.take(np.arange(wanted)))
    return _joined(drawn) if drawn else positives.take(np.empty(0, np.int64)), dict(places)


def _motif_texts(genome: Genome, sites: Sites) -> np.ndarray:
    texts = []
    for contig, start, reverse, length in zip(
        sites.contig.tolist(),
        sites.start_bp.tolist(),
        sites.reverse.tolist(),
        sites.motif_bp.tolist(),
        strict=True,
    ):
        bases = genome.sequence(genome.names[contig], start, start + length)
        texts.append(reverse_complement(bases) if reverse else bases)
    return np.array(texts, dtype=object)


def _gene_spans(genome: Genome, transcripts: Sequence[Transcript]) -> dict[tuple[int, str], np.ndarray]:
    """(contig, strand) -> sorted, disjoint spans of transcripts, int64 (n, 2)."""
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for t in transcripts:
        spans.setdefault((t.contig, t.strand), []).append((int(t.exons[0, 0]), int(t.exons[-1, 1])))
    merged = {}
    for (name, strand), found in spans.items():
        if name not in genome.contigs:
            continue
        joined: list[list[int]] = []
        for start, end in sorted(found):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        merged[genome.contigs.find(name), strand] = np.array(joined, np.int64)
    return merged


def _inside(place_bp: np.ndarray, spans: np.ndarray) -> np.ndarray:
    if not len(spans):
        return np.zeros(len(place_bp), bool)
    at = np.searchsorted(spans[:, 0], place_bp, side="right") - 1
    return (at >= 0) & (place_bp < spans[np.maximum(at, 0), 1])


def _joined(parts: Sequence[Sites]) -> Sites:
    return Sites(*(np.concatenate([getattr(p, n) for p in parts]) for n in Sites.__dataclass_fields__))


def _window(sites: Sites, settings: TaskSettings) -> tuple[np.ndarray, np.ndarray]:
    half = settings.window_bp // 2
    return sites.start_bp - half, sites.start_bp + sites.motif_bp + half


def _usable(genome: Genome, sites: Sites, settings: TaskSettings) -> np.ndarray:
    """bool (n,): whether the window is inside its contig and does not have too many N."""
    start, end = _window(sites, settings)
    good = (start >= 0) & (end <= genome.lengths[sites.contig])
    inside = np.nonzero(good)[0]
    length = (end - start)[inside]
    n_bases = UnknownBases(genome.arrays).count(sites.contig[inside], start[inside], length)
    good[inside] = n_bases <= settings.max_n_share * length
    return good


def _text(genome: Genome, loci: Loci, sites: Sites, row: int, settings: TaskSettings) -> str:
    """The window of a site on its strand, with or without the motif."""
    bases = genome.sequence(loci.contig[row], int(loci.start_bp[row]), int(loci.end_bp[row]))
    bases = reverse_complement(bases) if sites.reverse[row] else bases
    half = settings.window_bp // 2
    return bases if settings.keep_motif else bases[:half] + bases[-half:]


def make_task(
    genome: Genome, transcripts: Sequence[Transcript], settings: TaskSettings, output: str | Path
) -> dict[str, object]:
    """Writes the labelled windows as a table (columns sequence, label, contig, start_bp, end_bp, strand,
    split). Settings and counts are returned and, unless the table is a stream, written to `<name>.json`.

    start_bp, end_bp are those of the whole window, including the motif; sequence is on the strand of the
    site. Training windows that overlap a held-out window are left out. In the summary: `places`, of how
    many places the negatives are a sample, and `drawn`, how many were drawn. After an error neither file is new.
    Raises LabelError if nothing is left, ValueError for another suffix of the table and if it is the genome.
    """
    output = Path(output)
    delimiter(output)
    refuse_inputs(output, genome.path)
    positives, counts = annotated_sites(transcripts, genome, settings.kind)
    if not len(positives):
        raise LabelError(
            f"no {settings.kind} site of the annotation is on a contig of {genome.path} "
            f"({', '.join(genome.names[:5])}): {counts}"
        )
    usable = _usable(genome, positives, settings)
    counts["positives over a contig's end or with too many N"] = int((~usable).sum())
    negatives, places = hard_negatives(genome, transcripts, positives, settings)
    sites = _joined([positives.take(usable), negatives])
    start_bp, end_bp = _window(sites, settings)
    strand = np.where(sites.reverse, "-", "+").tolist()
    loci = Loci([genome.names[c] for c in sites.contig.tolist()], start_bp, end_bp, strand)
    which = blocks_to_sets(loci, settings.shares, settings.block_bp, settings.seed, settings.held_out)
    train = np.nonzero(which == 0)[0]
    leaking = overlapping(loci, train, np.nonzero(which != 0)[0])
    counts["training windows left out for overlapping a held-out one"] = int(leaking.sum())
    keep = np.ones(len(sites), bool)
    keep[train[leaking]] = False
    names = {"tis": "translation_start", "pas": "polya_signal", "donor": "donor", "acceptor": "acceptor"}
    texts = {i: _text(genome, loci, sites, i, settings) for i in np.nonzero(keep)[0].tolist()}
    if settings.drop_copies:
        sequence = [texts.get(i, "") for i in range(len(sites))]
        sets = {name: np.nonzero(keep & (which == i))[0] for i, name in enumerate(SPLITS)}
        left = np.concatenate(list(without_copies(sequence, sets).values()))
        counts["windows left out as near copies of one in a later set"] = len(texts) - len(left)
        texts = {i: texts[i] for i in np.sort(left).tolist()}
    rows = []
    for i, bases in texts.items():
        label = names.get(sites.signal[i], "negative")
        rows.append([bases, label, loci.contig[i], start_bp[i], end_bp[i], strand[i], SPLITS[which[i]]])
    if len({row[1] for row in rows}) < 2 and settings.negatives:
        raise LabelError(f"{output}: only one class is left: {counts}")
    summary: dict[str, object] = {
        "settings": asdict(settings),
        "genome": str(genome.path.name),
        "rows": len(rows),
        "labels": {
            split: dict(sorted(Counter(row[1] for row in rows if row[6] == split).items()))
            for split in SPLITS
        },
        "places": places,
        "drawn": len(negatives),
        "left_out": counts,
    }
    header = ["sequence", "label", "contig", "start_bp", "end_bp", "strand", "split"]
    if is_stream(output):
        return {**summary, "sha256": write_rows(output, header, rows)}
    # both are complete before either gets its name
    with whole(output.with_suffix(".json")) as of_summary, whole(output) as table:
        summary["sha256"] = write_rows(table, header, rows)
        write_json(of_summary, summary)
    return summary
