"""The processes of a run: one by default, several where torchrun's environment says so."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process's place among the `world_size` processes that train one model."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @classmethod
    def from_environment(cls) -> "Processes":
        """What torchrun set, or a single process. Raises ValueError where only a part is set."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        given = [name for name in names if name in os.environ]
        if not given:
            return cls()
        if len(given) < len(names):
            raise ValueError(
                f"{', '.join(given)} set without {', '.join(set(names) - set(given))}: start with torchrun"
            )
        return cls(*(int(os.environ[name]) for name in names))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def share(self, count: int, what: str) -> range:
        """The part of 0 .. count - 1 that is this process's; the parts are disjoint, of one size, and are all of it.

        Raises ValueError where the count is no multiple of the number of processes.
        """
        if count % self.world_size:
            raise ValueError(f"{what} = {count} cannot be shared equally by {self.world_size} processes")
        size = count // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)
