"""Training of one model by several processes, as replicas or as shards.

ddp   each process holds the whole model; gradients are averaged during the backward pass
fsdp  each process holds its part of every weight, gradient and optimizer moment (FSDP2, arXiv 2304.11277 and
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
    """The module that the processes train together, on `device`; with one process `losses` itself.

    losses   the module whose forward gives the losses; it contains the model
    blocks   its layers, each of which is gathered separately (fsdp)
    bf16     gather the blocks' weights in bfloat16; gradients are summed in float32, and the optimizer's
             weights stay float32. Parameters outside the blocks are gathered in their own dtype: the residual
             stream and the norms at its ends keep their precision, and autocast casts the inputs of products
    methods  other methods of `losses` that compute with the weights

    All processes must pass equal initial weights. Make the optimizer afterwards: fsdp replaces the model's
    parameters.
    """
    if processes.world_size == 1:
        return losses.to(device)
    if sharding == "ddp":
        # The gradients are views of the buffers that are sent: separate copies would cost 4 bytes per
        # parameter.
        return DistributedDataParallel(losses.to(device), gradient_as_bucket_view=True)
    mesh = init_device_mesh(device.type, (processes.world_size,))
    of_blocks = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Block by block, from their current device: no device ever holds the whole model.
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=of_blocks)
    sharded = fully_shard(losses, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    if device.type == "cpu":
        sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot average
    for method in methods:
        register_fsdp_forward_method(losses, method)
    return losses


def without_exchange(losses: nn.Module) -> contextlib.AbstractContextManager[None]:
    """In this context backward passes add to this process's gradients without an exchange: for all parts of a
    step except the last."""
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


def gradient_norm(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """The norm of all gradients, in all processes: 0-d, the same in every process, as a plain tensor."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
