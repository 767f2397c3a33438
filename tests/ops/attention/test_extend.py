"""ops.attention.extend: one token more in each cache, by one kernel, against two writes and attention_decode."""

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention import extend_kernel
from dnagpt_fast.ops.attention.extend import attention_extend
from tests.closeness import assert_no_worse_than_naive

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def inputs(B, R, H, S, K, dtype):
    """qkv (R, 3HK) and caches that are zero from each length on."""
    qkv = torch.randn(R, 3 * H * K).to(dtype)
    caches = torch.randn(2, B, H, S, K).to(dtype)
    lengths = torch.randint(0, S, (B,))
    lengths[0], lengths[-1] = S - 1, 0
    for b, length in enumerate(lengths):
        caches[:, b, :, length:] = 0
    return qkv, caches, lengths


def extend(implementation, qkv, caches, lengths):
    changed = caches.clone()
    decode = {"separate": "reference", "triton": "triton"}[implementation]
    with dispatch.using(attention_extend=implementation, attention_decode=decode):
        return attention_extend(qkv, *changed, lengths), changed


# one slot; either side of a tile (64 keys in fp32, 128 in half); either side of a part (512), three parts
@pytest.mark.parametrize(
    ("S", "K", "dtype"),
    [
        (1, 32, torch.float32),
        pytest.param(64, 64, torch.float32, marks=pytest.mark.slow),
        (65, 32, torch.float32),
        (129, 128, torch.float16),
        pytest.param(512, 64, torch.float16, marks=pytest.mark.slow),
        (513, 32, torch.float16),
        pytest.param(1300, 64, torch.float16, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_worse_than_plain_torch(S, K, dtype):
    qkv, caches, lengths = inputs(3, 5, 2, S, K, dtype)
    ours, changed = extend("triton", qkv, caches, lengths)
    naive, written = extend("separate", qkv, caches, lengths)
    truth, _ = extend("separate", qkv.double(), caches.double(), lengths)
    assert_no_worse_than_naive("o", ours, naive, truth)
    assert changed.equal(written)
    assert (ours[3:] == 0).all()


def test_the_bits_of_a_sequence_depend_neither_on_the_batch_nor_on_the_room():
    qkv, caches, lengths = inputs(2, 3, 1, 700, 32, torch.float16)
    whole, _ = extend("triton", qkv, caches, lengths)
    for b, length in enumerate(lengths.tolist()):
        for slots in {length + 1, min(length + 200, 700)}:
            part = caches[:, b : b + 1, :, :slots].contiguous()
            alone, _ = extend("triton", qkv[b : b + 1], part, lengths[b : b + 1])
            assert alone.equal(whole[b : b + 1])


def test_slots_beyond_the_length_are_never_read():
    qkv, caches, lengths = inputs(2, 2, 1, 200, 32, torch.float32)
    before, _ = extend("triton", qkv, caches, lengths)
    for b, length in enumerate(lengths):
        caches[:, b, :, length:] = torch.nan
    assert extend("triton", qkv, caches, lengths)[0].equal(before)


def test_a_full_cache_takes_no_token_and_its_neighbours_are_untouched():
    qkv, caches, _ = inputs(2, 2, 1, 8, 32, torch.float32)
    lengths = torch.tensor([8, 3])
    _, changed = extend("triton", qkv, caches, lengths)
    assert changed[:, 0].equal(caches[:, 0])
    caches[:, 1, :, 3] = changed[:, 1, :, 3]
    assert changed.equal(caches)


def test_the_number_of_launches():
    """One up to KEYS slots, then two: the second combines the parts."""
    counted = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            counted.append((self.name, *grid))
            return lambda *arguments, **constants: None

    patch = pytest.MonkeyPatch()
    patch.setattr(extend_kernel, "attention_extend_kernel", Recorder("extend"))
    patch.setattr(extend_kernel, "attention_decode_combine_kernel", Recorder("combine"))
    with patch.context():
        for S in (512, 513):
            qkv, caches, lengths = inputs(3, 16, 2, S, 32, torch.float32)
            extend("triton", qkv, caches, lengths)
    patch.undo()
    assert counted == [("extend", 32), ("extend", 64), ("combine", 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": torch.zeros(2, 95)}, r"wanted \(R, 3HK\)"),
        ({"qkv": torch.zeros(1, 96)}, "R >= B"),
        ({"qkv": torch.zeros(2, 96, dtype=torch.float16)}, "one dtype"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, r"int64 \(2,\)"),
        ({"caches": torch.zeros(2, 2, 1, 32, 8).transpose(3, 4)}, "last stride of 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    given = {
        "qkv": torch.zeros(2, 96),
        "caches": torch.zeros(2, 2, 1, 8, 32),
        "lengths": torch.tensor([0, 0]),
    }
    given |= change
    with pytest.raises(ValueError, match=message):
        attention_extend(given["qkv"], *given["caches"], given["lengths"])
