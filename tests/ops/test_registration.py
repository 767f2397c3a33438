"""Ops of this package as ops of torch: registered once, traceable, and refusing a second derivative."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dnagpt_fast.ops.registration import refuse_second_derivative, register_op


@pytest.fixture(scope="module")
def doubled():
    return register_op(
        "test_registration_doubled(Tensor x, int times) -> Tensor",
        lambda x, times: x * 2**times,
        fake=lambda x, times: torch.empty_like(x),
    )


def test_a_registered_op_runs_and_is_traced(doubled):
    assert doubled is torch.ops.dnagpt_fast.test_registration_doubled
    assert doubled(torch.ones(3), 2).tolist() == [4, 4, 4]
    torch.library.opcheck(doubled, (torch.ones(3), 2))
    with FakeTensorMode() as mode:
        assert doubled(mode.from_tensor(torch.ones(3)), 2).shape == (3,)


def test_a_name_is_registered_once(doubled):
    with pytest.raises(RuntimeError, match="test_registration_doubled"):
        register_op("test_registration_doubled(Tensor x, int times) -> Tensor", abs, fake=abs)


def test_the_second_derivative_is_refused_where_one_is_made():
    with torch.no_grad():
        refuse_second_derivative("combined_loss")
    with pytest.raises(RuntimeError, match=r'no second derivative.*combined_loss="reference"'):
        refuse_second_derivative("combined_loss")
