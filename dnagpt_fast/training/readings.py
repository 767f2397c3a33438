"""Numbers on their way from the device to the host, without a wait for work that was queued later."""

from typing import Any

import torch


class Reading:
    """A copy of a small tensor. On CUDA the copy is queued behind the work that makes the values."""

    def __init__(self, values: torch.Tensor) -> None:
        self._copied: Any = None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._host = values.clone()  # a recorded step writes into the same tensor again

    def wait(self) -> list[float]:
        """The values. On CUDA it waits for the copy only: what was queued after it goes on."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._host.tolist()
        return values
