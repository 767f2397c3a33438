"""Log-ratios of alleles: log P(sequence with the alternative) - log P(sequence with the reference).

For a strand d and a phase p (haplotypes.py)

    LLR(d, p) = sum over the tokens after the shared context of log P(token | tokens before it), ALT minus REF

in nats. The tokens of the context cancel, so the context is computed once for both alleles. All strands and phases
estimate the same quantity; the score is their mean. Evo 2 and Carbon take the same sum over a whole window of one
strand and one phase (`full-ll`); GENERator takes P(first base of the next k-mer) at the end of an upstream context
(`next-token`): both are settings here.

A score does not depend on the other variants: see inference.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dnagpt_fast.model.haplotypes import NotScorable, Pair, Reach, Site, difference, pair_of
from dnagpt_fast.model.inference import Inference, row_batches
from dnagpt_fast.model.marginals import BASE_ORDER, KmerTable, context_prefix
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.score import ROWS_OF_LOGITS, target_log_probs
from dnagpt_fast.model.tokenizer import KmerTokenizer

RULES = ("dnagpt", "full-ll", "next-token")
DEFAULT_CONTEXT_BP = 384
DEFAULT_AFTER_BP = 192


@dataclass(frozen=True)
class AlleleRule:
    """How alleles are compared.

    name        "dnagpt": mean over both strands and all phases; "full-ll": forward strand and one phase, the window
                centred on the variant; "next-token": forward strand, only P(first base of the next k-mer)
    strands     2, or 1 for the forward strand
    phases      divides k; default k
    context_bp  bases before the variant; default 384, or less if the model's context is shorter
    after_bp    bases after it whose probabilities count; default 192, or less likewise
    """

    name: str
    strands: int
    phases: int
    reach: Reach
    prefix: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: Network,
        tokenizer: KmerTokenizer,
        name: str = "dnagpt",
        *,
        strands: int | None = None,
        phases: int | None = None,
        context_bp: int | None = None,
        after_bp: int | None = None,
        prefix: str = "<R>",
    ) -> "AlleleRule":
        """The rule for a model. Raises ValueError for settings that cannot be used."""
        if name not in RULES:
            raise ValueError(f"rule = {name!r}: wanted one of {', '.join(RULES)}")
        given = {"strands": strands, "phases": phases}
        fixed = {"full-ll": {"strands": 1, "phases": 1}, "next-token": {"strands": 1, "phases": 1}}.get(
            name, {}
        )
        for setting, value in fixed.items():
            if given[setting] not in (None, value):
                raise ValueError(f"{setting} = {given[setting]}: the rule {name!r} has {setting} = {value}")
        strands = fixed.get("strands", 2 if strands is None else strands)
        phases = fixed.get("phases", tokenizer.k if phases is None else phases)
        if strands not in (1, 2):
            raise ValueError(f"strands = {strands}: wanted 1 or 2")
        if phases < 1 or tokenizer.k % phases:
            raise ValueError(f"phases = {phases}: wanted a divisor of k = {tokenizer.k}")
        first = context_prefix(tokenizer, prefix)
        room = model.max_len - len(first)
        room_bp = tokenizer.k * room
        if after_bp is None:
            after_bp = min(DEFAULT_AFTER_BP, room_bp // 3)
            if name == "full-ll":
                after_bp = min(DEFAULT_CONTEXT_BP if context_bp is None else context_bp, room_bp // 2)
        if context_bp is None:
            context_bp = max(min(DEFAULT_CONTEXT_BP, room_bp - after_bp - 2 * tokenizer.k), 0)
        for setting, value in (("context_bp", context_bp), ("after_bp", after_bp)):
            if value < 0:
                raise ValueError(f"{setting} = {value}: wanted 0 or more")
        if context_bp + after_bp > room_bp:
            raise ValueError(
                f"context_bp + after_bp = {context_bp + after_bp}: this model reads {room_bp} bp ({model.max_len} "
                f"tokens, {len(first)} of them the prefix)"
            )
        return cls(name, strands, phases, Reach(context_bp, after_bp, room), tuple(first))


@dataclass(frozen=True)
class AlleleScore:
    """The score of an alternative relative to the reference, in nats; negative: the alternative is less likely.
    A number is None if it was not requested or cannot be computed.

    llr          mean over strands and phases
    llr_forward  mean over the phases of the forward strand; likewise llr_reverse
    sd           standard deviation over strands and phases
    conditional  log P(alternative base) - log P(reference base), given only the bases before it, mean of the strands;
                 for single bases only
    flags        why there is no score, or why it is weak
    """

    llr: float | None = None
    llr_forward: float | None = None
    llr_reverse: float | None = None
    sd: float | None = None
    conditional: float | None = None
    flags: tuple[str, ...] = ()


@torch.no_grad()
def allele_scores(
    inference: Inference,
    tokenizer: KmerTokenizer,
    sites: Sequence[Site],
    rule: AlleleRule,
    *,
    max_tokens: int = 4096,
) -> list[AlleleScore]:
    """The score of each site. The windows of all sites are in memory at once, as ids; at most `max_tokens` rows go
    through the model together. A site that cannot be scored has no numbers, and its flags give the reason."""
    jobs: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}  # context -> continuation -> log P
    # context -> its last hidden state, for the conditional scores of single bases
    asked: dict[tuple[int, ...], torch.Tensor] = {}
    plans: list[_Plan | AlleleScore] = []
    for site in sites:
        plan = _plan(tokenizer, site, rule)
        plans.append(plan)
        for strand in () if isinstance(plan, AlleleScore) else plan:
            for phase, (context, reference, alternative) in enumerate(strand):
                several = jobs.setdefault(context, {})
                if rule.name != "next-token":
                    several[reference] = several[alternative] = 0.0
                if phase == 0 and _is_single_base(site):
                    asked[context] = torch.empty(0)
    _fill(inference, rule, jobs, asked, max_tokens)
    bases = _first_base_log_probs(inference, tokenizer, asked)
    return [
        plan if isinstance(plan, AlleleScore) else _score(site, plan, rule, jobs, bases)
        for site, plan in zip(sites, plans, strict=True)
    ]


_Windows = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""ids of: prefix and context; the reference continuation; the alternative continuation"""
_Plan = list[list[_Windows]]
"""by strand, by phase"""


