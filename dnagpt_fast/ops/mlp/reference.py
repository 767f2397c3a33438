"""The MLP of a block in plain torch: the definition that the other ways are compared with.

    z = x W1^T + b1,     y = gelu(z) W2^T + b2

with the tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
"""

import torch
import torch.nn.functional as F


def mlp_reference(
    x: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Shapes as in op.py."""
    return F.linear(F.gelu(F.linear(x, up, up_bias), approximate="tanh"), down, down_bias)
