"""Fine-tuning a model on labelled sequences, and predicting with it."""

from typing import TYPE_CHECKING

from dnagpt_fast.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from dnagpt_fast.finetune.predict import load_finetuned, predict
    from dnagpt_fast.finetune.run import finetune
    from dnagpt_fast.finetune.settings import FinetuneConfig, load_finetune_config

__all__ = ["FinetuneConfig", "finetune", "load_finetune_config", "load_finetuned", "predict"]

HOMES = {
    "FinetuneConfig": "dnagpt_fast.finetune.settings",
    "finetune": "dnagpt_fast.finetune.run",
    "load_finetune_config": "dnagpt_fast.finetune.settings",
    "load_finetuned": "dnagpt_fast.finetune.predict",
    "predict": "dnagpt_fast.finetune.predict",
}
load_on_first_use(__name__, HOMES)
