"""Forward passes without gradients for many sequences at once, with results that do not depend on the batch.

Sequences of different lengths are concatenated as rows (R, D). Every linear layer runs over all rows together;
attention runs over sequences of equal length together, so nothing is padded or masked. The number of rows is rounded up
to a multiple for which a row's bits do not depend on the other rows (ops/linear.py). On the CPU, the result of a
sequence therefore has the same bits in every batch; on a GPU this holds as far as it holds for the library's matrix
product.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dnagpt_fast.model.head_part import DistinctRows, HeadPart, distinct_rows, head_part
from dnagpt_fast.model.layers import Block, Linear, merge_heads
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.rounded_linear import RoundedLinear
from dnagpt_fast.ops.attention.extend import attention_extend
from dnagpt_fast.ops.attention.op import attention, attention_decode
from dnagpt_fast.ops.attention.reference import attention_weights, visible_keys
from dnagpt_fast.ops.attention.rule import implementation_for
from dnagpt_fast.ops.linear import ROWS_MULTIPLE, gelu, linear, pack_weight
from dnagpt_fast.ops.traits import attention_is_batch_independent

TokenIds = Sequence[int] | np.ndarray
"""Token ids of a sequence: integers, or int64 (T,)."""
PLAIN = (nn.Linear, Linear)
FEW_LENGTHS, FEW_ROWS = 4, 256
CPU_ROWS = 1024
"""Rows of a pass on the CPU, whose intermediate results then stay in the caches and in memory that is used again; with
more, the system clears new pages for every pass (benchmarks/LOG.md)."""
PACK_LIMIT_BYTES = 4 << 30
"""Weights of up to this size in all are copied into the faster layout for generation."""


@dataclass
class KeyValueCache:
    """Keys and values of B sequences: per layer (B, H, S, K); sequence b has lengths[b] tokens in it."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    lengths: torch.Tensor

    @classmethod
    def empty(cls, model: Network, sequences: int, slots: int) -> "KeyValueCache":
        """A cache for so many sequences of up to `slots` tokens, without tokens."""
        weight = model.transformer.wte.weight
        shape = (sequences, model.num_heads, slots, model.config.head_size)
        keys, values = ([weight.new_zeros(shape) for _ in range(model.num_layers)] for _ in range(2))
        return cls(keys, values, torch.zeros(sequences, dtype=torch.int64, device=weight.device))

    def select(self, kept: torch.Tensor) -> "KeyValueCache":
        """The cache of some of the sequences, int64 (B',)."""
        return KeyValueCache(
            [keys[kept] for keys in self.keys], [values[kept] for values in self.values], self.lengths[kept]
        )


@dataclass(frozen=True)
class HiddenRows:
    """Hidden states of N sequences as rows, in order of their lengths, with spare rows at the end.

    states     for each layer (R, D)
    token_ids  int64 (R,), of the rows
    bounds     int64 (N, 2): first row of each sequence, and the row after its last
    members    the sequences of each length, whose rows are adjacent, in this order
    """

    states: list[torch.Tensor]
    token_ids: torch.Tensor
    bounds: np.ndarray
    members: list[list[int]]


