"""Imports optional libraries when they are needed; the error for a missing one names the extra to install."""

import importlib
from types import ModuleType


def need(module: str, extra: str = "finetune") -> ModuleType:
    """The module. Raises ImportError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: install the extra, `pip install 'dnagpt-fast[{extra}]'`"
        ) from error
