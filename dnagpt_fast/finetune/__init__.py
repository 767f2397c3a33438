"""Fine-tuning: a start, labelled sequences and settings in, a run folder out."""

from dnagpt_fast.finetune.predict import load_finetuned, predict
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import FinetuneConfig, load_finetune_config

__all__ = ["FinetuneConfig", "finetune", "load_finetune_config", "load_finetuned", "predict"]
