"""Muon for hidden matrices and AdamW for all other parameters, as one optimizer.

The step of a matrix is its orthogonalised momentum (Jordan et al. 2024, kellerjordan.github.io/posts/muon),
scaled to the size of an AdamW step, so that both share one rate and one decay (arXiv 2502.16982).
torch.optim.Muon takes only matrices, does not separate q, k and v, and computes in bfloat16, which processors
without this type emulate at a tenth of the speed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dnagpt_fast.training.adamw import AdamW

# Newton-Schulz: x <- a x + (b A + c A^2) x with A = x x^T; the coefficients of Jordan et al.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
# The root mean square of an AdamW step in units of the rate (arXiv 2502.16982, section 2.2).
ADAMW_RMS = 0.2
# Key of the momentum in an optimizer's state.
MOMENTUM = "momentum"


class MuonWithAdamW(AdamW):
    """AdamW, except that parameters in `pieces` take Muon's step.

    pieces    parameter (R, C) -> number of matrices stacked in its rows: 3 for q, k and v together, 1 for
              others
    momentum  of Muon, with Nesterov's look-ahead
    The other arguments are those of torch.optim.AdamW; a group must not have parameters of both kinds.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        pieces: Mapping[torch.nn.Parameter, int],
        momentum: float = 0.95,
        **settings: Any,
    ) -> None:
        for parameter in pieces:
            if parameter.dim() != 2:
                raise ValueError(f"Muon takes matrices: a parameter is {tuple(parameter.shape)}")
        self._pieces = {id(parameter): n for parameter, n in pieces.items()}
        self._momentum = momentum
        for group in groups:
            kinds = {id(parameter) in self._pieces for parameter in group["params"]}
            if len(kinds) > 1:
                raise ValueError(
                    "a group of parameters has some for Muon and some for AdamW: wanted one kind"
                )
        super().__init__(groups, **settings)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not Adam's, which expects a step count in every state: Muon's state is only the momentum.
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        every = self.param_groups
        muon = [id(group["params"][0]) in self._pieces for group in every]
        self.param_groups = [group for group, is_muon in zip(every, muon, strict=True) if not is_muon]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = every
        for group, is_muon in zip(every, muon, strict=True):
            if is_muon:
                self._orthogonal_step(group)
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        """One step of a group; matrices of the same shape are orthogonalised together.

        As in a fused AdamW, gradients are divided by `grad_scale`, and nothing changes if `found_inf` is 1; both may
        be absent.
        """
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        skip = None if found_inf is None else found_inf > 0
        alike: dict[tuple[int, int], list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if MOMENTUM not in state:
                state[MOMENTUM] = torch.zeros_like(parameter)
            gradient = parameter.grad if scale is None else parameter.grad / scale
            change(state[MOMENTUM], state[MOMENTUM].lerp(gradient, 1 - self._momentum), skip)
            ahead = gradient.lerp(state[MOMENTUM], self._momentum)
            pieces = ahead.view(self._pieces[id(parameter)], -1, ahead.shape[1])
            alike.setdefault(tuple(pieces.shape[1:]), []).append((parameter, pieces))
        for (rows, columns), found in alike.items():
            made = orthogonal(torch.cat([pieces for _, pieces in found]))
            made *= ADAMW_RMS * max(rows, columns) ** 0.5
            for (parameter, _), part in zip(found, made.split([len(p) for _, p in found]), strict=True):
                moved = parameter * (1 - group["lr"] * group["weight_decay"])
                moved.sub_(part.reshape(parameter.shape) * group["lr"])
                change(parameter, moved, skip)


def change(old: torch.Tensor, new: torch.Tensor, skip: torch.Tensor | None) -> None:
    """Writes `new` into `old`, unless the 0-d bool `skip` is true."""
    old.copy_(new if skip is None else torch.where(skip, old, new))


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(B, R, C) -> the same shape, singular values near 1 (0.7 to 1.2) and singular vectors unchanged."""
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
