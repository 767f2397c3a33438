"""The imports of all commands, done once for all processes that are forked from this one."""

from dnagpt_fast.cli import sequence_jobs
from dnagpt_fast.finetune import predict
from dnagpt_fast.finetune import run as finetuning
from dnagpt_fast.finetune.data import annotation
from dnagpt_fast.pretrain import run as pretraining
from dnagpt_fast.tracks import bigwig, mutate
from dnagpt_fast.variants import annotate

__all__ = [
    "annotate",
    "annotation",
    "bigwig",
    "finetuning",
    "mutate",
    "predict",
    "pretraining",
    "sequence_jobs",
]
