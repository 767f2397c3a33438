"""Variants in a genome: checks contig and reference, reads the sequence around each variant, scores them in order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import RegionError
from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.model.alleles import AlleleRule, AlleleScore, allele_scores
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.haplotypes import LEAST_BP, Site, in_short_repeat
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.variants import calibration as calibrations
from dnagpt_fast.variants.calibration import Calibration

MOST_N = 0.05
"""A variant with a larger share of N in its windows is not scored."""
FLAGS = {
    "REF": "the reference allele is not what the genome has",
    "CONTIG": "the genome has no such contig",
    "EDGE": f"fewer than {LEAST_BP} bases before or after it",
    "N": f"an allele contains N, or more than {MOST_N:.0%} of the windows is N",
    "SYMBOLIC": "the alternative is no sequence: <DEL>, *, a breakend",
    "LONG": "the alleles, or the repeat in which an indel can move, do not fit into a window",
    "LENGTH": "the rule next-token scores single bases only",
    "STR": "scored, but the indel changes the length of a short tandem repeat, where scores mean little",
    **calibrations.FLAGS,
}
"""Why an alternative has no score, or (STR) a weak one."""
CHUNK = 128
"""Variants that are scored together; it does not change the scores."""


class VariantError(InputFileError):
    """A variant that does not fit the genome."""


class Variant(NamedTuple):
    """start_bp: 0-based position of the first reference base, VCF's POS - 1. Alleles as in VCF."""

    contig: str
    start_bp: int
    reference: str
    alternative: str


def is_sequence(allele: str) -> bool:
    """False for symbolic alleles, breakends, `*` and `.`."""
    return bool(allele) and set(allele.upper()) <= set("ACGTN")


def reference_flag(
    genome: Genome, contig: str, start_bp: int, reference: str, where: str, *, flag: bool
) -> str | None:
    """None if the genome has the contig and the reference allele. Otherwise returns a flag if `flag` is True, or raises
    VariantError with the position and both texts. N in the genome, and letters other than A C G T in the allele, match
    any base."""
    try:
        place = genome.contigs.find(contig, where)
    except RegionError as error:
        if flag:
            return "CONTIG"
        raise VariantError(str(error)) from error
    found = genome.other_bases_at(place, start_bp, reference)
    if found is None:
        return None
    if flag:
        return "REF"
    has = repr(_short(found)) if found else f"past its end, {int(genome.lengths[place]):,}"
    raise VariantError(
        f"{where}: {contig}:{start_bp + 1}: the reference allele is {_short(reference)!r}, but {genome.path} has {has} "
        f"there: is this the genome that the variants were called on?"
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}...({len(text)} bp)"


def site_of(genome: Genome, variant: Variant, rule: AlleleRule, k: int) -> Site | str:
    """The variant with the sequence around it, or the flag that says why it has no score. The reference must have been
    checked."""
    reference, alternative = variant.reference.upper(), variant.alternative.upper()
    if not is_sequence(alternative):
        return "SYMBOLIC"
    if not set(reference + alternative) <= set("ACGT"):
        return "N"
    if max(len(reference), len(alternative)) > k * rule.reach.max_tokens:
        return "LONG"
    place = genome.contigs.find(variant.contig)
    name, length = genome.names[place], int(genome.lengths[place])
    start_bp, end_bp = variant.start_bp, variant.start_bp + len(reference)
    needed = rule.reach.needed_bp(k) + max(len(reference), len(alternative))
    left = genome.sequence(name, max(start_bp - needed, 0), start_bp)
    right = genome.sequence(name, end_bp, min(end_bp + needed, length))
    sides = max(rule.reach.context_bp, rule.reach.after_bp if rule.strands == 2 else 0)
    window = left[-sides:] + reference + right[:sides] if sides else reference
    if window.count("N") > MOST_N * len(window):
        return "N"
    left_bp, right_bp = start_bp - len(left), length - end_bp - len(right)
    return Site(left, reference, alternative, right, left_bp, right_bp)


