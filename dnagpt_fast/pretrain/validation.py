"""How good is the model on sequence it never saw: nats per base pair beside baselines that see the same windows.

The held-out ranges are cut into windows side by side; each is read forward as it stands. A k-mer with an unknown base
counts for nobody. The model is charged -log p of each k-mer over its whole vocabulary, the Markov chain -log p of the
same bases given the bases of the window before them, the uniform model ln 4 a base.
GC and order are asked on the same windows, order also with each window reversed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.evaluation.markov import MarkovChain, base_codes, spread
from dnagpt_fast.genome.intervals import Intervals, outside, tile
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.training.processes import Processes

UNIFORM = math.log(4)
MARKOV_ORDER = 5
MARKOV_MOST_BP = 50_000_000
WINDOWS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class ValidationReport:
    """windows, base_pairs: what was evaluated (per orientation). Losses in nats per base pair, over known bases.

    gc_r2 is None where GC does not vary; order_accuracy is over both classes in equal number, so chance is 0.5.
    markov_fitted_bp: bases the chain was fitted on, both strands together.
    """

    windows: int
    base_pairs: int
    nats_per_bp: float
    uniform_nats_per_bp: float
    markov_nats_per_bp: float
    markov_order: int
    markov_fitted_bp: int
    gc_r2: float | None
    order_accuracy: float

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """What the report prints, label and value."""
        gc = "-" if self.gc_r2 is None else f"{self.gc_r2:.3f}"
        return [
            ("held-out windows", f"{self.windows:,} ({self.base_pairs:,} bp)"),
            ("uniform", f"{self.uniform_nats_per_bp:.4f} nats/bp"),
            (f"order-{self.markov_order} Markov chain", f"{self.markov_nats_per_bp:.4f} nats/bp"),
            ("DNAGPT", f"{self.nats_per_bp:.4f} nats/bp"),
            ("  against uniform", f"{self.nats_per_bp - self.uniform_nats_per_bp:+.4f}"),
            ("  against the Markov chain", f"{self.nats_per_bp - self.markov_nats_per_bp:+.4f}"),
            ("GC content r2", gc),
            ("order accuracy (chance 0.5)", f"{self.order_accuracy:.3f}"),
        ]


def held_out_windows(
    genomes: Sequence[PackedGenome], held_out: Sequence[Intervals], length_bp: int, max_n_bp: int, most: int
) -> Windows:
    """Windows side by side over the held-out ranges of all genomes, evenly thinned to at most `most`, as they stand.

    Raises ValueError where none fits.
    """
    pieces = [
        (g, genome, piece)
        for g, (genome, ranges) in enumerate(zip(genomes, held_out, strict=True))
        for piece in _pieces(ranges, length_bp)
    ]
    # Counted first and made again where needed: all windows of a large corpus at once would be a list of its size.
    counts = [len(tile(genome, piece, length_bp, max_n_bp)) for _, genome, piece in pieces]
    count = sum(counts)
    if not count:
        raise ValueError(
            f"no held-out range has room for a window of {length_bp} bp with at most {max_n_bp} unknown bases"
        )
    chosen = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
    rows, first = [], 0
    for (g, genome, piece), held in zip(pieces, counts, strict=True):
        mine = chosen[(chosen >= first) & (chosen < first + held)] - first
        first += held
        if len(mine):
            tiles = tile(genome, piece, length_bp, max_n_bp)
            rows.append(np.stack([np.full(len(mine), g), tiles.contig[mine], tiles.start_bp[mine]]))
    columns = np.concatenate(rows, axis=1)
    index, contig, start_bp = (torch.from_numpy(np.ascontiguousarray(row, dtype=np.int64)) for row in columns)
    return Windows(index, contig, start_bp, torch.zeros_like(index))


def _pieces(ranges: Intervals, length_bp: int) -> Iterator[Intervals]:
    """The ranges in their order, cut into groups of at most some WINDOWS_AT_ONCE windows, or one range."""
    windows = np.cumsum(np.maximum(ranges.end_bp - ranges.start_bp, 0) // length_bp)
    group = windows // WINDOWS_AT_ONCE
    for rows in np.split(np.arange(len(ranges)), np.flatnonzero(np.diff(group)) + 1):
        yield Intervals(ranges.contig[rows], ranges.start_bp[rows], ranges.end_bp[rows])


def fit_markov(
    genomes: Sequence[PackedGenome], held_out: Sequence[Intervals], most_bp: int = MARKOV_MOST_BP
) -> MarkovChain:
    """The order-5 chain of the training part, both strands: at most `most_bp`, the genomes in equal parts, each spread
    evenly over its contigs."""
    most_bp = max(1, most_bp // len(genomes))

    def sequences() -> Iterator[np.ndarray]:
        for genome, ranges in zip(genomes, held_out, strict=True):
            for contig, start_bp, end_bp in spread(outside(ranges, genome.length_bp.cpu().numpy()), most_bp):
                codes = base_codes(genome, contig, start_bp, end_bp)
                yield codes
                yield np.where(codes >= 0, 3 - codes, codes)[::-1]

    return MarkovChain(MARKOV_ORDER).fit(sequences())


class Answers(NamedTuple):
    """What a model says of a batch: log_probs (B, n_kmers) of its k-mers, says_reversed bool (B,), gc float (B,)."""

    log_probs: torch.Tensor
    says_reversed: torch.Tensor
    gc: torch.Tensor


def answers_of(model: DNAGPT, batch: PretrainBatch, template: Template) -> Answers:
    """Each k-mer is predicted from the position before it; the likelier of the two answers stands after `<B>`."""
    hidden, last = model.hidden_states(batch.token_ids), model.last_projection
    n_kmers = hidden.shape[1] - template.n_extra
    targets = batch.targets[:, :n_kmers]
    rows = model.head_rows(hidden[:, :n_kmers]).flatten(0, 1)
    losses = combined_loss(rows, last.weight, targets.flatten(), bias=last.bias, return_log_probs=True)
    assert losses.log_probs is not None
    pair = torch.tensor([template.as_it_stands, template.reversed], device=hidden.device)
    bias = None if last.bias is None else last.bias[pair]
    logits = F.linear(model.head_rows(hidden[:, -1]), last.weight[pair], bias)
    gc = model.num_regression(hidden[:, batch.gc_position]).squeeze(-1)
    return Answers(losses.log_probs.view_as(targets), logits[:, 1] > logits[:, 0], gc)


class Validator:
    """Evaluates a model on fixed held-out windows; the baselines are computed once."""

    def __init__(self, maker: BatchMaker, windows: Windows, chain: MarkovChain, batch_size: int) -> None:
        self.maker = maker
        self.windows = windows
        self.batch_size = batch_size
        self.chain_order, self.chain_bp = chain.order, chain.fitted_bp
        k, n_kmers = maker.vocabulary.k, maker.n_kmers
        known, markov = [], 0.0
        places = (windows.genome.tolist(), windows.contig.tolist(), windows.start_bp.tolist())
        for g, contig, start_bp in zip(*places, strict=True):
            codes = base_codes(maker.genomes[g], contig, start_bp, start_bp + maker.length_bp)
            whole = (codes.reshape(n_kmers, k) >= 0).all(axis=1)
            known.append(whole)
            markov -= float(chain.log_probs(codes).reshape(n_kmers, k)[whole].sum())
        self.known = torch.from_numpy(np.stack(known))
        self.base_pairs = int(self.known.sum()) * k
        self.markov_nats_per_bp = markov / max(self.base_pairs, 1)

    @torch.no_grad()
    def __call__(
        self,
        ask: Callable[[PretrainBatch], Answers],
        device: torch.device,
        processes: Processes | None = None,
        *,
        bf16: bool = False,
    ) -> ValidationReport:
        """The report on the model that `ask` asks, the same in every process. All take the same number of batches, as
        models that are shared out among processes need; a window that comes twice so counts once."""
        processes = processes or Processes()
        count, world_size = len(self.known), processes.world_size
        mine = torch.arange(processes.rank, -(-count // world_size) * world_size, world_size)
        # nats, right answers, and of GC: how many, sum, sum of squares, squared error
        sums = torch.zeros(6, dtype=torch.float64, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            for orientation in (0, 1):
                for places in mine.split(self.batch_size):
                    once, places = places < count, places % count
                    batch = self.maker(self._windows(places, orientation)).to(device)
                    answers = ask(batch)
                    once = once.to(device)
                    sums[1] += ((answers.says_reversed == bool(orientation)) & once).sum()
                    if orientation == 0:
                        known = self.known[places].to(device) & once[:, None]
                        sums[0] -= answers.log_probs.double()[known].sum()
                        counted = batch.gc_mask & once
                        target, said = batch.gc_target.double()[counted], answers.gc.double()[counted]
                        moments = (counted, target, target.square(), (said - target).square())
                        sums[2:] += torch.stack([moment.sum().double() for moment in moments])
        nats, right, *gc_sums = processes.sum(sums).tolist()
        return ValidationReport(
            windows=count,
            base_pairs=self.base_pairs,
            nats_per_bp=nats / max(self.base_pairs, 1),
            uniform_nats_per_bp=UNIFORM,
            markov_nats_per_bp=self.markov_nats_per_bp,
            markov_order=self.chain_order,
            markov_fitted_bp=self.chain_bp,
            gc_r2=r2(*gc_sums),
            order_accuracy=right / (2 * count),
        )

    def _windows(self, places: torch.Tensor, orientation: int) -> Windows:
        genome = self.windows.genome[places]
        contig, start_bp = self.windows.contig[places], self.windows.start_bp[places]
        return Windows(genome, contig, start_bp, torch.full_like(genome, orientation))


def r2(count: float, total: float, squares: float, residual: float) -> float | None:
    """1 - residual / (squares - total^2 / count), from sums over the targets; None where the targets do not vary."""
    spread = squares - total**2 / count if count else 0.0
    # Below the rounding of the sums there is no spread to speak of.
    return 1 - residual / spread if spread > 1e-12 * squares else None
