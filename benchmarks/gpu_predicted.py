"""What planning.predicted says of this GPU, for the report to print beside what was measured.

`predicted_step` has the parts of each training step of gpu_model.STEPS, `predicted_token` the time of a token of
gpu_model.generate_rows. Measured times of the same parts are in the sections train_step, profile, combined_loss and
generate.
"""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_model import STEPS
from dnagpt_fast.model.config import preset
from dnagpt_fast.planning.accelerators import accelerator_of
from dnagpt_fast.planning.predicted import predicted_parts, predicted_token


def rows(device_name: str | None = None) -> Iterator[dict[str, Any]]:
    """One row for each part; none for a card that accelerators.py does not know."""
    card = accelerator_of(device_name or torch.cuda.get_device_name(0))
    if card is None:
        return
    for name, samples, *_ in STEPS:
        for row in predicted_parts(preset(name), samples, card):
            yield {"op": row["op"], "model": name} | row
    yield {"model": "dna_gpt0.1b_m"} | predicted_token(preset("dna_gpt0.1b_m"), 10, 128, card)
