"""The genomes of a run: opened, with their species tokens, weights and held-out ranges."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.genome.places import disjoint, read_places, soft_masked
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.input_files import text_lines
from dnagpt_fast.pretrain.settings import DataSettings, GenomeSettings
from dnagpt_fast.training.settings import ConfigError
from dnagpt_fast.vocab import reserved_id, species_token

TABLE_COLUMNS = ("path", "species", "weight", "held_out")
# A longer list of held-out ranges is recorded as its number and hash: there may be one for each of a million contigs,
# and the record is in every checkpoint.
MOST_RECORDED = 10_000
ORIENTATION_NAMES = ("forward", "reversed", "complemented", "reverse complement")


def species_id(name: str) -> int:
    """Token id of a species name (`human`) or of a reserved token (`R`). Raises ConfigError."""
    try:
        return reserved_id(species_token(name))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def read_table(path: str | Path) -> tuple[GenomeSettings, ...]:
    """Genomes of a tab-separated table with the header line `path species weight held_out`, the last two
    optional.

    Ranges of held_out are separated by commas; paths are relative to the table's folder; lines that start
    with `#` are ignored. Raises ConfigError that names the line.
    """
    path = Path(path)
    lines = [
        (number, line.rstrip("\r\n")) for number, line in text_lines(path) if line.strip() and line[0] != "#"
    ]
    if not lines:
        raise ConfigError(f"{path}: the table is empty")
    header = [name.strip() for name in lines[0][1].split("\t")]
    if not {"path", "species"} <= set(header) <= set(TABLE_COLUMNS) or len(set(header)) != len(header):
        raise ConfigError(
            f"{path}, line {lines[0][0]}: the header is {header}: wanted columns of {list(TABLE_COLUMNS)}, "
            "at least the first two"
        )
    rows = []
    for number, line in lines[1:]:
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ConfigError(f"{path}, line {number}: {len(cells)} columns: the header has {len(header)}")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        try:
            weight = float(row.get("weight") or 1.0)
        except ValueError:
            raise ConfigError(f"{path}, line {number}: weight {row['weight']!r} is no number") from None
        held_out = tuple(filter(None, (text.strip() for text in row.get("held_out", "").split(","))))
        rows.append(GenomeSettings(str(path.parent / row["path"]), row["species"], weight, held_out))
    return tuple(rows)


@dataclass(frozen=True)
class GenomeMix:
    """Tuples with one entry per genome: settings (with all held-out ranges), genomes, species tokens,
    held-out intervals.

    places   for each genome: lists of places that weight its windows
    in_loss  lists of places that weight the next tokens, each with one entry per genome
    """

    settings: tuple[GenomeSettings, ...]
    genomes: tuple[Genome, ...]
    species: tuple[int, ...]
    held_out: tuple[Intervals, ...]
    places: tuple[tuple[WeightedPlaces, ...], ...]
    in_loss: tuple[tuple[WeightedPlaces, ...], ...] = ()

    @classmethod
    def open(cls, data: DataSettings, soft_masked_in_loss: float = 1.0) -> "GenomeMix":
        """Opens every genome and determines its held-out ranges. Raises ConfigError, OSError,
        GenomeFileError.

        soft_masked_in_loss: weight of a next token that is soft-masked
        """
        listed = data.genomes + (read_table(data.genome_table) if data.genome_table else ())
        if not listed:
            raise ConfigError(
                "data.genomes names no genome: wanted --genome SPECIES=FILE, or data.genomes with path and species in "
                "the settings"
            )
        settled, genomes, species, held_out, places, placed_in_loss = [], [], [], [], [], []
        for settings in listed:
            if not settings.path:
                raise ConfigError("data.genomes: an entry has no path")
            species.append(species_id(settings.species))
            genome = Genome.open(settings.path)
            texts = settings.held_out or tail_ranges(genome, data.held_out_tail)
            where = f"held-out range of {genome.path}"
            ranges = [range_in(text, genome.contigs, genome.lengths, where) for text in texts]
            rows = np.array(ranges, dtype=np.int64).reshape(-1, 3)
            genomes.append(genome)
            held_out.append(Intervals(rows[:, 0], rows[:, 1], rows[:, 2]))
            for_windows, for_loss = places_of(genome, settings)
            places.append(for_windows)
            placed_in_loss.append(for_loss)
            settled.append(replace(settings, held_out=tuple(texts)))
        in_loss = []
        if any(len(each.weight) for each in placed_in_loss):
            in_loss.append(tuple(placed_in_loss))
        if soft_masked_in_loss != 1.0:
            masks = tuple(soft_masked(genome, soft_masked_in_loss) for genome in genomes)
            if not any(len(mask.weight) for mask in masks):
                raise ConfigError(
                    f"loss.soft_masked_weight = {soft_masked_in_loss}, and no genome has a soft-masked base: wanted "
                    "lower case in FASTA or mask blocks in .2bit, or a weight of 1"
                )
            in_loss.append(masks)
        return cls(
            tuple(settled), tuple(genomes), tuple(species), tuple(held_out), tuple(places), tuple(in_loss)
        )

    @property
    def labels(self) -> list[str]:
        return [settings.path for settings in self.settings]

    @property
    def weights(self) -> list[float]:
        return [settings.weight for settings in self.settings]

    def fingerprints(self) -> list[str]:
        """Hashes of contig names, lengths, N blocks and weighted places, so that files may be moved but not
        changed."""
        found = []
        for g, genome in enumerate(self.genomes):
            digest = hashlib.sha256("\n".join(genome.names).encode())
            for field in ("length_bp", "n_block_index", "n_block_start_bp", "n_block_end_bp"):
                digest.update(getattr(genome.arrays, field).cpu().numpy().tobytes())
            of_windows = [("", each) for each in self.places[g]]
            for use, each in (*of_windows, *(("in the loss", listed[g]) for listed in self.in_loss)):
                digest.update(use.encode())
                at = each.intervals
                for column in (at.contig, at.start_bp, at.end_bp, each.weight):
                    digest.update(column.tobytes())
            found.append(digest.hexdigest())
        return found

    def describe(self, windows: Windows, length_bp: int) -> list[str]:
        """One line per window: genome, contig, range, orientation."""
        columns = (windows.genome, windows.contig, windows.start_bp, windows.orientation)
        return [
            f"{self.settings[g].path} {self.genomes[g].names[c]}:{start}-{start + length_bp} {ORIENTATION_NAMES[turn]}"
            for g, c, start, turn in zip(*(column.tolist() for column in columns), strict=True)
        ]


def places_of(genome: Genome, settings: GenomeSettings) -> tuple[tuple[WeightedPlaces, ...], WeightedPlaces]:
    """The places that weight a genome's windows (from files and the soft mask), and its places with their
    weights in the loss. Raises ConfigError, InputFileError."""
    found, listed, in_loss = [], [], []
    for each in settings.places:
        if not each.path:
            raise ConfigError(f"data.genomes: {settings.path}: an entry of places has no path")
        if not (each.loss_weight >= 0 and math.isfinite(each.loss_weight)):
            raise ConfigError(
                f"data.genomes: {settings.path}: places: loss_weight = {each.loss_weight}: wanted a number of 0 or more"
            )
        read = read_places(
            genome, each.path, weight=each.weight, feature=each.feature, weight_column=each.weight_column
        )
        # An entry without a weight for windows (or for the loss) may overlap an entry with one.
        if each.weight != 1 or each.weight_column:
            listed += read
        if each.loss_weight != 1:
            in_loss += [place._replace(weight=each.loss_weight) for place in read]
    if listed:
        found.append(disjoint(listed))
    if settings.soft_masked_weight != 1.0:
        if not settings.soft_masked_weight >= 0:
            raise ConfigError(
                f"data.genomes: {settings.path}: soft_masked_weight = {settings.soft_masked_weight}: wanted 0 or more"
            )
        mask = soft_masked(genome, settings.soft_masked_weight)
        if not len(mask.weight):
            raise ConfigError(
                f"data.genomes: {settings.path}: soft_masked_weight = {settings.soft_masked_weight}, and the genome "
                "has no soft-masked base: wanted lower case in FASTA or mask blocks in .2bit, or a weight of 1"
            )
        found.append(mask)
    return tuple(found), disjoint(in_loss)


def recorded(ranges: Sequence[str] | str) -> Sequence[str] | str:
    """Held-out ranges in the form of config.json; of that form itself the same."""
    if isinstance(ranges, str) or len(ranges) <= MOST_RECORDED:
        return ranges
    digest = hashlib.sha256("\n".join(map(str, ranges)).encode(errors="surrogateescape")).hexdigest()
    return f"{len(ranges)} ranges, sha256 {digest}"


def tail_ranges(genome: Genome, share: float) -> Sequence[str]:
    """The last `share` of every contig as ranges; contigs that are too short for one base of it have none."""
    ranges = []
    for name, length in zip(genome.names, genome.lengths.tolist(), strict=True):
        start = length - int(length * share)
        if start < length:
            ranges.append(f"{name}:{start}-{length}")
    return tuple(ranges)
