"""The base-level loss of a k-mer softmax in plain torch: the distribution over A, C, G, T at each place of the k-mer.

With p the softmax over all tokens and w_i the base of the plain k-mer w at place i,
    P_i(b)  = sum of p_w over the plain k-mers w with w_i = b
    base_r  = -(1/k) sum_i log P_i(t_i),   t = target_r, a plain k-mer
    d base_r / d z_w = p_w - p_w (1/k) sum_i [w plain and w_i = t_i] / P_i(t_i)
since d P_i(b) / d z_w = p_w ([w plain and w_i = b] - P_i(b)). It was published as Factorized Nucleotide Supervision
(Carbon, 2026). Plain k-mers are numbered by their bases, two bits per base, the first base most significant.
"""

from functools import cache

import torch

LEAST_BASE_PROBABILITY = 1e-30  # a P_i(t_i) below it counts as this value


@cache
def bases_of_kmers(k: int, device: torch.device) -> torch.Tensor:
    """int64 (4^k, k): the number of the base, 0..3, at each place of each plain k-mer."""
    number = torch.arange(4**k, device=device)
    return torch.stack([(number >> (2 * (k - 1 - i))) & 3 for i in range(k)], 1)


@cache
def membership(k: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(4^k, 4k) of 0 and 1: whether a plain k-mer (row) has base b at place i (column 4 i + b)."""
    return torch.nn.functional.one_hot(bases_of_kmers(k, device), 4).flatten(1).to(dtype)


def base_level_rows(logits: torch.Tensor, kmers: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """base_r of rows whose targets are plain k-mers, (R,); differentiable.

    logits  float (R, V); kmers int64 (4^k,): the tokens of the plain k-mers by their numbers; number int64 (R,): the
    number of each row's target
    """
    k = (len(kmers).bit_length() - 1) // 2
    bases = bases_of_kmers(k, logits.device)
    plain = logits[:, kmers]
    logs = [
        plain.masked_fill(bases[:, i] != bases[number][:, i, None], float("-inf")).logsumexp(-1)
        for i in range(k)
    ]
    return logits.logsumexp(-1) - torch.stack(logs).mean(0)


def base_probabilities(
    kmer_shares: torch.Tensor, total: torch.Tensor, number: torch.Tensor, k: int
) -> torch.Tensor:
    """P_i(t_i) of each row and place, (R, k), at least LEAST_BASE_PROBABILITY.

    kmer_shares (R, 4^k): probabilities of the plain k-mers times total (R, 1)
    """
    sums = kmer_shares @ membership(k, kmer_shares.dtype, kmer_shares.device)
    columns = _columns(number, k)
    return (sums.gather(1, columns) / total).clamp(min=LEAST_BASE_PROBABILITY)


def pulled_up(pull: torch.Tensor, number: torch.Tensor, k: int) -> torch.Tensor:
    """(R, 4^k): the sum of pull (R, k) over the places where a plain k-mer has the target's base."""
    by_base = pull.new_zeros(len(pull), 4 * k).scatter_(1, _columns(number, k), pull)
    return by_base @ membership(k, pull.dtype, pull.device).t()


def _columns(number: torch.Tensor, k: int) -> torch.Tensor:
    """(R, k): the columns of `membership` that stand for the bases of these k-mers."""
    return bases_of_kmers(k, number.device)[number] + 4 * torch.arange(k, device=number.device)
