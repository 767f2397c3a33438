"""attention_decode on the CPU: the reference's results, and the same bits in any batch."""

import pytest
import torch

from dnagpt_fast.ops import attention_decode, dispatch


def problem(B, H, Q, S, K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, H, T, K, generator=generator) for T in (Q, S, S))
    lengths = torch.randint(Q, S + 1, (B,), generator=generator)
    lengths[1] = lengths[0]
    return q, k, v, lengths


@pytest.mark.parametrize("Q", [1, 2, 3, 5])
def test_grouped_is_the_reference(Q):
    """Lengths from Q to S = 70, two neighbours equal; fp32 against the reference in fp64."""
    q, k, v, lengths = problem(7, 3, Q, 70, 16)
    with dispatch.using(attention_decode="reference"):
        truth = attention_decode(q.double(), k.double(), v.double(), lengths)
    with dispatch.using(attention_decode="grouped"):
        got = attention_decode(q, k, v, lengths)
    torch.testing.assert_close(got.double(), truth, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("H", "K", "S"), [(3, 16, 48), (12, 64, 130)])
def test_a_sequence_does_not_depend_on_the_others(H, K, S):
    """Alone, among others of its length, and with a cache of more slots: the same bits."""
    with dispatch.using(attention_decode="grouped"):
        for seed in range(5):
            q, k, v, lengths = problem(8, H, 1, S, K, seed)
            lengths[2:6] = lengths[0]
            together = attention_decode(q, k, v, lengths)
            for b in range(8):
                one = slice(b, b + 1)
                n = int(lengths[b])
                assert attention_decode(q[one], k[one], v[one], lengths[one]).equal(together[one])
                assert attention_decode(q[one], k[one, :, :n], v[one, :, :n], lengths[one]).equal(
                    together[one]
                )
