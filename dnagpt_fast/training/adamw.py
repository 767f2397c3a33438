"""torch's AdamW without the outer functions of its methods, which import torch's compiler when they are first called.

They do so to exclude themselves from what it compiles, and no optimizer is called in compiled code here. The import
takes a second of a short run (benchmarks/LOG.md).
"""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """The same steps as torch.optim.AdamW, to the last bit."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
