"""The k-mers of A, C, G and T among the tokens: their ids, and sums of probabilities by base and place."""

import torch

from dnagpt_fast.model.tokenizer import KmerTokenizer

BASE_ORDER = "ACGT"


class KmerTable:
    """The 4^k k-mers of A, C, G and T: their ids, and the base at each place."""

    def __init__(self, tokenizer: KmerTokenizer) -> None:
        self.k = tokenizer.k
        kmers = [""]
        for _ in range(self.k):
            kmers = [kmer + base for kmer in kmers for base in BASE_ORDER]
        self.ids = torch.tensor([tokenizer.piece_to_id(kmer) for kmer in kmers])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (R, V) -> P(k-mer) among these k-mers, (R, 4, 4, ..., 4) with one axis of A C G T per place."""
        return logits[:, self.ids.to(logits.device)].float().softmax(-1).view(len(logits), *[4] * self.k)

    def first_base(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (R, V) of the next token -> (R, 4): P(the next k-mer begins with this base)."""
        return self.probabilities(logits).view(len(logits), 4, -1).sum(-1)
