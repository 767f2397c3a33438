"""Log-ratios of alleles: log P(sequence with the alternative) - log P(sequence with the reference).

For a strand d and a phase p (haplotypes.py)

    LLR(d, p) = sum over the tokens after the shared context of log P(token | tokens before it), ALT minus REF

in nats. The tokens of the context cancel. The reference window is computed once for all variants that share it; for an
alternative only the tokens after the context are computed. All strands and phases estimate the same quantity; the score
is their mean. Evo 2 and Carbon take the same sum over a whole window of one
strand and one phase (`full-ll`); GENERator takes P(first base of the next k-mer) at the end of an upstream context
(`next-token`): both are settings here.

A score does not depend on the other variants: see inference.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch

from dnagpt_fast.model.haplotypes import NotScorable, Pair, Reach, Site, difference, pair_of
from dnagpt_fast.model.inference import Inference, row_batches
from dnagpt_fast.model.marginals import BASE_ORDER, NextBase, context_prefix
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
    context_bp  fewest bases before the variant; default 384, or less if the model's context is shorter
    after_bp    bases after it whose probabilities count; default 192, or less likewise
    stride_bp   windows begin every so many bases of the contig, so that neighbouring variants share them: a variant has
                between context_bp and context_bp + stride_bp bases before it. Default half of context_bp, or less if
                the model's context is shorter. The other rules have exactly context_bp
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
        stride_bp: int | None = None,
        prefix: str = "<R>",
    ) -> "AlleleRule":
        """The rule for a model. Raises ValueError for settings that cannot be used."""
        if name not in RULES:
            raise ValueError(f"rule = {name!r}: wanted one of {', '.join(RULES)}")
        k = tokenizer.k
        given = {"strands": strands, "phases": phases, "stride_bp": stride_bp}
        fixed = {} if name == "dnagpt" else {"strands": 1, "phases": 1, "stride_bp": k}
        for setting, value in fixed.items():
            if given[setting] not in (None, value):
                raise ValueError(f"{setting} = {given[setting]}: the rule {name!r} has {setting} = {value}")
        strands = fixed.get("strands", 2 if strands is None else strands)
        phases = fixed.get("phases", k if phases is None else phases)
        if strands not in (1, 2):
            raise ValueError(f"strands = {strands}: wanted 1 or 2")
        if phases < 1 or k % phases:
            raise ValueError(f"phases = {phases}: wanted a divisor of k = {k}")
        first = context_prefix(tokenizer, prefix)
        room = model.max_len - len(first)
        room_bp = k * room
        if after_bp is None:
            after_bp = min(DEFAULT_AFTER_BP, room_bp // 3)
            if name == "full-ll":
                after_bp = min(DEFAULT_CONTEXT_BP if context_bp is None else context_bp, room_bp // 2)
        if context_bp is None:
            context_bp = max(min(DEFAULT_CONTEXT_BP, room_bp - after_bp - 2 * k), 0)
        for setting, value in (("context_bp", context_bp), ("after_bp", after_bp)):
            if value < 0:
                raise ValueError(f"{setting} = {value}: wanted 0 or more")
        if context_bp + after_bp > room_bp:
            raise ValueError(
                f"context_bp + after_bp = {context_bp + after_bp}: this model reads {room_bp} bp ({model.max_len} "
                f"tokens, {len(first)} of them the prefix)"
            )
        stride_bp = fixed.get("stride_bp", context_bp // 2 if stride_bp is None else stride_bp)
        if stride_bp < 0:
            raise ValueError(f"stride_bp = {stride_bp}: wanted 0 or more")
        return cls(
            name, strands, phases, Reach(context_bp, after_bp, room, max(stride_bp // k, 1)), tuple(first)
        )


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
    calibrated   llr minus the mean of its class (variants/calibration.py), and z: that in standard deviations
    """

    llr: float | None = None
    llr_forward: float | None = None
    llr_reverse: float | None = None
    sd: float | None = None
    conditional: float | None = None
    flags: tuple[str, ...] = ()
    calibrated: float | None = None
    z: float | None = None


