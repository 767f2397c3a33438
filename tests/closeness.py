"""The 2x rule for kernels: the error is at most twice that of the plain formula in the same dtype.

This is the rule of FlashAttention's tests, with truth in fp64: |kernel - truth| <= factor * |naive - truth| +
slack. The slack is a few units in the last place of the largest true value, for outputs that the plain
formula computes exactly.
"""

from collections.abc import Callable, Sequence

import torch

SLACK_ULPS = 4


def assert_no_worse_than_naive(
    name: str, kernel: torch.Tensor | None, naive: torch.Tensor, truth: torch.Tensor, factor: float = 2.0
) -> None:
    """kernel and naive in one dtype, truth in float64, all of one shape. Raises AssertionError with the
    difference."""
    assert kernel is not None, f"{name}: missing"
    assert truth.dtype == torch.float64, f"{name}: truth is {truth.dtype}, wanted float64"
    assert kernel.shape == truth.shape, f"{name}: shape {tuple(kernel.shape)}, wanted {tuple(truth.shape)}"
    assert kernel.dtype == naive.dtype, f"{name}: dtype {kernel.dtype}, the naive formula gives {naive.dtype}"
    finite = torch.isfinite(truth)
    assert torch.equal(kernel.double()[~finite], truth[~finite]), (
        f"{name}: infinities differ from the truth's"
    )
    assert torch.isfinite(kernel[finite]).all(), f"{name}: not finite where the truth is"
    if not finite.any():
        return
    error = (kernel.double() - truth)[finite].abs()
    allowed = factor * (naive.double() - truth)[finite].abs().max()
    slack = SLACK_ULPS * torch.finfo(kernel.dtype).eps * truth[finite].abs().max()
    assert error.max() <= allowed + slack, (
        f"{name}: largest error {error.max():.3e} (truth up to {truth[finite].abs().max():.3e}), "
        f"allowed {allowed:.3e} + {slack:.3e}"
    )


def outputs_and_gradients(
    function: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    """Runs `function` on leaf copies of `inputs`, and its backward with the cotangents; None for missing
    gradients."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    result = function(*leaves)
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    for i, (output, cotangent) in enumerate(zip(outputs, cotangents, strict=True)):
        assert output.shape == cotangent.shape, (
            f"output {i}: shape {tuple(output.shape)}, wanted {tuple(cotangent.shape)}"
        )
    torch.autograd.backward(outputs, [c.to(o.dtype) for c, o in zip(cotangents, outputs, strict=True)])
    return [o.detach() for o in outputs], [x.grad for x in leaves if x.is_floating_point()]


def assert_function_no_worse_than_naive(
    kernel: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    naive: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    names: Sequence[str],
    factor: float = 2.0,
) -> None:
    """Compares every output and every gradient of `kernel` with `naive` in fp64 and in the inputs' own dtype.

    names: one per output, then one per floating-point input (its gradient).
    """
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    truth = outputs_and_gradients(naive, wide, [c.double() for c in cotangents])
    plain = outputs_and_gradients(naive, inputs, cotangents)
    ours = outputs_and_gradients(kernel, inputs, cotangents)
    flat = [[*outputs, *gradients] for outputs, gradients in (ours, plain, truth)]
    assert len(names) == len(flat[0]), f"{len(names)} names for {len(flat[0])} outputs and gradients"
    for name, k, n, t in zip(names, *flat, strict=True):
        assert_no_worse_than_naive(name, k, n, t, factor)
