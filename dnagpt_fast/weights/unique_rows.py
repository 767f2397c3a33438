"""Stores a tensor with repeated rows as its distinct rows and an index: the head of a model trained with occurring
tokens has 15,463 equal rows of 19,564."""

from collections.abc import Iterable

import torch

from dnagpt_fast.training.tensor_files import StateDict

ROWS, PLACE = ".rows", ".row_of"


def without_repeats(state: StateDict, names: Iterable[str]) -> StateDict:
    """The tensors, but each named tensor (V, ...) as `NAME.rows`, its distinct rows in the order of their first
    occurrence, and `NAME.row_of`, int32 (V,), the row of each entry."""
    packed = dict(state)
    for name in names:
        table = packed.pop(name)
        flat = table.reshape(len(table), -1)
        _, place = torch.unique(flat, dim=0, return_inverse=True)
        first = torch.full((int(place.max()) + 1,), len(table)).scatter_reduce(
            0, place, torch.arange(len(table)), "amin"
        )
        order = torch.argsort(first)
        packed[name + ROWS] = table[first[order]].contiguous()
        packed[name + PLACE] = torch.argsort(order)[place].to(torch.int32)
    return packed


def with_repeats(state: StateDict) -> StateDict:
    """The original tensors. Raises KeyError or IndexError if rows and index do not fit."""
    whole = dict(state)
    for name in [name for name in state if name.endswith(PLACE)]:
        place = whole.pop(name).long()
        whole[name.removesuffix(PLACE)] = whole.pop(name.removesuffix(PLACE) + ROWS)[place]
    return whole
