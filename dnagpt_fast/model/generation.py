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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnagpt_fast.model.inference import Inference, KeyValueCache
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.token_windows import check_is_list
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import PAD_ID

logger = logging.getLogger(__name__)

Draw = Callable[[torch.Tensor, list[int]], torch.Tensor]
"""(probabilities (B, V), indices of the B sequences) -> tokens int64 (B,)"""


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

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, V) -> (B, V)"""
        logits = logits / self.temperature
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed.to(logits.device), float("-inf"))
        return filter_logits(logits, self.top_k, self.top_p).softmax(-1)


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 0.0) -> torch.Tensor:
    """Logits (B, V) with -inf at the tokens that may not be drawn; a new tensor.

    top_k  > 0: keep the k largest, and those equal to the k-th
    top_p  > 0: of the tokens left, keep the most likely ones, up to and including the one at which the sum of their
           probabilities exceeds top_p
    """
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p > 0.0:
        ranked, order = logits.sort(descending=True)
        cumulative = ranked.softmax(-1).cumsum(-1)
        dropped = torch.zeros_like(order, dtype=torch.bool)
        dropped[..., 1:] = cumulative[..., :-1] > top_p
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))
    return logits


def most_likely(probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
    return probabilities.topk(1).indices[:, 0]


class SeededDraws:
    """One stream of uniform numbers per sequence. The Philox key depends on the sequence, not on its place in a batch.

    The token drawn is the first one at which the running sum of the probabilities exceeds u times their sum.
    """

    def __init__(self, keys: Sequence[tuple[int, int, Sequence[int]]]) -> None:
        """keys: (seed, sample number, prompt ids) of each sequence."""
        self._streams = [np.random.Generator(np.random.Philox(key=_philox_key(*key))) for key in keys]

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        uniform = torch.tensor([[self._streams[i].random()] for i in sequences], dtype=torch.float64)
        sums = probabilities.double().cumsum(-1)
        drawn = torch.searchsorted(sums, uniform.to(sums.device) * sums[:, -1:], right=True)[:, 0]
        # u * sum may be rounded up to the sum itself: then the last token with a probability is drawn
        last = probabilities.shape[1] - 1 - (probabilities > 0).flip(-1).int().argmax(-1)
        return torch.minimum(drawn, last)


def _philox_key(seed: int, sample: int, prompt: Sequence[int]) -> int:
    text = f"{seed}/{sample}/{','.join(map(str, prompt))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


@torch.no_grad()
def continue_sequences(
    inference: Inference,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    rules: SamplingRules,
    draw: Draw,
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
    stops = frozenset(rules.stop_ids)
    # Neighbours of equal length share an attention call, so batches are in order of length.
    active = sorted((i for i, n in enumerate(max_new_tokens) if n > 0), key=lambda i: len(prompts[i]))
    if not active:
        return made
    longest = max(len(prompts[i]) + max_new_tokens[i] - 1 for i in active)
    batch = _Lanes(inference, [list(prompts[i]) for i in active], min(longest, model.max_len), crop_to)
    while True:
        probabilities = rules.probabilities(inference.logits(batch.hidden))
        tokens = (draw if rules.do_sample else most_likely)(probabilities, active).tolist()
        going = []
        for lane, (i, token) in enumerate(zip(active, tokens, strict=True)):
            if token in stops:
                continue
            made[i].append(token)
            if len(made[i]) < max_new_tokens[i]:
                going.append(lane)
        if not going:
            return made
        batch.advance([tokens[lane] for lane in going], going)
        active = [active[lane] for lane in going]


class _Lanes:
    """The sequences of a batch that are not finished: their tokens, cache, and hidden states at the last tokens."""

    def __init__(
        self, inference: Inference, texts: list[list[int]], capacity: int, crop_to: int | None
    ) -> None:
        self._inference = inference
        self._max_len = inference.model.max_len
        self._capacity = capacity
        self._crop_to = crop_to
        self._texts = texts
        contexts = [self._first_context(text) for text in texts]
        self.hidden, cache = inference.prefill(contexts, capacity)
        assert cache is not None
        self._cache: KeyValueCache = cache
        # Where a lane's cache starts in its tokens; None once the window slides and there is no cache.
        self._from: list[int | None] = [len(t) - len(c) for t, c in zip(texts, contexts, strict=True)]

    def advance(self, tokens: list[int], kept: list[int]) -> None:
        """Continues the lanes `kept` with one new token each."""
        if len(kept) < len(self._texts):
            self._texts = [self._texts[lane] for lane in kept]
            self._from = [self._from[lane] for lane in kept]
            self._cache = self._cache.select(torch.tensor(kept, device=self._inference.device))
        for text, token in zip(self._texts, tokens, strict=True):
            text.append(token)
        cached: list[int] = []
        slid: list[int] = []
        for lane, (text, start) in enumerate(zip(self._texts, self._from, strict=True)):
            fits = start is not None and len(text) - start <= self._max_len
            (cached if fits else slid).append(lane)
        if not slid:
            self.hidden = self._decode(self._cache, cached)
            return
        rows = torch.empty(
            len(self._texts), self._inference.model.embedding_dim, device=self._inference.device
        )
        self.hidden = rows.to(self.hidden.dtype)
        if cached:
            index = torch.tensor(cached, device=self._inference.device)
            part = self._cache.select(index)
            self.hidden[index] = self._decode(part, cached)
            self._store(part, index)
        contexts = [self._texts[lane][-(self._crop_to or self._max_len) :] for lane in slid]
        index = torch.tensor(slid, device=self._inference.device)
        if self._crop_to is None:
            # One window at a time: each has max_len rows.
            self.hidden[index] = torch.cat(
                [self._inference.prefill([context], None)[0] for context in contexts]
            )
        else:
            self.hidden[index], part_or_none = self._inference.prefill(contexts, self._capacity)
            assert part_or_none is not None
            self._store(part_or_none, index)
        for lane, context in zip(slid, contexts, strict=True):
            self._from[lane] = None if self._crop_to is None else len(self._texts[lane]) - len(context)

    def _first_context(self, text: list[int]) -> list[int]:
        if len(text) <= self._max_len:
            return text
        return text[-(self._crop_to or self._max_len) :]

    def _decode(self, cache: KeyValueCache, lanes: list[int]) -> torch.Tensor:
        newest = torch.tensor([self._texts[lane][-1] for lane in lanes], device=self._inference.device)
        return self._inference.decode(newest, cache)

    def _store(self, part: KeyValueCache, index: torch.Tensor) -> None:
        for whole, rows in ((self._cache.keys, part.keys), (self._cache.values, part.values)):
            for layer, tensor in enumerate(rows):
                whole[layer][index] = tensor
        self._cache.lengths[index] = part.lengths


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

    def draw(probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        return probabilities.multinomial(1)[:, 0]

    made = continue_sequences(inference, prompts, [max_new_tokens] * len(prompts), rules, draw)
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
