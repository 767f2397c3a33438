"""The model and what is asked of it: tokenizer, layers, inference, generation, embedding, scores."""

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer

__all__ = ["DNAGPT", "KmerTokenizer", "ModelConfig"]