class Inference:
    """A model's forward passes. The model's weights must not change while this is in use.

    pack  copy the weights of a float32 CPU model (up to 4 GiB) into a layout that is faster for a few rows; worth it
          from about ten steps of generation on
    """

    def __init__(self, model: Network, *, pack: bool = False) -> None:
        self.model = model
        self.device = model.transformer.wte.weight.device
        self.blocks = cast("list[Block]", list(model.transformer.h))
        self._packed: dict[int, torch.Tensor | None] = {}
        self._in_place = self.device.type != "cpu"
        self._no_bias: dict[int, torch.Tensor] = {}
        self.kept: list[Any] = []  # lanes.py keeps the buffers of a graph here, for the next batch
        if pack:
            layers = [cast(nn.Linear, m) for m in model.modules() if type(m) in PLAIN]
            if sum(layer.weight.nbytes for layer in layers) <= PACK_LIMIT_BYTES:
                self._packed = {id(layer): pack_weight(layer.weight) for layer in layers}

    def pass_rows(self, max_rows: int) -> int:
        """The rows that a pass should have, where the memory allows max_rows."""
        return min(max_rows, CPU_ROWS) if self.device.type == "cpu" else max_rows

    def hidden_states(self, sequences: Sequence[TokenIds], layer: int = -1) -> list[torch.Tensor]:
        """Hidden states (T_i, D) of each sequence of token ids, all in memory at once.

        layer  as in `Network.hidden_states`. Raises ValueError for an empty or too long sequence, or ids out of range.
        """
        return self.hidden_layers(sequences, [layer])[0]

    @torch.no_grad()
    def hidden_layers(self, sequences: Sequence[TokenIds], layers: Sequence[int]) -> list[list[torch.Tensor]]:
        """The same for several layers in one pass: a list for each of `layers`, in their order."""
        rows = self.hidden_rows(sequences, layers)
        return [[x[start:stop] for start, stop in rows.bounds.tolist()] for x in rows.states]

    @torch.no_grad()
    def hidden_rows(self, sequences: Sequence[TokenIds], layers: Sequence[int]) -> "HiddenRows":
        """The same as the rows of all sequences in one tensor for each layer: faster for many short sequences."""
        wanted = [self.model.layer_index(layer) for layer in layers]
        rows = _Rows(self.model, sequences)
        x = self._embed(rows)
        states = {0: x.clone() if 0 in wanted else x}  # blocks may change x in place
        for number, block in enumerate(self.blocks[: max(wanted)], 1):
            x = self._block(block, x, lambda qkv: rows.attend(qkv, self.model.num_heads))
            if number == self.model.num_layers:
                states[number] = self.model.transformer.ln_f(x)
            elif number in wanted:
                states[number] = x.clone() if self._in_place else x
        return HiddenRows(
            [states[layer] for layer in wanted],
            rows.token_ids,
            np.array([rows.start, rows.stop]).T,
            rows.members,
        )

    @torch.no_grad()
    def attention_weights(self, sequence: Sequence[int], blocks: Sequence[int]) -> torch.Tensor:
        """float32 (len(blocks), H, T, T), on the CPU: softmax of the scores of each head, query by key, in the blocks
        with these numbers (1..num_layers, ascending). Raises ValueError as `hidden_states`."""
        rows, heads, tokens = _Rows(self.model, [sequence]), self.model.num_heads, len(sequence)
        visible = visible_keys(tokens, self.device, True, None, None)
        found = []
        x = self._embed(rows)
        for number, block in enumerate(self.blocks[: max(blocks)], 1):

            def attend(qkv: torch.Tensor, wanted: bool = number in blocks) -> torch.Tensor:
                if wanted:
                    width = qkv.shape[1] // 3
                    q, k, _ = qkv[:tokens].view(1, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
                    weights, _ = attention_weights(q, k, visible, (width // heads) ** -0.5)
                    found.append(weights[0].float().cpu())
                return rows.attend(qkv, heads)

            x = self._block(block, x, attend)
        return torch.stack(found)

    @torch.no_grad()
    def continuations(
        self,
        windows: Sequence[Sequence[int]],
        kept: Sequence[Sequence[int]],
        branches: Sequence[Sequence[tuple[int, Sequence[int]]]],
    ) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        """Windows, and continuations of parts of them; each window is computed once.

        windows   token ids
        kept      for each window the places whose hidden states are returned
        branches  for each window pairs (n, token ids, which may be empty): what may follow its first n >= 1 tokens
        Returns for each window the states (len(kept), D), and for each of its branches the states (L, D) at the
        branch's tokens, after ln_f. Raises ValueError for an empty window, too many tokens, or ids out of range.
        """
        of = [(w, n, ids) for w, some in enumerate(branches) for n, ids in some if len(ids)]
        rows = _Rows(
            self.model,
            [*windows, *(ids for *_, ids in of)],
            [None] * len(windows) + [(w, n) for w, n, _ in of],
        )
        needed: list[int] = []
        spans = []
        for w, places in enumerate(kept):
            start, stop = rows.bounds(w)
            if not all(0 <= place < stop - start for place in places):
                raise ValueError(
                    f"window {w} has {stop - start} tokens: wanted places of 0..{stop - start - 1}"
                )
            spans.append((len(needed), len(needed) + len(places)))
            needed += [start + place for place in places]
        for i in range(len(windows), len(windows) + len(of)):
            start, stop = rows.bounds(i)
            spans.append((len(needed), len(needed) + stop - start))
            needed += range(start, stop)
        last = torch.tensor(needed + [0] * (_round_up(len(needed)) - len(needed)), device=self.device)
        x = self._embed(rows)
        for block in self.blocks[:-1]:
            x = self._block(block, x, lambda qkv: rows.attend(qkv, self.model.num_heads))
        # the last block computes only the rows that are needed
        x = self._block(self.blocks[-1], x, lambda qkv: rows.attend(qkv, self.model.num_heads)[last], last)
        x = self.model.transformer.ln_f(x)
        states = [x[start:stop] for start, stop in spans]
        of_branches = iter(states[len(windows) :])
        return [
            (states[w], [next(of_branches) if len(ids) else x[:0] for _, ids in some])
            for w, some in enumerate(branches)
        ]

    @torch.no_grad()
    def prefill(
        self,
        sequences: Sequence[Sequence[int]],
        cache: KeyValueCache | None = None,
        lanes: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Hidden states (B, D) at each sequence's last token, after ln_f.

        Equal sequences are computed once. With a cache, sequence i becomes the content of its lane lanes[i] (by default
        of lane i); the cache must have room. Errors as in `hidden_states`.
        """
        unique: dict[tuple[int, ...], int] = {}
        place = [unique.setdefault(tuple(sequence), len(unique)) for sequence in sequences]
        rows = _Rows(self.model, list(unique))
        heads, size = self.model.num_heads, self.model.config.head_size
        if lanes is None:
            lanes = range(len(sequences))
        if cache is not None:
            new = torch.tensor([len(sequence) for sequence in sequences], device=self.device)
            cache.lengths[torch.tensor(list(lanes), device=self.device)] = new
        x = self._embed(rows)
        for number, block in enumerate(self.blocks):
            last = number == len(self.blocks) - 1

            def attend(qkv: torch.Tensor, number: int = number, last: bool = last) -> torch.Tensor:
                if cache is not None:
                    for room, column in ((cache.keys[number], 1), (cache.values[number], 2)):
                        for lane, at in zip(lanes, place, strict=True):
                            start, stop = rows.bounds(at)
                            piece = qkv[start:stop].view(stop - start, 3, heads, size)[:, column]
                            room[lane, :, : stop - start] = piece.transpose(0, 1)
                return rows.attend_last(qkv, heads) if last else rows.attend(qkv, heads)

            x = self._block(block, x, attend, rows.last_rows if last else None)
        return self.model.transformer.ln_f(x)[: len(unique)][torch.tensor(place, device=self.device)]

    @torch.no_grad()
    def decode(self, token_ids: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
        """Hidden states (R, D) at one new token of each sequence, int64 (B,), which is added to the cache; the rows
        from B on are spare, as `logits` takes them.

        Nothing here waits for a GPU, and every tensor that outlives the call is changed in place, so a call can be
        captured in a CUDA graph. Raises ValueError on the CPU if a sequence has no position or no room left.
        """
        B = len(token_ids)
        capacity = min(cache.keys[0].shape[2], self.model.max_len)
        if self.device.type == "cpu" and int(cache.lengths.max()) >= capacity:
            raise ValueError(
                f"a sequence has {int(cache.lengths.max())} tokens in the cache: wanted fewer than its capacity, "
                f"{capacity}"
            )
        transformer = self.model.transformer
        x = transformer.wte.weight.new_zeros(_round_up(B), self.model.embedding_dim)
        torch.add(transformer.wte(token_ids), transformer.wpe(cache.lengths), out=x[:B])
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):

            def attend(
                qkv: torch.Tensor, keys: torch.Tensor = keys, values: torch.Tensor = values
            ) -> torch.Tensor:
                return attention_extend(qkv, keys, values, cache.lengths)

            x = self._block(block, x, attend)
        cache.lengths.add_(1)
        return transformer.ln_f(x)

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor, part: HeadPart | RoundedLinear | None = None) -> torch.Tensor:
        """(R, D) after ln_f -> (R, V); with `part` only the columns of some tokens."""
        spare = _round_up(len(hidden)) - len(hidden)
        padded = self.head_rows(F.pad(hidden, (0, 0, 0, spare)) if spare else hidden)
        if part is None:
            return self.linear(self.model.last_projection, padded)[: len(hidden)]
        if isinstance(part, RoundedLinear):
            return part(padded)[: len(hidden)]
        return linear(padded, part.weight, part.bias)[: len(hidden)]

    def head_part(self, tokens: torch.Tensor) -> HeadPart | RoundedLinear | None:
        """The last projection of some tokens, int64 (n,), for `logits`; None if an adapter has replaced it."""
        last = self.model.last_projection
        return head_part(last, tokens) if type(last) in PLAIN or isinstance(last, RoundedLinear) else None

    @cached_property
    def distinct_head(self) -> DistinctRows | None:
        """The last projection with equal rows computed once; None without (many) equal rows or with an adapter."""
        last = self.model.last_projection
        return distinct_rows(last) if type(last) in PLAIN or isinstance(last, RoundedLinear) else None

    @torch.no_grad()
    def head_rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """`Network.head_rows` with products whose rows do not depend on each other: (R, D) -> (R, D)."""
        first, act, norm, _ = self.model.mlm_head
        return norm(act(self.linear(first, hidden)))

    def linear(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if type(layer) not in PLAIN:  # replaced by an adapter
            return layer(x)
        layer = cast(nn.Linear, layer)
        return linear(x, layer.weight, layer.bias, packed=self._packed.get(id(layer)))

    def _embed(self, rows: "_Rows") -> torch.Tensor:
        transformer = self.model.transformer
        return transformer.wte(rows.token_ids) + transformer.wpe(rows.positions)

    def _block(
        self,
        block: Block,
        x: torch.Tensor,
        attend: Callable[[torch.Tensor], torch.Tensor],
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One block over rows; `kept`: the rows that `attend` returns, if not all. On a GPU the sums with x and GELU
        run inside the products, and x is changed in place."""
        attended = attend(self.linear(block.attn.c_attn, block.ln_1(x)))
        x = x if kept is None else x[kept]
        if not self._in_place:
            x = x + self.linear(block.attn.c_proj, attended)
            wide = gelu(self.linear(block.mlp.c_fc, block.ln_2(x)))
            return x + self.linear(block.mlp.c_proj, wide)
        x = self._add_product(x, block.attn.c_proj, attended)
        rows, first = block.ln_2(x), block.mlp.c_fc
        if type(first) in PLAIN:
            weight, bias = first.weight, first.bias
            if bias is None:  # the fused product wants one
                if len(weight) not in self._no_bias:
                    self._no_bias[len(weight)] = weight.new_zeros(len(weight))
                bias = self._no_bias[len(weight)]
            wide = torch._addmm_activation(
                bias, rows, weight.t(), use_gelu=True
            )  # the tanh approximation on CUDA
        else:
            wide = gelu(self.linear(first, rows))
        return self._add_product(x, block.mlp.c_proj, wide)

    def _add_product(self, x: torch.Tensor, layer: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """x += layer(rows), in place."""
        if type(layer) not in PLAIN:
            return x.add_(layer(rows))
        layer = cast(nn.Linear, layer)
        x.addmm_(rows, layer.weight.t())
        return x if layer.bias is None else x.add_(layer.bias)


class _Rows:
    """Sequences concatenated, those of equal length adjacent, then rows of token 0 up to a multiple of ROWS_MULTIPLE.

    parents  for each sequence None, or (i, n): it continues the first n tokens of sequence i, which it sees too
    """

    def __init__(
        self,
        model: Network,
        sequences: Sequence[TokenIds],
        parents: Sequence[tuple[int, int] | None] | None = None,
    ) -> None:
        device = model.transformer.wte.weight.device
        parents = parents or [None] * len(sequences)
        before = [0 if parent is None else parent[1] for parent in parents]
        for parent in parents:
            if parent is not None and not 1 <= parent[1] <= len(sequences[parent[0]]):
                raise ValueError(
                    f"a branch after {parent[1]} tokens: sequence {parent[0]} has {len(sequences[parent[0]])}"
                )
        for i, sequence in enumerate(sequences):
            if not 1 <= len(sequence) <= model.max_len - before[i]:
                raise ValueError(
                    f"sequence {i} has {len(sequence)} tokens: wanted 1..{model.max_len - before[i]} (max_len)"
                )

        def shape(i: int) -> tuple[int, int]:
            return before[i], len(sequences[i])

        self.groups: list[tuple[int, int, int]] = []  # first row, sequences, tokens in each
        self.members: list[list[int]] = []  # of each group
        self.continued: list[tuple[int, int, int, torch.Tensor]] = []  # and the rows (B, S) that they see
        self.start = [0] * len(sequences)
        self.stop = [0] * len(sequences)
        self.count = 0
        flat: list[np.ndarray] = []
        positions: list[np.ndarray] = []
        for (first, tokens), same in groupby(sorted(range(len(sequences)), key=shape), key=shape):
            members = list(same)
            start = self.count
            for i in members:
                self.start[i], self.stop[i] = self.count, self.count + tokens
                self.count += tokens
                flat.append(np.asarray(sequences[i], np.int64))
            positions.append(np.tile(np.arange(first, first + tokens), len(members)))
            if not first:
                self.groups.append((start, len(members), tokens))
                self.members.append(members)
                continue
            # parents come before the sequences that continue them, because their first position is 0
            began = [self.start[cast("tuple[int, int]", parents[i])[0]] for i in members]
            seen = [
                [*range(row, row + first), *range(*self.bounds(i))]
                for row, i in zip(began, members, strict=True)
            ]
            self.continued.append((start, len(members), tokens, torch.tensor(seen, device=device)))
        self.boundaries: torch.Tensor | None = None
        if packs_unequal_lengths(device) and len(self.groups) > FEW_LENGTHS and not self.continued:
            starts = sorted(self.start)
            self.boundaries = torch.tensor([*starts, self.count], dtype=torch.int32, device=device)
        spare = np.zeros(rows_of_a_pass(self.count, device) - self.count, np.int64)
        self.token_ids = torch.from_numpy(np.concatenate([*flat, spare]))
        low, high = (int(end) for end in torch.aminmax(self.token_ids))
        if low < 0 or high >= model.vocab_size:
            raise ValueError(
                f"token ids {low}..{high}: this model's vocabulary has ids 0..{model.vocab_size - 1}"
            )
        self.token_ids = self.token_ids.to(device)
        self.positions = torch.from_numpy(np.concatenate([*positions, spare])).to(device)
        last = [stop - 1 for stop in self.stop]
        self.last_rows = torch.tensor(last + [0] * (_round_up(len(last)) - len(last)), device=device)

    def bounds(self, i: int) -> tuple[int, int]:
        return self.start[i], self.stop[i]

    def attend(self, qkv: torch.Tensor, heads: int) -> torch.Tensor:
        """Causal attention within each sequence and its parent: (R, 3D) -> (R, D), 0 in the spare rows."""
        width = qkv.shape[1] // 3
        out = qkv.new_zeros(len(qkv), width)
        if self.boundaries is not None:
            q, k, v = qkv[: self.count].view(1, self.count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            if implementation_for(q, masked=True).name == "triton":
                o = cast(torch.Tensor, attention(q, k, v, cu_seqlens=self.boundaries))
                out[: self.count] = merge_heads(o)[0]
                return out
        for start, B, T in self.groups:
            stop = start + B * T
            q, k, v = qkv[start:stop].view(B, T, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            if attention_is_batch_independent(T):
                o = cast(torch.Tensor, attention(q, k, v))
            else:  # this one is, whatever the number of its queries
                o = attention_decode(q, k, v, self.positions.new_full((B,), T))
            out[start:stop] = merge_heads(o).view(stop - start, width)
        for start, B, T, seen in self.continued:
            S, size = seen.shape[1], width // heads
            q = qkv[start : start + B * T, :width].view(B, T, heads, size).transpose(1, 2)
            k, v = qkv[:, width:][seen].view(B, S, 2, heads, size).permute(2, 0, 3, 1, 4)
            o = attention_decode(q, k, v, seen.new_full((B,), S))
            out[start : start + B * T] = merge_heads(o).view(B * T, width)
        return out

    def attend_last(self, qkv: torch.Tensor, heads: int) -> torch.Tensor:
        """The same for the last token of each sequence only, in the order of `last_rows`."""
        width = qkv.shape[1] // 3
        out = qkv.new_zeros(len(self.last_rows), width)
        for i, (start, stop) in enumerate(zip(self.start, self.stop, strict=True)):
            q, k, v = qkv[start:stop].view(1, stop - start, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            length = torch.tensor([stop - start], device=qkv.device)
            out[i] = attention_decode(q[:, :, -1:], k, v, length).reshape(width)
        return out


def packs_unequal_lengths(device: torch.device) -> bool:
    """Whether sequences of more than FEW_LENGTHS lengths share one attention call. On the CPU no sequence's bits may
    depend on its neighbours; on a GPU they do in the products already."""
    return device.type != "cpu"


def rows_of_a_pass(rows: int, device: torch.device) -> int:
    """The number of rows with the spare ones: on a GPU few different ones, so that the library's products are few."""
    if device.type == "cpu" or rows <= FEW_ROWS:
        return _round_up(rows)
    return -(-rows // FEW_ROWS) * FEW_ROWS


def _round_up(rows: int) -> int:
    return -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE


def row_batches(lengths: Sequence[int], max_rows: int) -> Iterator[list[int]]:
    """Indices in order of length, in batches of at most max_rows rows (a longer sequence goes alone)."""
    batch: list[int] = []
    rows = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and rows + lengths[i] > max_rows:
            yield batch
            batch, rows = [], 0
        batch.append(i)
        rows += lengths[i]
    if batch:
        yield batch
