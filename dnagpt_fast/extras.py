"""Libraries of the [finetune] extra, imported where they are needed."""

import importlib
from types import ModuleType


def need(module: str) -> ModuleType:
    """The module, or an ImportError that says which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: it comes with the extra, `pip install 'dnagpt-fast[finetune]'`"
        ) from error
