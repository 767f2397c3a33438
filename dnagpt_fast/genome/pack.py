"""FASTA files -> one .2bit file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.genome.twobit import Written, write_twobit


def pack_fasta(fastas: Sequence[str | Path], output: str | Path) -> Written:
    """Packs the contigs of all files, in order, as UCSC's faToTwoBit does; memory holds one contig at a time.

    Raises FileNotFoundError for a file that is not there, before any is read; ValueError where the output is one of the
    inputs; GenomeFileError for bad FASTA. On an error nothing appears under the output's name.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: the folder {output.parent} does not exist")
    for fasta in map(Path, fastas):
        if not fasta.is_file():
            raise FileNotFoundError(f"{fasta}: no such file")
        if output.exists() and fasta.samefile(output):
            raise ValueError(f"{output}: the output would replace its own input")

    def records() -> Iterator[PackedRecord]:
        for fasta in fastas:
            yield from read_fasta(fasta)

    return write_twobit(output, records())
