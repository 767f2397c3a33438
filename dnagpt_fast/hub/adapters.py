"""Default layers for PEFT: those of GPT-2, because ours have the same names."""

import sys


def name_targets_to_peft() -> None:
    """Adds "dnagpt" with the values of "gpt2" to PEFT's tables of default `target_modules`, if PEFT is
    imported.

    PEFT has no function to register a model, so its tables are changed. PEFT reads a model's configuration
    before the tables, and the configuration calls this function: so PEFT need not be imported here, and may
    be imported later.
    """
    constants = sys.modules.get("peft.utils.constants")
    for name, table in vars(constants).items() if constants else ():
        if name.endswith("_MAPPING") and isinstance(table, dict) and "gpt2" in table:
            table.setdefault("dnagpt", table["gpt2"])
