"""FASTA files -> one .2bit file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.genome.twobit import Written, write_twobit
from dnagpt_fast.output_files import is_stream, refuse_inputs


def pack_fasta(
    fastas: Sequence[str | Path],
    output: str | Path,
    progress: Callable[[int, int], object] = lambda contigs, bases: None,
) -> Written:
    """Packs the contigs of all files, in order, as UCSC's faToTwoBit does, with one contig at a time in
    memory.

    A FASTA may be a pipe; `-` is standard input. progress: called after each contig with the numbers of
    contigs and bases so far. Raises FileNotFoundError for a missing file, before any file is read; ValueError
    if the output is one of the inputs; GenomeFileError for bad FASTA. After an error there is no file under
    the output's name.
    """
    output = Path(output)
    if not is_stream(output) and not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: the folder {output.parent} does not exist")
    sources = [Path("/dev/stdin" if str(fasta) == "-" else fasta) for fasta in fastas]
    for fasta in sources:
        if not fasta.exists() or fasta.is_dir():
            raise FileNotFoundError(f"{fasta}: no such file")
    refuse_inputs(output, *fastas)

    def records() -> Iterator[PackedRecord]:
        contigs = bases = 0
        for fasta in sources:
            for record in read_fasta(fasta):
                contigs, bases = contigs + 1, bases + record.length_bp
                progress(contigs, bases)
                yield record

    return write_twobit(output, records())
