"""Pre-training: genomes and settings in, a run folder out."""

from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config

__all__ = ["PretrainConfig", "load_config", "load_run", "pretrain"]
