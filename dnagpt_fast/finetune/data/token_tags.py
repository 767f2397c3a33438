"""BIO tags from GFF3 or BED: windows of a genome with a class for each k-mer or each base.

B-kind is the start of a feature, I-kind the rest of it, O outside (Ramshaw and Marcus 1995).
`tagged_examples` gives the rows of `dnagpt-fast finetune --task tagging`; `TaggedWindows` gives inputs for
`DNAGPTForTokenClassification`, with Trainer or any other loop (docs/finetuning.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.evaluation.tag_scores import tag_names
from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.interval_files import inside, interval_lines
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.input_files import readable
from dnagpt_fast.model.tokenizer import KmerTokenizer


@dataclass(frozen=True)
class Feature:
    """An interval of a contig, 0-based and half-open; coordinates and tags are on the forward strand. It may
    pass the end of a circular contig."""

    contig: str
    start_bp: int
    end_bp: int
    kind: str
    where: str
    is_circular: bool = False


def read_features(path: str | Path) -> list[Feature]:
    """Every line of a GFF3 or GTF file (kind: the third column) or of a BED file (the fourth), plain or gzip;
    recognised by content. Raises InputFileError (LabelError for a line without a kind) that names file and
    line."""
    found = []
    for line in interval_lines(path):
        kind = readable(
            line.fields[2] if line.is_annotation else "".join(line.fields[3:4]), line.where, "kind"
        )
        if kind in ("", "."):
            raise LabelError(
                f"{line.where}: no kind in its {'third' if line.is_annotation else 'fourth'} column"
            )
        found.append(Feature(line.contig, *line.span_bp(), kind, line.where, line.is_circular))
    if not found:
        raise LabelError(f"{path}: no features in it")
    return found


class FeatureTags:
    """The tags of every base and k-mer of a genome.

    features  from `read_features`; other kinds than `kinds` are ignored
    kinds     the kinds to tag; where kinds overlap, the first in this list. Overlapping features of one kind
              are merged

    Raises LabelError for features outside their contig and if nothing is tagged, ValueError for no kinds or
    duplicate kinds.
    """

    def __init__(self, genome: Genome, features: Sequence[Feature], kinds: Sequence[str]) -> None:
        if not kinds or len(set(kinds)) != len(kinds):
            raise ValueError(f"kinds = {list(kinds)}: wanted one or more, without duplicates")
        self.kinds = list(kinds)
        self.names = tag_names(kinds)
        self._spans = {(c, kind): spans for c, kind, spans in _merged(genome, features, kinds)}
        if not self._spans:
            there = sorted({feature.kind for feature in features})
            raise LabelError(f"no feature is one of {', '.join(kinds)}; there are {', '.join(there[:20])}")

    def of_bases(self, contig: str, start_bp: int, end_bp: int) -> np.ndarray:
        """The tag of each base, int64 (end_bp - start_bp,)."""
        found = np.zeros(end_bp - start_bp, np.int64)
        for number, kind in reversed(list(enumerate(self.kinds))):
            spans = self._spans.get((contig, kind))
            if spans is None:
                continue
            first = int(np.searchsorted(spans[:, 1], start_bp, side="right"))
            last = int(np.searchsorted(spans[:, 0], end_bp))
            for begin, end in spans[first:last].tolist():
                found[max(begin - start_bp, 0) : end - start_bp] = 2 + 2 * number
                if begin >= start_bp:
                    found[begin - start_bp] = 1 + 2 * number
        return found


def tagged_examples(
    path: Path,
    genome: Genome,
    tags: FeatureTags,
    *,
    window_bp: int,
    k: int,
    region: str = "",
) -> Examples:
    """Adjacent windows of a genome, with the tag of each k-mer.

    path       the file of the features, for messages
    window_bp  a multiple of k; the last window of a contig may be shorter. Bases after a contig's last
               complete k-mer are left out
    region     a contig, or contig:start_bp-end_bp; empty: all contigs

    Raises RegionError for a region that the genome does not have, LabelError for one without a complete
    k-mer.
    """
    if region:
        number, start, end = range_in(region, genome.contigs, genome.lengths, "data.region")
        places = [(number, start, end)]
    else:
        places = [(i, 0, int(length)) for i, length in enumerate(genome.lengths)]
    contigs, bounds, sequences, found = [], [], [], []
    for number, start, end in places:
        name = genome.names[number]
        end = start + (end - start) // k * k
        for begin in range(start, end, window_bp):
            stop = min(begin + window_bp, end)
            contigs.append(name)
            bounds.append((begin, stop))
            sequences.append(genome.sequence(name, begin, stop))
            found.append(_of_kmers(tags.of_bases(name, begin, stop).reshape(-1, k)))
    if not sequences:
        raise LabelError(f"{genome.path}: no complete k-mer of {k} bases in {region or 'it'}")
    at = np.array(bounds, np.int64)
    return Examples(
        path=path,
        where=[f"{path}: {c}:{b}-{e}" for c, (b, e) in zip(contigs, bounds, strict=True)],
        sequence=sequences,
        label=None,
        numbers=np.zeros((len(sequences), 0)),
        loci=Loci(contigs, at[:, 0].copy(), at[:, 1].copy(), ["+"] * len(contigs)),
        tags=found,
        kinds=tuple(tags.kinds),
    )


class TaggedWindows:
    """Rows {"input_ids", "attention_mask", "labels"} of a genome's windows, all of one length.

    features, kinds  as in `FeatureTags`
    kmers            k-mers per window; the species token before them has an ignored label
    prefix           the reserved tokens before each window
    per_base         labels (tokens, k), a class for each base, instead of (tokens,), where a k-mer has the class
                     of its first tagged base, and B if a feature starts in it

    Windows are adjacent. The last window of a contig ends at the contig's end; labels that the window before
    already has are ignored there. Contigs shorter than a window are left out and counted in `too_short`. Raises
    LabelError for features outside their contig, and if nothing is tagged; ValueError for impossible settings.
    """

    def __init__(
        self,
        genome: Genome,
        features: Sequence[Feature],
        kinds: Sequence[str],
        tokenizer: KmerTokenizer,
        *,
        kmers: int = 510,
        prefix: str = "<R>",
        per_base: bool = False,
    ) -> None:
        if kmers < 1:
            raise ValueError(f"kmers = {kmers}: wanted 1 or more")
        self.genome, self.tokenizer = genome, tokenizer
        self._tags = FeatureTags(genome, features, kinds)
        self.tags = self._tags.names
        self.window_bp = kmers * tokenizer.k
        self.per_base = per_base
        self.prefix: list[int] = tokenizer.encode(prefix, to_tensor=False)  # type: ignore[assignment]
        lengths = [int(length) for length in genome.lengths]
        self.too_short = sum(length < self.window_bp for length in lengths)
        self._places: list[tuple[str, int, int]] = []
        for name, length in zip(genome.names, lengths, strict=True):
            if length < self.window_bp:
                continue
            whole = range(0, length - self.window_bp + 1, self.window_bp)
            self._places += [(name, start, 0) for start in whole]
            if length % self.window_bp:
                start = length - self.window_bp
                self._places.append((name, start, whole[-1] + self.window_bp - start))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        contig, start_bp, seen_bp = self._places[index]
        end_bp = start_bp + self.window_bp
        bases = self._tags.of_bases(contig, start_bp, end_bp)
        bases[:seen_bp] = IGNORE_INDEX
        table = bases.reshape(-1, self.tokenizer.k)
        if self.per_base:
            before = np.full((len(self.prefix), self.tokenizer.k), IGNORE_INDEX)
            labels = np.concatenate((before, table))
        else:
            labels = np.concatenate((np.full(len(self.prefix), IGNORE_INDEX), _of_kmers(table)))
        ids = self.tokenizer.encode(self.genome.sequence(contig, start_bp, end_bp), to_tensor=False)
        input_ids = [*self.prefix, *ids]
        return {"input_ids": input_ids, "attention_mask": [1] * len(input_ids), "labels": labels.tolist()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))


def _of_kmers(bases: np.ndarray) -> np.ndarray:
    """(k-mers, k) classes of bases -> a class for each k-mer."""
    tagged = bases > 0
    rows = np.arange(len(bases))
    first = bases[rows, tagged.argmax(1)]
    inside = (first > 0) & (first % 2 == 0)
    begins = inside & (bases == (first - 1)[:, None]).any(1)
    # a k-mer that was partly in the window before counts there
    return np.where((bases == IGNORE_INDEX).any(1), IGNORE_INDEX, np.where(begins, first - 1, first))


def _merged(
    genome: Genome, features: Sequence[Feature], kinds: Sequence[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Contig, kind and its disjoint, sorted spans, int64 (n, 2). Adjacent features are not merged."""
    length_of = dict(zip(genome.names, genome.lengths, strict=True))
    parts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for feature in features:
        if feature.kind not in kinds:
            continue
        contig = genome.names[genome.contigs.find(feature.contig, feature.where)]
        spans = inside(feature.start_bp, feature.end_bp, int(length_of[contig]), feature.is_circular)
        if not spans:
            raise LabelError(
                f"{feature.where}: ends at {feature.end_bp}: {contig} has {length_of[contig]} bases"
            )
        parts.setdefault((contig, feature.kind), []).extend(spans)
    for (contig, kind), spans in parts.items():
        merged: list[list[int]] = []
        for start, end in sorted(spans):
            if merged and start < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        yield contig, kind, np.array(merged, np.int64)
