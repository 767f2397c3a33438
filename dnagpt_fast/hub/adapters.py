"""Which layers PEFT adapts when nobody says: those of GPT-2, whose names ours are."""

import sys


def name_targets_to_peft() -> None:
    """Enter "dnagpt" beside "gpt2" into PEFT's tables of default `target_modules`, where PEFT has been imported.

    PEFT has no way to register a model, so its tables are written to. It reads a model's configuration before the
    tables, and the configuration calls this then: PEFT need not be imported for it, and may be imported at any time.
    """
    constants = sys.modules.get("peft.utils.constants")
    for name, table in vars(constants).items() if constants else ():
        if name.endswith("_MAPPING") and isinstance(table, dict) and "gpt2" in table:
            table.setdefault("dnagpt", table["gpt2"])
