"""Equal rows of a table: where each occurs first, and which rows are equal to it."""

import pytest
import torch

from dnagpt_fast.model.head_part import HASHED_COLUMNS, equal_rows


def definition(table):
    """By Python's dictionary of rows, in the order of their first occurrence."""
    first: dict[tuple, int] = {}
    for at, row in enumerate(table.tolist()):
        first.setdefault(tuple(row), at)
    order = {row: number for number, row in enumerate(first)}
    return list(first.values()), [order[tuple(row)] for row in table.tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
@pytest.mark.parametrize("columns", [3, HASHED_COLUMNS + 4])
def test_equal_rows_are_found_in_the_order_of_their_first_occurrence(dtype, columns):
    generator = torch.Generator().manual_seed(columns)
    rows = torch.randint(-3, 4, (12, columns), generator=generator).to(dtype)
    table = rows[torch.randint(0, 12, (60,), generator=generator)]
    first, place = equal_rows(table)
    assert (first.tolist(), place.tolist()) == definition(table)
    assert torch.equal(table[first][place], table)


def test_rows_that_differ_only_after_the_hashed_columns_are_different():
    table = torch.ones(6, HASHED_COLUMNS + 2)
    table[[1, 4], -1] = 2.0
    first, place = equal_rows(table)
    assert first.tolist() == [0, 1]
    assert place.tolist() == [0, 1, 0, 0, 1, 0]
