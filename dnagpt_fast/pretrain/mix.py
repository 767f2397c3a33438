"""The genomes of a run: opened, with their species tokens, weights and held-out ranges."""

import hashlib
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
ORIENTATION_NAMES = ("as it stands", "reversed", "complemented", "reverse complement")


def species_id(name: str) -> int:
    """Token id of a species name (`human`) or of a reserved token (`R`). Raises ConfigError."""
    try:
        return reserved_id(species_token(name))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def read_table(path: str | Path) -> tuple[GenomeSettings, ...]:
    """Genomes of a tab-separated table with a header line of `path species weight held_out`, the last two optional.

    Ranges of held_out are separated by commas; relative paths count from the table's folder; lines that begin with `#`
    are left out. Raises ConfigError naming the line.
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
            "the first two at least"
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
    """Everything of one length: settings (held-out ranges in full), genomes, species tokens, held-out intervals."""

    settings: tuple[GenomeSettings, ...]
    genomes: tuple[Genome, ...]
    species: tuple[int, ...]
    held_out: tuple[Intervals, ...]
    places: tuple[tuple[WeightedPlaces, ...], ...]

    @classmethod
    def open(cls, data: DataSettings) -> "GenomeMix":
        """Opens every genome and settles its held-out ranges. Raises ConfigError, OSError, GenomeFileError."""
        listed = data.genomes + (read_table(data.genome_table) if data.genome_table else ())
        if not listed:
            raise ConfigError("data.genomes names no genome: wanted at least one path, species and weight")
        settled, genomes, species, held_out, places = [], [], [], [], []
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
            places.append(places_of(genome, settings))
            settled.append(replace(settings, held_out=tuple(texts)))
        return cls(tuple(settled), tuple(genomes), tuple(species), tuple(held_out), tuple(places))

    @property
    def labels(self) -> list[str]:
        return [settings.path for settings in self.settings]

    @property
    def weights(self) -> list[float]:
        return [settings.weight for settings in self.settings]

    def fingerprints(self) -> list[str]:
        """Hashes of contig names, lengths, N blocks and weighted places: files may move but not change."""
        found = []
        for genome, places in zip(self.genomes, self.places, strict=True):
            digest = hashlib.sha256("\n".join(genome.names).encode())
            for field in ("length_bp", "n_block_index", "n_block_start_bp", "n_block_end_bp"):
                digest.update(getattr(genome.arrays, field).cpu().numpy().tobytes())
            for each in places:
                for column in (
                    each.intervals.contig,
                    each.intervals.start_bp,
                    each.intervals.end_bp,
                    each.weight,
                ):
                    digest.update(column.tobytes())
            found.append(digest.hexdigest())
        return found

    def describe(self, windows: Windows, length_bp: int) -> list[str]:
        """One line a window: genome, contig, range, orientation."""
        columns = (windows.genome, windows.contig, windows.start_bp, windows.orientation)
        return [
            f"{self.settings[g].path} {self.genomes[g].names[c]}:{start}-{start + length_bp} {ORIENTATION_NAMES[turn]}"
            for g, c, start, turn in zip(*(column.tolist() for column in columns), strict=True)
        ]


def places_of(genome: Genome, settings: GenomeSettings) -> tuple[WeightedPlaces, ...]:
    """What weighs a genome's windows: its places, its soft mask, or nothing. Raises ConfigError, InputFileError."""
    found = []
    if settings.places:
        listed = []
        for each in settings.places:
            if not each.path:
                raise ConfigError(f"data.genomes: {settings.path}: an entry of places has no path")
            listed += read_places(
                genome, each.path, weight=each.weight, feature=each.feature, weight_column=each.weight_column
            )
        found.append(disjoint(listed))
    if settings.soft_masked_weight != 1.0:
        if not settings.soft_masked_weight >= 0:
            raise ConfigError(
                f"data.genomes: {settings.path}: soft_masked_weight = {settings.soft_masked_weight}: wanted 0 or more"
            )
        found.append(soft_masked(genome, settings.soft_masked_weight))
    return tuple(found)


def tail_ranges(genome: Genome, share: float) -> Sequence[str]:
    """The last `share` of every contig, as texts; nothing of contigs too short for it."""
    ranges = []
    for name, length in zip(genome.names, genome.lengths.tolist(), strict=True):
        start = length - int(length * share)
        if start < length:
            ranges.append(f"{name}:{start}-{length}")
    return tuple(ranges)