@torch.no_grad()
def allele_scores(
    inference: Inference,
    tokenizer: KmerTokenizer,
    sites: Sequence[Site],
    rule: AlleleRule,
    *,
    max_tokens: int = 4096,
    progress: Callable[[float], object] = lambda share: None,
) -> list[AlleleScore]:
    """The score of each site. The windows of all sites are in memory at once, as ids; at most `max_tokens` rows go
    through the model together. A site that cannot be scored has no numbers, and its flags give the reason.
    progress: called with the share of the work that is done."""
    windows: dict[tuple[int, ...], _Window] = {}
    plans: list[_Plan | AlleleScore] = []
    for site in sites:
        plan = _plan(tokenizer, site, rule)
        plans.append(plan)
        for strand in () if isinstance(plan, AlleleScore) else plan:
            for phase, pair in enumerate(strand):
                window = windows.setdefault(pair.window, _Window())
                if pair.alternative:
                    window.logs.update(dict.fromkeys(pair.rows, 0.0))
                    window.branches[pair.context, pair.alternative] = 0.0
                if phase == 0 and _is_single_base(site):
                    window.next_base[pair.context - 1] = []
    _fill(inference, tokenizer, windows, max_tokens, progress)
    return [
        plan if isinstance(plan, AlleleScore) else _score(site, plan, rule, windows)
        for site, plan in zip(sites, plans, strict=True)
    ]


@dataclass(frozen=True)
class _Pair:
    """As haplotypes.Pair, with the prefix as the first tokens of the window and of the context."""

    window: tuple[int, ...]
    context: int
    alternative: tuple[int, ...]

    @property
    def rows(self) -> range:
        """The places of the window that predict the reference continuation."""
        return range(self.context - 1, self.context - 1 + len(self.alternative))


_Plan = list[list[_Pair]]
"""by strand, by phase"""


@dataclass
class _Window:
    """What a window must answer, and the answers.

    logs       place -> log P of the token after it
    branches   (number of tokens before it, its tokens) -> log P of these tokens
    next_base  place -> log P of A, C, G, T as the next base
    """

    logs: dict[int, float] = field(default_factory=dict)
    branches: dict[tuple[int, tuple[int, ...]], float] = field(default_factory=dict)
    next_base: dict[int, list[float]] = field(default_factory=dict)


def _plan(tokenizer: KmerTokenizer, site: Site, rule: AlleleRule) -> _Plan | AlleleScore:
    """The windows of each strand and phase, or the score if nothing must be computed."""

    def with_prefix(pair: Pair) -> _Pair:
        context = len(rule.prefix) + pair.context
        if rule.name == "next-token":
            return _Pair((*rule.prefix, *pair.window[: pair.context]), context, ())
        return _Pair((*rule.prefix, *pair.window), context, tuple(pair.alternative))

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
            [
                with_prefix(pair_of(tokenizer, side, phase, rule.reach))
                for phase in range(0, tokenizer.k, step)
            ]
            for side in sides
        ]
    except NotScorable as error:
        return AlleleScore(flags=(str(error),))


