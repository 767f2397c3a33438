"""Suite zero-shot: what the likelihood of a model knows without any training on labels.

recovery         the next bases of a held-out sequence, the most likely ones
shuffled         a real sequence against one with the same dinucleotides
repeat           the second copy of a sequence, with the first copy before it or another sequence
codon            a stop codon written into a reading frame, or the same letters one base later
splice donor, splice acceptor   a base of the motif replaced, or the same change deeper in the intron
"""

from collections.abc import Iterator, Sequence

import numpy as np

from dnagpt_fast.evaluation.markov import text_codes
from dnagpt_fast.evaluation.shuffle import dinucleotide_shuffle
from dnagpt_fast.finetune.data.annotation import Transcript, read_annotation
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place, places_of
from dnagpt_fast.suites.scored import (
    CHAIN,
    FittedChains,
    blocks,
    difference_task,
    loci,
    variant_task,
    windows,
)
from dnagpt_fast.suites.splice_pairs import Intron, knock_outs
from dnagpt_fast.suites.task import LIKELIHOOD, Prediction, Scorer, Source, Task
from dnagpt_fast.vocab import reverse_complement

NAME = "zero-shot"
ABOUT = "what likelihoods know: recovery, shuffled sequence, repeats, stop codons, splice sites"
LAYOUT = "DIR/*.bed with held-out ranges of --genome; --annotation for codon and splice sites"
WINDOW_BP = 1200
RECOVERED_BP = 30
BLOCK_BP = 100_000
COPY_BP, BETWEEN_BP = 120, 60
CONTROL_BP = (20, 200)
STOPS = ("TAA", "TAG", "TGA")
CODING_BP = 300


def tasks(source: Source) -> Iterator[Task]:
    genome = source.opened_genome("a file of ranges")
    ranges = [place for path in source.tables(".bed") for place in places_of(genome, bed=source.read(path))]
    chains = FittedChains(genome, ranges)
    rng = np.random.Generator(np.random.Philox(source.seed))
    size = source.window_bp or WINDOW_BP
    if source.wants("recovery"):
        yield _recovery(genome, windows(source, genome, ranges, size, "recovery"), chains)
    if source.wants("shuffled"):
        places = windows(source, genome, ranges, size, "shuffled")
        rows = [(text, dinucleotide_shuffle(text, rng)) for text in _texts(genome, places)]
        facts = {"pairs": "a window, and its letters with the same dinucleotides", "window_bp": size}
        yield difference_task("shuffled", rows, (1, -1), chains, places, BLOCK_BP, facts)
    if source.wants("repeat"):
        yield _repeats(genome, windows(source, genome, ranges, 2 * COPY_BP + BETWEEN_BP, "repeat"), chains)
    annotated = [name for name in ("codon", "splice donor", "splice acceptor") if source.wants(name)]
    if source.annotation is None or not annotated:
        if any(name in source.only for name in annotated):
            raise LabelError(f"the tasks {', '.join(annotated)} need genes: give --annotation")
        return
    transcripts = read_annotation(source.read(source.annotation))
    if "codon" in annotated:
        yield _codons(source, genome, ranges, transcripts, chains, rng)
    for kind in ("donor", "acceptor"):
        if f"splice {kind}" in annotated:
            yield _splice(source, genome, ranges, transcripts, chains, kind, rng)


def _texts(genome: Genome, places: Sequence[Place]) -> list[str]:
    return [genome.sequence(place.contig, place.start_bp, place.end_bp) for place in places]


def _recovery(genome: Genome, places: list[Place], chains: FittedChains) -> Task:
    texts = _texts(genome, places)
    prompts = [text[:-RECOVERED_BP] for text in texts]
    truth = [text[-RECOVERED_BP:] for text in texts]

    def identity(made: Sequence[str]) -> Prediction:
        return Prediction(
            [
                np.array(
                    [
                        sum(a == b for a, b in zip(one, right, strict=False)) / RECOVERED_BP
                        for one, right in zip(made, truth, strict=True)
                    ]
                )
            ]
        )

    def by_chain() -> Prediction:
        found = chains()
        made = []
        for prompt in prompts:
            text = prompt[-found.best_order :] if found.best_order else ""
            letters = ""
            for _ in range(RECOVERED_BP):
                codes = [text_codes(text + base) for base in "ACGT"]
                logs = [found.chain.log_probs(one, found.best_order, found.best_pseudo)[-1] for one in codes]
                letters += "ACGT"[int(np.argmax(logs))]
                text = (text + letters[-1])[-found.best_order :] if found.best_order else ""
            made.append(letters)
        return Prediction(identity(made).values, chains.chosen())

    joined = "".join(prompts)
    common = max("ACGT", key=joined.count)
    return Task(
        name="recovery",
        measure="identity",
        rising=True,
        rows=len(texts),
        scorer=_mean_identity,
        baselines={
            "most frequent base": lambda: identity([common * RECOVERED_BP] * len(texts)),
            CHAIN: by_chain,
        },
        ways={LIKELIHOOD: lambda subject: identity(subject.continuations(prompts, RECOVERED_BP))},
        clusters=blocks(places, BLOCK_BP),
        facts={"prompt_bp": len(prompts[0]), "recovered_bp": RECOVERED_BP},
        texts=[(text, f"recovery: {place.name}") for text, place in zip(prompts, places, strict=True)],
        loci=loci(places),
    )


