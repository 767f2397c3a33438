"""The next token of each sequence from its logits, and what a token changes in the lanes of a batch. Nothing here
waits for a GPU."""

import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.sampling.reference import advance_lanes_reference, next_tokens_reference
from dnagpt_fast.ops.sampling.settings import HOWS, Choice
from dnagpt_fast.ops.triton_settings import check_may_run


def next_tokens(logits: torch.Tensor, choice: Choice, numbers: torch.Tensor | None = None) -> torch.Tensor:
    """One token of each row of logits by the official rules: temperature, then top-k, then top-p, then the choice.

    logits   (B, V), floating
    choice   settings; `choice.allowed` on the device of the logits
    numbers  for how = "uniform" float64 (B,) in [0, 1); for "race" (B, V), exponential; otherwise None
    Returns int64 (B,). A row that cannot be sampled (NaN, +inf, or no token left) gives -1 in the kernel; plain torch
    gives some token. Raises ValueError for arguments that do not fit.

    The kernel takes one launch. It compares logits before they are divided by the temperature. Where probabilities are
    equal at the edge of top-p, it keeps the tokens with the lowest ids; plain torch leaves open which. Sums are in
    float32, so a draw within 1e-6 of the edge between two tokens may differ from the reference.

    >>> next_tokens(torch.tensor([[0.0, 2.0, 1.0]]), Choice()).tolist()
    [1]
    """
    _check(logits, choice, numbers)
    chosen = dispatch.choose("next_tokens", logits.device.type)
    if chosen == "rule":
        chosen = "reference" if logits.dtype == torch.float64 else "triton"
    if chosen == "triton":
        from dnagpt_fast.ops.sampling.token_kernels import next_tokens_triton

        check_may_run("next_tokens", logits, "reference")
        return next_tokens_triton(logits, choice, numbers)
    return next_tokens_reference(logits, choice, numbers)


def advance_lanes(
    tokens: torch.Tensor,
    stop_ids: torch.Tensor,
    left: torch.Tensor,
    newest: torch.Tensor,
    lengths: torch.Tensor,
    made: torch.Tensor,
    turn: torch.Tensor,
) -> None:
    """Enters one token of each lane; all tensors are int64, and all but the first two change in place.

    tokens    (B,): the tokens drawn; -1: none could be drawn
    stop_ids  (n,): a lane ends before one of these
    left      (B,): tokens that the lane may still make; 0: it has ended
    newest    (B,): the lane's newest token, the input of the next step; 0 in lanes that have ended
    lengths   (B,): tokens in the lane's cache; 0 in lanes that have ended
    made      (n, B): row turn[0] becomes the tokens made, -1 in lanes without one, -2 where none could be drawn
    turn      (1,): grows by one
    """
    for name, tensor in (("tokens", tokens), ("left", left), ("newest", newest), ("lengths", lengths)):
        if tensor.dtype != torch.int64 or tensor.shape != tokens.shape or not tensor.is_contiguous():
            raise ValueError(
                f"advance_lanes: {name} is {tensor.dtype} {tuple(tensor.shape)}; wanted int64 {tuple(tokens.shape)}"
            )
    if made.dtype != torch.int64 or made.shape[1:] != tokens.shape or not made.is_contiguous():
        raise ValueError(
            f"advance_lanes: made is {made.dtype} {tuple(made.shape)}; wanted int64 (n, {len(tokens)})"
        )
    if dispatch.choose("advance_lanes", tokens.device.type) == "triton":
        from dnagpt_fast.ops.sampling.token_kernels import advance_lanes_triton

        check_may_run("advance_lanes", tokens, "reference")
        advance_lanes_triton(tokens, stop_ids, left, newest, lengths, made, turn)
    else:
        advance_lanes_reference(tokens, stop_ids, left, newest, lengths, made, turn)


def _check(logits: torch.Tensor, choice: Choice, numbers: torch.Tensor | None) -> None:
    if logits.dim() != 2 or not logits.is_floating_point() or not logits.shape[1]:
        raise ValueError(
            f"next_tokens: logits is {logits.dtype} {tuple(logits.shape)}; wanted floating (B, V), V > 0"
        )
    if choice.how not in HOWS:
        raise ValueError(f"next_tokens: how = {choice.how!r}; wanted one of {', '.join(HOWS)}")
    wanted = {"uniform": logits.shape[:1], "race": logits.shape}.get(choice.how)
    found = None if numbers is None else numbers.shape
    if found != wanted:
        raise ValueError(
            f"next_tokens: numbers has shape {found and tuple(found)} for how = {choice.how!r}; "
            f"wanted {wanted and tuple(wanted)}"
        )
    if choice.how == "uniform" and numbers is not None and numbers.dtype != torch.float64:
        raise ValueError(f"next_tokens: numbers is {numbers.dtype}; wanted float64")
    allowed = choice.allowed
    if allowed is not None and (allowed.dtype != torch.bool or allowed.shape != logits.shape[1:]):
        raise ValueError(
            f"next_tokens: allowed is {allowed.dtype} {tuple(allowed.shape)}; wanted bool {(logits.shape[1],)}"
        )
