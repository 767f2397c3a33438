"""Sampling by the official rules: temperature, then top-k, then top-p, then a draw or the most likely token.

Cost. A sequence of up to max_len tokens is continued with a key-value cache: one row per token, for many sequences at
once. Beyond max_len, the context is the last max_len tokens with positions counted from 0 again, as in the official
code: the positions shift at every step, so the cache cannot be reused, and each further token costs a pass over max_len
tokens (the last block and the head run for the last token only). `crop_to`, which the official code lacks, is cheaper:
at max_len the context is cut to its last `crop_to` tokens and then grows with a cache again, so that max_len - crop_to
further tokens cost one pass over crop_to tokens and one row each. From there on the tokens differ from the official
ones.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.lanes import Draws, Lanes
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.token_windows import check_is_list
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.ops.sampling.reference import drawn
from dnagpt_fast.ops.sampling.settings import Choice
from dnagpt_fast.vocab import PAD_ID

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingRules:
    """How the next token is chosen.

    temperature  > 0; the logits are divided by it
    do_sample    False: the most likely token
    top_k, top_p as in `filter_logits`; 0 switches them off
    stop_ids     a sequence ends before one of these tokens
    allowed      bool (V,), the tokens that may be drawn; None: all
    crop_to      None: the official crop at max_len; a number: tokens of context that are kept when max_len is reached
    """

    temperature: float = 1.0
    do_sample: bool = False
    top_k: int = 0
    top_p: float = 0.0
    stop_ids: tuple[int, ...] = ()
    allowed: torch.Tensor | None = None
    crop_to: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature = {self.temperature}: wanted a positive number")
        if self.top_k < 0 or self.top_p < 0:
            raise ValueError(f"top_k = {self.top_k}, top_p = {self.top_p}: wanted 0 (off) or more")
        if self.crop_to is not None and self.crop_to < 1:
            raise ValueError(f"crop_to = {self.crop_to}: wanted 1 token or more")

    def choice(self, how: str, device: torch.device) -> Choice:
        """The rules as ops.sampling takes them."""
        allowed = None if self.allowed is None else self.allowed.to(device)
        return Choice(self.temperature, self.top_k, self.top_p, how, allowed)


class MostLikely:
    """The most likely token."""

    how = "most likely"

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        return drawn(probabilities, self.how)


most_likely = MostLikely()


class GlobalDraws:
    """Draws of torch's global generator for all sequences, as by torch.multinomial."""

    how = "race"

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        return probabilities.multinomial(1)[:, 0]


class SeededDraws:
    """One stream of uniform numbers per sequence. The Philox key depends on the sequence, not on its place in a batch.

    The token drawn is the first one at which the running sum of the probabilities exceeds u times their sum.
    """

    how = "uniform"

    def __init__(self, keys: Sequence[tuple[int, int, Sequence[int]]]) -> None:
        """keys: (seed, sample number, prompt ids) of each sequence."""
        self._streams = [np.random.Generator(np.random.Philox(key=_philox_key(*key))) for key in keys]

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        return drawn(probabilities, self.how, self.numbers(sequences, 1)[0].to(probabilities.device))

    def numbers(self, sequences: list[int], steps: int) -> torch.Tensor:
        """The next numbers of the sequences' streams, float64 (steps, B)."""
        listed = [[self._streams[i].random() for _ in range(steps)] for i in sequences]
        return torch.tensor(listed, dtype=torch.float64).view(len(sequences), steps).t().contiguous()


def _philox_key(seed: int, sample: int, prompt: Sequence[int]) -> int:
    text = f"{seed}/{sample}/{','.join(map(str, prompt))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


@torch.no_grad()
def continue_sequences(
    inference: Inference,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    rules: SamplingRules,
    draw: Draws,
) -> list[list[int]]:
    """The new tokens of each prompt, all prompts in one batch.

    Raises ValueError for an empty prompt, ids outside the vocabulary, or rules that allow no token.
    """
    model = inference.model
    crop_to = rules.crop_to
    if crop_to is not None and crop_to >= model.max_len:
        raise ValueError(f"crop_to = {crop_to}: wanted less than max_len = {model.max_len}")
    if rules.allowed is not None and not bool(rules.allowed.any()):
        raise ValueError("the rules allow no token: wanted at least one True in `allowed`")
    if any(not prompt for prompt in prompts):
        raise ValueError("a prompt is empty: generation needs at least one token, such as <R>")
    made: list[list[int]] = [[] for _ in prompts]
    # Neighbours of equal length share an attention call, so batches are in order of length.
    active = sorted((i for i, n in enumerate(max_new_tokens) if n > 0), key=lambda i: len(prompts[i]))
    if not active:
        return made
    draw = draw if rules.do_sample else most_likely
    lanes = Lanes(
        inference,
        active,
        [list(prompts[i]) for i in active],
        [max_new_tokens[i] for i in active],
        min(max(len(prompts[i]) + max_new_tokens[i] - 1 for i in active), model.max_len),
        rules.choice(getattr(draw, "how", most_likely.how), inference.device),
        rules.stop_ids,
        crop_to,
        draw,
    )
    while lanes.run():
        pass
    for i, tokens in lanes.made.items():
        made[i] = tokens
    return made


