"""Pre-training a model on packed genomes."""

from typing import TYPE_CHECKING

from dnagpt_fast.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from dnagpt_fast.pretrain.run import load_run, pretrain
    from dnagpt_fast.pretrain.settings import PretrainConfig, load_config

__all__ = ["PretrainConfig", "load_config", "load_run", "pretrain"]

HOMES = {
    "PretrainConfig": "dnagpt_fast.pretrain.settings",
    "load_config": "dnagpt_fast.pretrain.settings",
    "load_run": "dnagpt_fast.pretrain.run",
    "pretrain": "dnagpt_fast.pretrain.run",
}
load_on_first_use(__name__, HOMES)
