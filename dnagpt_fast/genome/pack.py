"""FASTA files -> one .2bit file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.records import GenomeFileError, PackedRecord
from dnagpt_fast.genome.twobit import Written, write_twobit
from dnagpt_fast.output_files import is_stream, refuse_inputs


def pack_fasta(
    fastas: Sequence[str | Path],
    output: str | Path,
    progress: Callable[[int, int], object] = lambda contigs, bases: None,
    contigs: Sequence[str] = (),
) -> Written:
    """Packs the contigs of all files, in order, as UCSC's faToTwoBit does, with one contig at a time in
    memory.

    A FASTA may be a pipe; `-` is standard input.
    progress  called after each contig with the numbers of contigs and bases so far
    contigs   only those with these names, in the order of the files; none: all
    Raises FileNotFoundError for a missing file, before any file is read; ValueError if the output is one of the inputs;
    GenomeFileError for bad FASTA, and for a name in `contigs` that no file has. After an error there is no file under
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
        count = bases = 0
        missing, seen = set(contigs), list[str]()
        for fasta in sources:
            for record in read_fasta(fasta):
                seen += [record.name] if len(seen) < 5 else []
                if contigs and record.name not in contigs:
                    continue
                missing.discard(record.name)
                count, bases = count + 1, bases + record.length_bp
                progress(count, bases)
                yield record
        if missing:
            raise GenomeFileError(
                f"{', '.join(map(str, fastas))}: no contig {', '.join(map(repr, sorted(missing)))}; the first names "
                f"are {', '.join(seen)}"
            )

    return write_twobit(output, records())