@torch.no_grad()
def generate(
    model: Network,
    idx: torch.Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    do_sample: bool = False,
    top_k: int = 0,
    top_p: float = 0.0,
    stop_ids: Sequence[int] | None = None,
) -> torch.Tensor:
    """idx int64 (B, T) continued by up to max_new_tokens tokens; (B, T + new). The official call.

    A row ends before a token of stop_ids, which is not appended; rows that ended early are padded with the pad token.
    Draws come from torch's global generator, as in the official code: for a batch of one, the same seed gives the same
    tokens. `generate_sequences` has its own seeds, prompts of different lengths, and more settings.
    """
    if idx.dim() != 2 or idx.is_floating_point():
        raise ValueError(f"idx is {idx.dtype} {tuple(idx.shape)}: wanted an integer tensor (B, T)")
    rules = SamplingRules(temperature, do_sample, top_k, top_p, tuple(stop_ids or ()))
    prompts = idx.tolist()
    inference = Inference(model, pack=max_new_tokens > 8)
    made = continue_sequences(inference, prompts, [max_new_tokens] * len(prompts), rules, GlobalDraws())
    longest = max((len(tokens) for tokens in made), default=0)
    filled = [tokens + [PAD_ID] * (longest - len(tokens)) for tokens in made]
    new = torch.tensor(filled, dtype=idx.dtype, device=idx.device).view(len(prompts), longest)
    return torch.cat((idx, new), dim=1)


@dataclass(frozen=True)
class Generated:
    """One sampled sequence. prompt: index of its prompt; sample: 0..num_samples-1; new_ids: without the prompt."""

    prompt: int
    sample: int
    prompt_ids: list[int]
    new_ids: list[int]


def generate_sequences(
    model: Network,
    tokenizer: KmerTokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int | None = None,
    max_tokens: int | None = None,
    num_samples: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    temperature: float = 1.0,
    do_sample: bool = True,
    top_k: int = 0,
    top_p: float = 0.0,
    stop_ids: Sequence[int] | None = None,
    bases_only: bool = False,
    crop_to: int | None = None,
) -> Iterator[Generated]:
    """num_samples continuations of each prompt, prompt by prompt, in batches of batch_size sequences of any lengths.

    max_new_tokens  tokens to add to each prompt; or max_tokens: the length to reach, including the prompt. Exactly one
                    of the two must be given
    seed            the same (prompt, seed, sample number) gives the same sequence, in any batch
    batch_size      sequences at once; the cache takes 2 * layers * width * tokens * 4 bytes for each (fp32)
    stop_ids        default: the unknown and the pad token, as in the official script
    bases_only      draw only k-mers of A, C, G and T: no N and no reserved token, so no stop token either
    crop_to         see the top of this file
    Raises ValueError for settings or prompts that cannot be used, before it generates anything.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> made = generate_sequences(model, tokenizer, ["<R>"], max_tokens=5, num_samples=2, seed=1, bases_only=True)
    >>> [len(one.new_ids) for one in made]
    [4, 4]
    """
    if (max_new_tokens is None) == (max_tokens is None):
        raise ValueError("wanted one of max_new_tokens and max_tokens")
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples = {num_samples}, batch_size = {batch_size}: wanted 1 or more")
    check_is_list(prompts, "prompts")
    encoded = [list(tokenizer.encode(prompt, to_tensor=False)) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise ValueError(f"prompt {prompt!r} has no token: generation needs at least one, such as <R>")
    _warn_of_short_ends(tokenizer, prompts, encoded)
    stops = (tokenizer.unk_id, tokenizer.pad_id) if stop_ids is None else tuple(stop_ids)
    allowed = base_tokens(tokenizer) if bases_only else None
    rules = SamplingRules(temperature, do_sample, top_k, top_p, stops, allowed, crop_to)
    inference = Inference(model, pack=True)
    jobs = [(p, sample) for p in range(len(prompts)) for sample in range(num_samples)]
    if max_tokens is None:
        new = [max_new_tokens or 0] * len(encoded)
    else:
        new = [max(max_tokens - len(ids), 0) for ids in encoded]
    return _in_batches(inference, encoded, new, jobs, seed, batch_size, rules)


def _warn_of_short_ends(
    tokenizer: KmerTokenizer, prompts: Sequence[str], encoded: Sequence[Sequence[int]]
) -> None:
    """One warning for prompts whose last bases are fewer than k: the model has seen such tokens at the end of a
    sequence, never before others."""
    k = tokenizer.k
    last = [tokenizer.idx_to_token[int(ids[-1])] if len(ids) else "" for ids in encoded]
    short = [i for i, token in enumerate(last) if 0 < len(token) < k and set(token) <= set("ACGTN")]
    short = [i for i in short if int(encoded[i][-1]) >= len(tokenizer.reserved_tokens)]
    if short:
        logger.warning(
            "%d prompt(s) end inside a %d-mer; the first is prompt %d, ...%s, whose last %d base(s) become a short "
            "token. Models have seen those only at the end of a sequence: cut the prompt to a multiple of %d bases",
            len(short), k, short[0] + 1, prompts[short[0]][-20:], len(last[short[0]]), k,
        )  # fmt: skip


def _in_batches(
    inference: Inference,
    encoded: list[list[int]],
    new: list[int],
    jobs: list[tuple[int, int]],
    seed: int,
    batch_size: int,
    rules: SamplingRules,
) -> Iterator[Generated]:
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        prompts = [encoded[p] for p, _ in batch]
        draws = SeededDraws([(seed, sample, encoded[p]) for p, sample in batch])
        made = continue_sequences(inference, prompts, [new[p] for p, _ in batch], rules, draws)
        for (p, sample), tokens in zip(batch, made, strict=True):
            yield Generated(p, sample, encoded[p], tokens)


def base_tokens(tokenizer: KmerTokenizer) -> torch.Tensor:
    """bool (V,): the tokens that are k-mers of A, C, G and T only."""
    return torch.tensor([set(piece) <= set("ACGT") for piece in tokenizer.idx_to_token])
