"""ops.attention_decode: the kernel over a cache against the definition, and against attention over whole sequences."""

import math
from unittest import mock

import pytest
import torch

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention import decode_kernels
from tests.closeness import assert_no_worse_than_naive

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def decode(implementation, *arguments):
    with dispatch.using(attention_decode=implementation):
        return ops.attention_decode(*arguments)


def inputs(B, H, Q, S, K, dtype):
    q = torch.randn(B, H, Q, K).to(dtype)
    # (B, S, H, K) in memory, as a model writes its projections
    k, v = torch.randn(2, B, S, H, K).to(dtype).transpose(2, 3)
    return q, k, v


# one key; either side of a part (64 keys in fp32, 128 in half); several parts; more parts than one combining step (16)
@pytest.mark.parametrize("S", [1, 64, 65, 128, 129, 300, 2300])
@pytest.mark.parametrize("K", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_no_worse_than_plain_torch(S, K, dtype):
    for queries in {1, min(3, S)}:
        q, k, v = inputs(3, 2, queries, S, K, dtype)
        lengths = torch.tensor([S, queries, (S + queries) // 2])
        truth = decode("reference", q.double(), k.double(), v.double(), lengths)
        naive = decode("reference", q, k, v, lengths)
        assert_no_worse_than_naive("o", decode("triton", q, k, v, lengths), naive, truth)


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference", "grouped"])
def test_it_is_the_last_rows_of_attention(implementation):
    q, k, v = torch.randn(3, 2, 2, 50, 32)
    lengths = torch.tensor([50, 31], dtype=torch.int32)
    whole = ops.attention(q, k, v)
    newest = torch.stack([q[0, :, 45:50], q[1, :, 26:31]])
    wanted = torch.stack([whole[0, :, 45:50], whole[1, :, 26:31]])
    torch.testing.assert_close(decode(implementation, newest, k, v, lengths), wanted)


def test_many_queries_take_several_tiles():
    q, k, v = inputs(1, 2, 37, 90, 32, torch.float32)
    lengths = torch.tensor([88])
    torch.testing.assert_close(decode("triton", q, k, v, lengths), decode("reference", q, k, v, lengths))


def test_slots_beyond_the_length_are_never_read_by_the_kernel():
    q, k, v = inputs(2, 1, 1, 200, 32, torch.float32)
    lengths = torch.tensor([130, 7])
    before = decode("triton", q, k, v, lengths)
    for b, length in enumerate(lengths):
        k[b, :, length:] = torch.nan
        v[b, :, length:] = torch.nan
    assert torch.equal(decode("triton", q, k, v, lengths), before)


def test_the_bits_of_a_sequence_do_not_depend_on_the_batch():
    q, k, v = inputs(3, 2, 1, 300, 32, torch.float16)
    lengths = torch.tensor([300, 140, 9])
    whole = decode("triton", q, k, v, lengths)
    for b, length in enumerate(lengths.tolist()):
        room = (length, length + 1, 300)
        for slots in room:
            alone = decode(
                "triton", q[b : b + 1], k[b : b + 1, :, :slots], v[b : b + 1, :, :slots], lengths[b : b + 1]
            )
            assert torch.equal(alone[0], whole[b])


def test_a_query_before_the_first_token_is_zero():
    q, k, v = inputs(1, 1, 4, 70, 32, torch.float32)
    o = decode("triton", q, k, v, torch.tensor([2]))
    assert torch.equal(o[:, :, :2], torch.zeros(1, 1, 2, 32))
    torch.testing.assert_close(o[0, 0, 2], v[0, 0, 0])
    assert torch.equal(decode("triton", q, k, v, torch.tensor([0])), torch.zeros_like(q))


def test_more_heads_than_the_second_axis_of_a_grid_holds():
    """At most 65,535 programs are allowed along y and z, so the kernels put all programs along x."""
    q, cache, lengths = torch.zeros(70_000, 1, 1, 32), torch.zeros(70_000, 1, 2, 32), torch.ones(70_000)
    grids = []

    class Recorder:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *arguments, **constants: None

    with (
        mock.patch.object(decode_kernels, "attention_decode_part_kernel", Recorder()),
        mock.patch.object(decode_kernels, "attention_decode_combine_kernel", Recorder()),
    ):
        decode("triton", q, cache, cache, lengths.int())
    assert [math.prod(grid) for grid in grids] == [70_000, 70_000]
    assert all(size <= 65_535 for grid in grids for size in grid[1:])
