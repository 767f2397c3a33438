"""A function without arguments as a CUDA graph: one launch replays all of its kernels."""

from collections.abc import Callable, Sequence

import torch

WARM_UP = (
    2  # calls before the capture: Triton compiles and loads a kernel at its first call, libraries allocate
)


def captured(
    step: Callable[[], None], state: Sequence[torch.Tensor], device: torch.device
) -> Callable[[], None]:
    """A function that does what `step` does, by replaying the graph of one call of it.

    step   launches work on the current stream of `device`, waits for nothing, and reads and writes the same memory at
           every call. What it launches may depend on shapes, not on values
    state  the tensors whose values a call changes and the next one reads. The warm-up restores them, and the state of
           the device's random generator
    Raises RuntimeError if the step cannot be captured.
    """
    saved = [tensor.clone() for tensor in state]
    generator = torch.cuda.get_rng_state(device)
    graph = torch.cuda.CUDAGraph()
    try:
        current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
                for tensor, was in zip(state, saved, strict=True):
                    tensor.copy_(was)
        current.wait_stream(side)
        torch.cuda.set_rng_state(generator, device)
        # other threads, such as a writer of checkpoints, may go on calling CUDA
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except RuntimeError as error:
        raise RuntimeError(
            f"a step of generation could not be captured as a CUDA graph ({error}); run it launch by launch with "
            "DNAGPT_FAST_IMPL=decoding=eager"
        ) from error
    return graph.replay
