"""How good is the model on sequence it never saw: nats per base pair beside baselines that see the same windows.

The held-out ranges are cut into windows side by side; each is read forward as it stands. A k-mer with an unknown base
counts for nobody. The model is charged -log p of each k-mer over its whole vocabulary, the Markov chain -log p of the
same bases given the bases of the window before them, the uniform model ln 4 a base.
GC and order are asked on the same windows, order also with each window reversed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.batches import BatchMaker
from dnagpt_fast.genome.markov import MarkovChain, base_codes, spread
from dnagpt_fast.genome.sampler import Intervals, outside, tile
from dnagpt_fast.model import DNAGPT
from dnagpt_fast.ops.combined_loss import combined_loss
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import N_RESERVED

UNIFORM = math.log(4)
MARKOV_ORDER = 5
MARKOV_MOST_BP = 50_000_000


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
    rows = []
    for g, (genome, ranges) in enumerate(zip(genomes, held_out, strict=True)):
        tiles = tile(genome, ranges, length_bp, max_n_bp)
        rows.append(np.stack([np.full(len(tiles), g), tiles.contig, tiles.start_bp]))
    columns = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0))
    count = columns.shape[1]
    if not count:
        raise ValueError(
            f"no held-out range has room for a window of {length_bp} bp with at most {max_n_bp} unknown bases"
        )
    if count > most:
        columns = columns[:, np.linspace(0, count - 1, most).round().astype(np.int64)]
    index, contig, start_bp = (torch.from_numpy(np.ascontiguousarray(row, dtype=np.int64)) for row in columns)
    return Windows(index, contig, start_bp, torch.zeros_like(index))


def fit_markov(
    genomes: Sequence[PackedGenome], held_out: Sequence[Intervals], most_bp: int = MARKOV_MOST_BP
) -> MarkovChain:
    """The order-5 chain of the training part, both strands, evenly spread over at most `most_bp` of each genome."""

    def sequences() -> Iterator[np.ndarray]:
        for genome, ranges in zip(genomes, held_out, strict=True):
            for contig, start_bp, end_bp in spread(outside(ranges, genome.length_bp.cpu().numpy()), most_bp):
                codes = base_codes(genome, contig, start_bp, end_bp)
                yield codes
                yield np.where(codes >= 0, 3 - codes, codes)[::-1]

    return MarkovChain(MARKOV_ORDER).fit(sequences())


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
    def __call__(self, model: DNAGPT, *, bf16: bool = False) -> ValidationReport:
        """The report on `model`, which is left in the mode it was in."""
        training, device = model.training, next(model.parameters()).device
        model.eval()
        nats = 0.0
        right = asked = 0
        gc_pairs = []
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            for orientation in (0, 1):
                for first in range(0, len(self.known), self.batch_size):
                    rows = slice(first, first + self.batch_size)
                    batch = self.maker(self._windows(rows, orientation)).to(device)
                    hidden = model.hidden_states(batch.token_ids)
                    right += int((self._says_reversed(model, hidden) == bool(orientation)).sum())
                    asked += len(batch.token_ids)
                    if orientation == 0:
                        nats += self._nats(model, hidden, batch.targets, self.known[rows].to(device))
                        gc = model.num_regression(hidden[:, batch.gc_position]).squeeze(-1).float()
                        gc_pairs.append(torch.stack([gc, batch.gc_target])[:, batch.gc_mask])
        model.train(training)
        return ValidationReport(
            windows=len(self.known),
            base_pairs=self.base_pairs,
            nats_per_bp=nats / max(self.base_pairs, 1),
            uniform_nats_per_bp=UNIFORM,
            markov_nats_per_bp=self.markov_nats_per_bp,
            markov_order=self.chain_order,
            markov_fitted_bp=self.chain_bp,
            gc_r2=r2(*torch.cat(gc_pairs, dim=1).double().cpu()),
            order_accuracy=right / asked,
        )

    def _windows(self, rows: slice, orientation: int) -> Windows:
        places = self.windows
        genome = places.genome[rows]
        return Windows(
            genome, places.contig[rows], places.start_bp[rows], torch.full_like(genome, orientation)
        )

    def _nats(self, model: DNAGPT, hidden: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> float:
        """-log p of the known k-mers, each predicted from the position before it."""
        n_kmers, last = self.maker.n_kmers, last_projection(model)
        rows = model.mlm_head[:3](hidden[:, :n_kmers]).flatten(0, 1)
        losses = combined_loss(
            rows, last.weight, targets[:, :n_kmers].flatten(), bias=last.bias, return_log_probs=True
        )
        assert losses.log_probs is not None
        return -float(losses.log_probs.double()[known.flatten()].sum())

    def _says_reversed(self, model: DNAGPT, hidden: torch.Tensor) -> torch.Tensor:
        """Which of the two answers is the likelier after the order prompt; bool (B,)."""
        template, last = self.maker.template, last_projection(model)
        answers = torch.tensor([template.as_it_stands, template.reversed], device=hidden.device)
        bias = None if last.bias is None else last.bias[answers]
        logits = torch.nn.functional.linear(model.mlm_head[:3](hidden[:, -1]), last.weight[answers], bias)
        return logits[:, 1] > logits[:, 0]


def last_projection(model: DNAGPT) -> torch.nn.Linear:
    """The Linear of the token head that makes logits."""
    last = model.mlm_head[3]
    assert isinstance(last, torch.nn.Linear)
    return last


def r2(predicted: torch.Tensor, target: torch.Tensor) -> float | None:
    """1 - residual sum of squares / total sum of squares; None where the targets do not vary."""
    total = float(((target - target.mean()) ** 2).sum()) if len(target) else 0.0
    return 1 - float(((predicted - target) ** 2).sum()) / total if total > 0 else None


def gc_of(token_ids: Sequence[int], maker: BatchMaker) -> float | None:
    """G + C share of the known bases in the k-mers among these tokens; None where there are none."""
    text = "".join(maker.vocabulary.piece(token) for token in token_ids if token >= N_RESERVED)
    known = len(text) - text.count("N")
    return (text.count("G") + text.count("C")) / known if known else None