def score_chunk(
    inference: Inference,
    tokenizer: KmerTokenizer,
    genome: Genome,
    variants: list[Variant],
    flags: list[str | None],
    rule: AlleleRule,
    max_tokens: int,
    calibration: Calibration | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> list[AlleleScore]:
    """Scores of checked variants, in order; `flags`: the results of `reference_flag`; progress: see allele_scores."""
    places = [
        flag or site_of(genome, variant, rule, tokenizer.k)
        for variant, flag in zip(variants, flags, strict=True)
    ]
    sites = [place for place in places if isinstance(place, Site)]
    found = iter(allele_scores(inference, tokenizer, sites, rule, max_tokens=max_tokens, progress=progress))
    scores = []
    for place in places:
        if not isinstance(place, Site):
            scores.append(AlleleScore(flags=(place,)))
            continue
        score = next(found)
        if not score.flags and in_short_repeat(place):
            score = replace(score, flags=("STR",))
        if calibration is not None:
            score = calibration.apply(place, score, rule.strands)
        scores.append(score)
    return scores


def variant_scores(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    variants: Iterable[Variant | tuple[str, int, str, str]],
    *,
    rule: str = "dnagpt",
    strands: int | None = None,
    phases: int | None = None,
    context_bp: int | None = None,
    after_bp: int | None = None,
    stride_bp: int | None = None,
    prefix: str = "<R>",
    on_mismatch: str = "error",
    calibration: Calibration | None = None,
    max_tokens: int = 4096,
    progress: Callable[[int], object] = lambda variants: None,
) -> Iterator[AlleleScore]:
    """The score of each variant (contig, start_bp (0-based), reference, alternative), in order.

    rule, strands, phases, context_bp, after_bp, stride_bp  see model.alleles.AlleleRule
    prefix       tokens before every window; the species token that the model was trained with
    on_mismatch  "error", or "flag": a contig or reference that the genome does not have gives a score without numbers
    calibration  `Calibration.read(file)` of `dnagpt-fast calibrate`, for AlleleScore.calibrated and z
    max_tokens   tokens at once; limits the memory and does not change the scores
    progress     called with the number of variants done since its last call
    Raises ValueError for settings that cannot be used, VariantError (a ValueError) for a variant that does not fit the
    genome.

    >>> from pathlib import Path
    >>> from dnagpt_fast import Genome, load_model
    >>> _ = Path("one.fa").write_text(">one\\n" + "ACGT" * 50 + "\\n")
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> (same,) = variant_scores(model, tokenizer, Genome.open("one.fa"), [("one", 100, "A", "A")])
    >>> same.llr
    0.0
    """
    if on_mismatch not in ("error", "flag"):
        raise ValueError(f"on_mismatch = {on_mismatch!r}: wanted error or flag")
    settings = AlleleRule.of(
        model, tokenizer, rule, strands=strands, phases=phases, context_bp=context_bp, after_bp=after_bp,
        stride_bp=stride_bp, prefix=prefix,
    )  # fmt: skip
    if calibration is not None:
        calibration.check("calibration", calibrations.identity(model, genome, settings))
    inference = Inference(model)

    def scores() -> Iterator[AlleleScore]:
        waiting, number = iter(variants), 0
        while some := [Variant(*variant) for variant in islice(waiting, CHUNK)]:
            flags = []
            for variant in some:
                where = f"variant {number}"
                flags.append(
                    reference_flag(genome, *variant[:3], where, flag=on_mismatch == "flag")
                    if is_sequence(variant.alternative)
                    else None
                )
                number += 1
            done = 0

            def show(share: float, of: int = len(some)) -> None:
                nonlocal done
                now = int(share * of)
                progress(now - done)
                done = now

            yield from score_chunk(
                inference, tokenizer, genome, some, flags, settings, max_tokens, calibration, show
            )
            show(1)

    return scores()