def _mean_identity(values: np.ndarray) -> Scorer:
    return lambda rows: {"identity": float(values[rows].mean())}


def _repeats(genome: Genome, places: list[Place], chains: FittedChains) -> Task:
    """log P(copy | copy, between) - log P(copy | other, between): four texts of each row."""
    rows = []
    for text in _texts(genome, places):
        copy, between, other = text[:COPY_BP], text[COPY_BP : COPY_BP + BETWEEN_BP], text[-COPY_BP:]
        rows.append((copy + between + copy, copy + between, other + between + copy, other + between))
    facts = {"copy_bp": COPY_BP, "between_bp": BETWEEN_BP}
    return difference_task("repeat", rows, (1, -1, -1, 1), chains, places, BLOCK_BP, facts)


def _inside(ranges: Sequence[Place], genome: Genome, contig: str, start: int, end: int) -> Place | None:
    """The place under the genome's own name if it lies in one of the ranges."""
    try:
        name = genome.names[genome.contigs.find(contig)]
    except ValueError:
        return None
    if any(r.contig == name and r.start_bp <= start and end <= r.end_bp for r in ranges):
        return Place(f"{name}:{start}-{end}", name, start, end)
    return None


def _codons(
    source: Source,
    genome: Genome,
    ranges: Sequence[Place],
    transcripts: Sequence[Transcript],
    chains: FittedChains,
    rng: np.random.Generator,
) -> Task:
    """Exons of 5' to 3' reading frames; the same stop codon replaces a codon in the middle, or the bases one later."""
    found: dict[tuple[str, int, int], tuple[Place, int]] = {}
    for one in transcripts:
        if one.coding_bp is None or not one.start_complete:
            continue
        first, last = one.coding_bp
        parts = [(max(int(a), first), min(int(b), last)) for a, b in one.exons if a < last and b > first]
        read = 0  # coding bases before the exon
        for start, end in parts if one.strand == "+" else parts[::-1]:
            place = _inside(ranges, genome, one.contig, start, end)
            if place is not None and end - start >= CODING_BP:
                found.setdefault((place.contig, start, end), (place._replace(strand=one.strand), -read % 3))
            read += end - start
    keys = sorted(found)
    places, rows = [], []
    for i in source.some(len(keys), "codon"):
        place, frame = found[keys[i]]
        text = genome.sequence(place.contig, place.start_bp, place.end_bp)
        text = reverse_complement(text) if place.strand == "-" else text
        text = text[frame : frame + CODING_BP]
        at, stop = CODING_BP // 2 // 3 * 3, str(rng.choice(STOPS))
        if "N" in text or len(text) < CODING_BP - 3 or text[at : at + 3] == stop:
            continue
        shifted = text[: at + 1] + stop + text[at + 4 :]
        if any(shifted[j : j + 3] in STOPS for j in (at, at + 3)):
            continue  # the control must keep the frame open
        places.append(place)
        rows.append((shifted, text[:at] + stop + text[at + 3 :]))
    if len(rows) < 2:
        raise LabelError(
            f"{source.annotation}: {len(rows)} coding exons of {CODING_BP} bases or more in the ranges of "
            f"{source.data}: wanted 2 or more for the task codon"
        )
    facts = {"pairs": "a stop codon out of frame, in frame", "exon_bp": CODING_BP}
    return difference_task("codon", rows, (1, -1), chains, places, BLOCK_BP, facts)


def _splice(
    source: Source,
    genome: Genome,
    ranges: Sequence[Place],
    transcripts: Sequence[Transcript],
    chains: FittedChains,
    kind: str,
    rng: np.random.Generator,
) -> Task:
    introns = set()
    for one in transcripts:
        for (_, start), (end, _) in zip(one.exons, one.exons[1:], strict=False):
            place = _inside(ranges, genome, one.contig, int(start), int(end))
            if place is not None and place.end_bp - place.start_bp > 2 * CONTROL_BP[1]:
                introns.add(Intron(place.contig, place.start_bp, place.end_bp, one.strand))
    ordered = sorted(introns)
    chosen = [ordered[i] for i in source.some(len(ordered), f"splice {kind}")]
    pairs = knock_outs(genome, chosen, kind, CONTROL_BP, rng)
    if len(pairs) < 2:
        raise LabelError(
            f"{source.annotation}: {len(pairs)} introns with a splice {kind} in the ranges of {source.data}: wanted "
            f"2 or more"
        )
    variants = [variant for pair in pairs for variant in pair]
    clusters = blocks([Place("", c, start, start + 1) for c, start, *_ in variants[::2]], BLOCK_BP).repeat(2)
    facts = {"pairs": len(pairs), "class 1": "the motif of the splice site"}
    return variant_task(
        f"splice {kind}", genome, variants, np.tile([1, 0], len(pairs)), clusters, chains, facts
    )
