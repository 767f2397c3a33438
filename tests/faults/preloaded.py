"""The imports of all commands, done once for all processes that are forked from this one."""

import importlib

from dnagpt_fast.cli import embed_job, sequence_jobs
from dnagpt_fast.evaluation.scores import classification_scores
from dnagpt_fast.finetune import predict
from dnagpt_fast.finetune import run as finetuning
from dnagpt_fast.finetune.data import annotation
from dnagpt_fast.pretrain import run as pretraining
from dnagpt_fast.tracks import attention_map, attribution, bigwig, mutate
from dnagpt_fast.variants import annotate

# What the commands import when they need it.
for name in (
    "logomaker",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "PIL.Image",
    "pandas",
    "pyarrow.parquet",
    "pyBigWig",
    "pydantic",
    "scipy.stats",
    "sklearn.metrics",
    "torch._dynamo",
):
    importlib.import_module(name)
# Those of a real report take longer than the training.
classification_scores.__kwdefaults__["resamples"] = 20

__all__ = [
    "annotate",
    "annotation",
    "attention_map",
    "attribution",
    "bigwig",
    "embed_job",
    "finetuning",
    "mutate",
    "predict",
    "pretraining",
    "sequence_jobs",
]
