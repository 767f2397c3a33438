"""Which implementation of the MLP a CUDA tensor gets when the dispatch table says "rule", and why.

Forward and backward, the kernels move 3 F numbers of a row less than GELU between products of the library (F = 4 D, the
width of z): z is not read again, and the gradient of gelu(z) is neither written nor read. In half precision these are
24 D bytes of a row, at the memory's rate m. In exchange two products, together 16 D^2 operations of a row, run at a
share s of the library's rate p. The kernels are faster where

    16 D^2 / p (1 / s - 1) < 24 D / m,     so     D < 1.5 p / (m (1 / s - 1)).

Wide models are left to the library: their time is in the products. p and m are those of planning/predicted.py. s is
0.4 on Hopper (measured: the recomputing loss kernels make 243 TFLOP/s, docs/gpu_measured.md) and 0.9 on Ampere and Ada
(assumed: Triton's own matrix product is level with cuBLAS there for large matrices). torch.compile does not change the
comparison: it leaves these products to the library too, and makes one kernel of GELU, as torch does.
"""

import torch

from dnagpt_fast.ops import dispatch, triton_settings

HALF = (torch.float16, torch.bfloat16)
SHARE = {"sm_80": 0.9, "sm_89": 0.9, "sm_90": 0.4}
"""s of the cards that have a figure; on others the library is taken."""
WIDEST = {"sm_80": 1920, "sm_89": 2112, "sm_90": 192}
"""The largest D by the inequality, a multiple of 64 (tests/ops/mlp/test_rule.py)."""


@dispatch.constant_when_compiled
def widest(device: torch.device) -> int:
    """The largest width for which the kernels are predicted to be faster on this card; 0: none."""
    return WIDEST.get(triton_settings.architecture(device), 0)


def implementation_for(x: torch.Tensor, dtype: torch.dtype, *, trained: bool) -> str:
    """ "triton" or "dense", for rows x (..., D) that are computed in `dtype`. trained: with a backward pass."""
    return "triton" if trained and dtype in HALF and x.shape[-1] <= widest(x.device) else "dense"
