"""Stores a tensor with repeated rows as its distinct rows and an index: the head of a model trained with occurring
tokens has 15,463 equal rows of 19,564."""

from collections.abc import Iterable, Iterator

import torch

from dnagpt_fast.model.head_part import equal_rows
from dnagpt_fast.training.tensor_files import StateDict

ROWS, PLACE = ".rows", ".row_of"


def without_repeats(state: StateDict, names: Iterable[str]) -> StateDict:
    """The tensors, but each named tensor (V, ...) as `NAME.rows`, its distinct rows in the order of their first
    occurrence, and `NAME.row_of`, int32 (V,), the row of each entry."""
    packed = dict(state)
    for name in names:
        table = packed.pop(name)
        first, place = equal_rows(table)
        packed[name + ROWS] = table[first].contiguous()
        packed[name + PLACE] = place.to(torch.int32)
    return packed


def whole_shapes(state: StateDict) -> StateDict:
    """The tensors as `with_repeats` gives them, the tables on the meta device: their shapes without their memory.

    A small file can name a table of any size, so it is asked first whether the model has such a one.
    Raises ValueError where rows and places do not belong together.
    """
    whole = dict(state)
    for name, rows, place in _tables(state):
        whole[name] = torch.empty((len(place), *rows.shape[1:]), dtype=rows.dtype, device="meta")
        del whole[name + ROWS], whole[name + PLACE]
    return whole


def with_repeats(state: StateDict) -> StateDict:
    """The tensors as they were. Raises ValueError where rows and places do not belong together."""
    whole = dict(state)
    for name, rows, place in _tables(state):
        whole[name] = rows[place.long()]
        del whole[name + ROWS], whole[name + PLACE]
    return whole


def _tables(state: StateDict) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, different rows, place of each row among them) of every table that was packed."""
    for name in [name.removesuffix(PLACE) for name in state if name.endswith(PLACE)]:
        rows, place = state.get(name + ROWS), state[name + PLACE]
        if rows is None or name in state:
            raise ValueError(f"{name}{PLACE} is there without {name}{ROWS}, or beside {name} itself")
        if place.dtype != torch.int32 or place.dim() != 1 or rows.dim() < 1:
            raise ValueError(
                f"{name}{PLACE} is {place.dtype} {tuple(place.shape)}, {name}{ROWS} has shape {tuple(rows.shape)}"
            )
        if len(place) and not 0 <= int(place.min()) <= int(place.max()) < len(rows):
            raise ValueError(f"{name}{PLACE} names rows that {name}{ROWS} does not have")
        yield name, rows, place