def _fill(
    inference: Inference,
    tokenizer: KmerTokenizer,
    windows: dict[tuple[int, ...], _Window],
    max_tokens: int,
    progress: Callable[[float], object],
) -> None:
    """Computes the answers of all windows."""
    next_base = NextBase(inference, tokenizer)
    parts = [part for ids, window in windows.items() for part in _parts(ids, window, max_tokens)]
    done = 0
    for batch in row_batches([part.rows for part in parts], max_tokens):
        several = [parts[i] for i in batch]
        # the last token of a continuation is predicted, but no token after it
        states = inference.continuations(
            [part.ids for part in several],
            [part.kept for part in several],
            [[(n, ids[:-1]) for n, ids in part.branches] for part in several],
        )
        read: list[torch.Tensor] = []
        asked: list[torch.Tensor] = []
        targets: list[int] = []
        for part, (of_window, of_branches) in zip(several, states, strict=True):
            row = {place: i for i, place in enumerate(part.kept)}
            read.append(of_window[[row[place] for place in part.logs]])
            targets += [part.ids[place + 1] for place in part.logs]
            for (n, ids), hidden in zip(part.branches, of_branches, strict=True):
                read += [of_window[row[n - 1]][None], hidden]
                targets += ids
            asked.append(of_window[[row[place] for place in part.next_base]])
        logs = iter(_log_probs(inference, torch.cat(read), targets).tolist() if targets else [])
        bases = iter(next_base(torch.cat(asked)).double().log().tolist())
        for part in several:
            window = windows[part.ids]
            window.logs.update({place: next(logs) for place in part.logs})
            for n, ids in part.branches:
                window.branches[n, ids] = math.fsum(islice(logs, len(ids)))
            window.next_base.update({place: next(bases) for place in part.next_base})
        done += len(batch)
        progress(done / len(parts))


@dataclass(frozen=True)
class _Part:
    """Some questions to a window: as in _Window; kept: the places whose hidden states they need."""

    ids: tuple[int, ...]
    logs: list[int]
    next_base: list[int]
    branches: list[tuple[int, tuple[int, ...]]]

    @property
    def kept(self) -> list[int]:
        return sorted({*self.logs, *self.next_base, *(n - 1 for n, _ in self.branches)})

    @property
    def rows(self) -> int:
        return len(self.ids) + sum(len(ids) - 1 for _, ids in self.branches)


def _parts(ids: tuple[int, ...], window: _Window, max_tokens: int) -> Iterator[_Part]:
    """The questions to a window, in several parts (the window is computed again in each) if it has so many branches
    that they need more than `max_tokens` rows."""
    part = _Part(ids, sorted(window.logs), sorted(window.next_base), [])
    rows = len(ids)
    for branch in window.branches:
        more = len(branch[1]) - 1
        if part.branches and rows + more > max_tokens:
            yield part
            part, rows = _Part(ids, [], [], []), len(ids)
        part.branches.append(branch)
        rows += more
    yield part


def _log_probs(inference: Inference, rows: torch.Tensor, targets: list[int]) -> torch.Tensor:
    wanted = torch.tensor(targets, device=rows.device)
    parts = zip(rows.split(ROWS_OF_LOGITS), wanted.split(ROWS_OF_LOGITS), strict=True)
    return torch.cat([target_log_probs(inference, some, of_some) for some, of_some in parts]).cpu()


def _is_single_base(site: Site) -> bool:
    return len(site.reference) == len(site.alternative) == 1


def _score(site: Site, plan: _Plan, rule: AlleleRule, windows: dict[tuple[int, ...], _Window]) -> AlleleScore:
    conditional = None
    if _is_single_base(site):
        ratios = []
        for strand, side in zip(plan, (site, site.reverse_complement()), strict=False):
            of_base = windows[strand[0].window].next_base[strand[0].context - 1]
            alternative, reference = (BASE_ORDER.index(b) for b in (side.alternative, side.reference))
            ratios.append(of_base[alternative] - of_base[reference])
        conditional = _mean(ratios)
    if rule.name == "next-token":
        return AlleleScore(conditional=conditional)
    ratios_of_strand = [[_log_ratio(windows[pair.window], pair) for pair in strand] for strand in plan]
    # first within each strand, so that the same variant on the other strand gives the same bits
    means = [_mean(ratios) for ratios in ratios_of_strand]
    llr = _mean(means)
    variance = _mean([_mean([(ratio - llr) ** 2 for ratio in ratios]) for ratios in ratios_of_strand])
    return AlleleScore(llr, means[0], means[1] if rule.strands == 2 else None, variance**0.5, conditional)


def _log_ratio(window: _Window, pair: _Pair) -> float:
    alternative = window.branches[pair.context, pair.alternative]
    return alternative - math.fsum(window.logs[place] for place in pair.rows)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
