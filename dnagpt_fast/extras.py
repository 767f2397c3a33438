"""Libraries of the extras, imported where they are needed."""

import importlib
from types import ModuleType


def need(module: str, extra: str = "finetune") -> ModuleType:
    """The module, or an ImportError that says which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: it comes with the extra, `pip install 'dnagpt-fast[{extra}]'`"
        ) from error
