"""How the blocks of a model run, and how several processes train one model: whole replicas, or shards of it.

ddp   each process holds all of the model; gradients are averaged while the backward pass still runs
fsdp  each process holds its share of every weight, gradient and optimizer moment (FSDP2, arXiv 2304.11277 and
      torch's fully_shard): a block's weights are gathered just before it runs and dropped after it
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dnagpt_fast.training.processes import Processes


def distribute(
    losses: nn.Module,
    blocks: Sequence[nn.Module],
    sharding: str,
    processes: Processes,
    device: torch.device,
    *,
    bf16: bool = False,
    methods: Sequence[str] = (),
) -> nn.Module:
    """`losses` as the processes train it together, on `device`; by itself where there is but one.

    losses   the module whose forward gives the losses; holds the model
    blocks   its layers, each of which is gathered by itself (fsdp)
    bf16     gather the blocks' weights in bfloat16; gradients are summed in float32, and what the optimizer sees stays
             float32. What lies outside the blocks is gathered as it is: the residual stream and the norms at its ends
             keep their precision, and autocast casts what it multiplies
    methods  other methods of `losses` that compute with the weights

    Every process must give equal initial weights. The optimizer is made afterwards: fsdp puts other parameters in the
    place of the model's.
    """
    if processes.world_size == 1:
        return losses.to(device)
    if sharding == "ddp":
        # Gradients that are parts of what is sent: a copy beside it would cost 4 bytes a parameter.
        return DistributedDataParallel(losses.to(device), gradient_as_bucket_view=True)
    mesh = init_device_mesh(device.type, (processes.world_size,))
    of_blocks = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Block by block, from wherever they are: no device ever holds the whole of a model that needs to be sharded.
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=of_blocks)
    sharded = fully_shard(losses, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    if device.type == "cpu":
        sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot average
    for method in methods:
        register_fsdp_forward_method(losses, method)
    return losses


def without_exchange(losses: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Backward passes in the block add to this process's gradients and send none: all but a step's last one."""
    if isinstance(losses, DistributedDataParallel):
        return losses.no_sync()
    if isinstance(losses, FSDPModule):
        return _unsynchronised(losses)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _unsynchronised(losses: FSDPModule) -> Iterator[None]:
    losses.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        losses.set_requires_gradient_sync(True)


def clip_norm(parameters: Sequence[nn.Parameter], most: float) -> torch.Tensor:
    """Scales the gradients so that the norm of all of them, in all processes, is at most `most` (0: as they are).

    Returns the norm before, the same in every process, as a plain tensor.
    """
    norm = nn.utils.clip_grad_norm_(parameters, most or float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