def _plan(tokenizer: KmerTokenizer, site: Site, rule: AlleleRule) -> _Plan | AlleleScore:
    """The windows of each strand and phase, or the score if nothing must be computed."""

    def windows(pair: Pair) -> _Windows:
        return (*rule.prefix, *pair.context), tuple(pair.reference), tuple(pair.alternative)

    step = tokenizer.k // rule.phases
    sides = (site, site.reverse_complement())[: rule.strands]
    single = _is_single_base(site)
    try:
        if difference(site) is None:
            none = 0.0 if single else None
            if rule.name == "next-token":
                return AlleleScore(conditional=none)
            return AlleleScore(0.0, 0.0, 0.0 if rule.strands == 2 else None, 0.0, none)
        if rule.name == "next-token" and not single:
            return AlleleScore(flags=("LENGTH",))
        return [
            [windows(pair_of(tokenizer, side, phase, rule.reach)) for phase in range(0, tokenizer.k, step)]
            for side in sides
        ]
    except NotScorable as error:
        return AlleleScore(flags=(str(error),))


def _fill(
    inference: Inference,
    rule: AlleleRule,
    jobs: dict[tuple[int, ...], dict[tuple[int, ...], float]],
    asked: dict[tuple[int, ...], torch.Tensor],
    max_tokens: int,
) -> None:
    """Fills `jobs` with the log P of every continuation, and `asked` with hidden states."""
    contexts = list(jobs)
    rows = [len(c) + sum(len(branch) - 1 for branch in jobs[c]) for c in contexts]
    for batch in row_batches(rows, max_tokens):
        several = [contexts[i] for i in batch]
        # the last token of a continuation is predicted, but no token after it
        states = inference.continuations(several, [[b[:-1] for b in jobs[c]] for c in several])
        read: list[torch.Tensor] = []
        targets: list[int] = []
        places = []
        for context, (last, of_branches) in zip(several, states, strict=True):
            if context in asked:
                asked[context] = last
            for branch, hidden in zip(jobs[context], of_branches, strict=True):
                read += [last[None], hidden]
                targets += branch
                places.append((context, branch))
        if not places:
            continue
        logs = _log_probs(inference, torch.cat(read), targets)
        lengths = [len(branch) for _, branch in places]
        for (context, branch), part in zip(places, logs.split(lengths), strict=True):
            jobs[context][branch] = float(part.double().sum())


def _log_probs(inference: Inference, rows: torch.Tensor, targets: list[int]) -> torch.Tensor:
    wanted = torch.tensor(targets, device=rows.device)
    parts = zip(rows.split(ROWS_OF_LOGITS), wanted.split(ROWS_OF_LOGITS), strict=True)
    return torch.cat([target_log_probs(inference, some, of_some) for some, of_some in parts]).cpu()


def _first_base_log_probs(
    inference: Inference, tokenizer: KmerTokenizer, asked: dict[tuple[int, ...], torch.Tensor]
) -> dict[tuple[int, ...], list[float]]:
    """context -> log P of A, C, G, T as the first base of the next k-mer."""
    if not asked:
        return {}
    table = KmerTable(tokenizer)
    answers = [
        table.first_base(inference.logits(some)).double().log()
        for some in torch.stack(list(asked.values())).split(ROWS_OF_LOGITS)
    ]
    return dict(zip(asked, torch.cat(answers).tolist(), strict=True))


def _is_single_base(site: Site) -> bool:
    return len(site.reference) == len(site.alternative) == 1


def _score(
    site: Site,
    plan: _Plan,
    rule: AlleleRule,
    jobs: dict[tuple[int, ...], dict[tuple[int, ...], float]],
    bases: dict[tuple[int, ...], list[float]],
) -> AlleleScore:
    conditional = None
    if _is_single_base(site):
        ratios = []
        for strand, side in zip(plan, (site, site.reverse_complement()), strict=False):
            of_base = bases[strand[0][0]]
            alternative, reference = (BASE_ORDER.index(b) for b in (side.alternative, side.reference))
            ratios.append(of_base[alternative] - of_base[reference])
        conditional = _mean(ratios)
    if rule.name == "next-token":
        return AlleleScore(conditional=conditional)
    ratios_of_strand = [[jobs[c][alt] - jobs[c][ref] for c, ref, alt in strand] for strand in plan]
    # first within each strand, so that the same variant on the other strand gives the same bits
    means = [_mean(ratios) for ratios in ratios_of_strand]
    llr = _mean(means)
    variance = _mean([_mean([(ratio - llr) ** 2 for ratio in ratios]) for ratios in ratios_of_strand])
    return AlleleScore(llr, means[0], means[1] if rule.strands == 2 else None, variance**0.5, conditional)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
