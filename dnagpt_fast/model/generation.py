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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnagpt_fast.model.constraints import ConstrainedDraws, Constraints, Walks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.lanes import Draws, Lanes
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.prompts import prompt_ids
from dnagpt_fast.model.sequences import Source
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.ops.sampling.reference import drawn
from dnagpt_fast.ops.sampling.settings import Choice
from dnagpt_fast.vocab import PAD_ID


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
    progress: Callable[[int], object] = lambda tokens: None,
) -> list[list[int]]:
    """The new tokens of each prompt, all prompts in one batch. progress: called with the number of tokens that were
    added, or are no longer needed, since the last call.

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
    if not (rules.do_sample or isinstance(draw, ConstrainedDraws)):
        draw = most_likely
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
    going, left = True, lanes.left
    while going:
        going = lanes.run()
        progress(left - lanes.left)
        left = lanes.left
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
    """One sampled sequence. prompt: index of its prompt; sample: 0..num_samples-1; new_ids: without the prompt.

    cut_bp  bases at the end of the last k-mer that are beyond the requested length
    """

    prompt: int
    sample: int
    prompt_ids: list[int]
    new_ids: list[int]
    cut_bp: int = 0

    def bases(self, tokenizer: KmerTokenizer) -> str:
        """The bases of the prompt and of the new tokens; other tokens are left out."""
        text = tokenizer.decode_bases([*self.prompt_ids, *self.new_ids])
        return text[: len(text) - self.cut_bp]


def generate_sequences(
    model: Network,
    tokenizer: KmerTokenizer,
    prompts: Iterable[Source],
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
    length_bp: int | None = None,
    constraints: Constraints | None = None,
    crop_to: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[Generated]:
    """num_samples continuations of each prompt, prompt by prompt, in batches of batch_size sequences of any lengths.

    prompts         text with tokens in brackets, as `<R>acgtac`; bases in lower case are read as upper case. Or a
                    sequence in another form, as of `embed`, then without a species token
    max_new_tokens  tokens to add to each prompt; or max_tokens: the length to reach, including the prompt; or
                    length_bp: the exact number of bases, including the prompt's, which implies bases_only. Exactly one
                    of the three must be given
    seed            the same (prompt, seed, sample number) gives the same sequence, in any batch
    batch_size      sequences at once; the cache takes 2 * layers * width * tokens * 4 bytes for each (fp32)
    stop_ids        default: the unknown and the pad token, as in the official script
    bases_only      draw only k-mers of A, C, G and T: no N and no reserved token, so no stop token either
    constraints     what every sequence satisfies: share of G+C, fixed positions, forbidden motifs; implies bases_only.
                    See model/constraints.py for the probabilities
    crop_to         see the top of this file
    progress        called now and then with the number of new tokens so far, and of all
    Raises ValueError for settings or prompts that cannot be used, before it generates anything.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> made = generate_sequences(model, tokenizer, ["<R>"], max_tokens=5, num_samples=2, seed=1, bases_only=True)
    >>> [len(one.new_ids) for one in made]
    [4, 4]
    """
    if (max_new_tokens, max_tokens, length_bp).count(None) != 2:
        raise ValueError("wanted one of max_new_tokens, max_tokens and length_bp")
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples = {num_samples}, batch_size = {batch_size}: wanted 1 or more")
    encoded = prompt_ids(tokenizer, prompts)
    constrained = length_bp is not None or bool(constraints)
    if constrained and stop_ids:
        raise ValueError(
            "stop_ids with length_bp or constraints: only bases are drawn, so nothing would stop"
        )
    stops = (
        () if constrained else (tokenizer.unk_id, tokenizer.pad_id) if stop_ids is None else tuple(stop_ids)
    )
    allowed = base_tokens(tokenizer) if bases_only else None
    rules = SamplingRules(temperature, do_sample, top_k, top_p, stops, allowed, crop_to)
    inference = Inference(model, pack=True)
    jobs = [(p, sample) for p in range(len(encoded)) for sample in range(num_samples)]
    bases = [tokenizer.decode_bases(ids) for ids in encoded] if constrained else []
    if length_bp is not None:
        new = [_tokens_to(length_bp, len(text), tokenizer.k, row) for row, text in enumerate(bases)]
    elif max_tokens is None:
        new = [max_new_tokens or 0] * len(encoded)
    else:
        new = [max(max_tokens - len(ids), 0) for ids in encoded]
    walks = None
    if constrained:
        lengths = {
            text: length_bp if length_bp is not None else len(text) + tokenizer.k * count
            for text, count in zip(bases, new, strict=True)
        }
        walks = Walks(constraints or Constraints(), tokenizer, lengths)
    total, done = num_samples * sum(new), 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return _in_batches(inference, encoded, new, jobs, seed, batch_size, rules, walks, bases, report)


def _tokens_to(length_bp: int, prompt_bp: int, k: int, row: int) -> int:
    if length_bp < prompt_bp:
        raise ValueError(
            f"prompts[{row}] has {prompt_bp} bases: wanted length_bp of at least as many, not {length_bp}"
        )
    return -(-(length_bp - prompt_bp) // k)


def _in_batches(
    inference: Inference,
    encoded: list[list[int]],
    new: list[int],
    jobs: list[tuple[int, int]],
    seed: int,
    batch_size: int,
    rules: SamplingRules,
    walks: Walks | None = None,
    bases: Sequence[str] = (),
    progress: Callable[[int], object] = lambda tokens: None,
) -> Iterator[Generated]:
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        prompts = [encoded[p] for p, _ in batch]
        draws: Draws = SeededDraws([(seed, sample, encoded[p]) for p, sample in batch])
        begun = [] if walks is None else [walks.walk(bases[p]) for p, _ in batch]
        cut = [0 if walks is None else -(walk.length_bp - walk.place) % walks.k for walk in begun] or [
            0
        ] * len(batch)
        if walks is not None:
            draws = ConstrainedDraws(draws if rules.do_sample else most_likely, walks, begun)
        made = continue_sequences(inference, prompts, [new[p] for p, _ in batch], rules, draws, progress)
        for (p, sample), tokens, beyond in zip(batch, made, cut, strict=True):
            yield Generated(p, sample, encoded[p], tokens, beyond)


def base_tokens(tokenizer: KmerTokenizer) -> torch.Tensor:
    """bool (V,): the tokens that are k-mers of A, C, G and T only."""
    return torch.tensor([set(piece) <= set("ACGT") for piece in tokenizer.idx_to_token])
