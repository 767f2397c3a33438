"""A public name of dnagpt_fast.ops is the same object whatever was imported before it."""

import json
import subprocess
import sys
from types import ModuleType

from dnagpt_fast import ops

# In forked children, so that each order begins with a fresh package.
ORDERS = """
import importlib, json, os, sys, types
import torch
homes = json.loads(sys.argv[1])
for order in ("module first", "name first", "package of all"):
    for name, home in homes.items():
        sys.stdout.flush()
        if os.fork() == 0:
            module = f"dnagpt_fast.ops.{home}"
            if order == "module first":
                defined = vars(importlib.import_module(module))[name]
                from dnagpt_fast import ops
            else:
                from dnagpt_fast import ops
                if order == "package of all":
                    for other in homes.values():
                        importlib.import_module(f"dnagpt_fast.ops.{other}")
                getattr(ops, name)
                defined = vars(importlib.import_module(module))[name]
            scope = {}
            exec(f"from dnagpt_fast.ops import {name}", scope)
            assert getattr(ops, name) is defined is scope[name], (order, name)
            assert not isinstance(defined, types.ModuleType), (order, name)
            os._exit(0)
        assert os.wait()[1] == 0, (order, name)
"""


def test_no_order_of_imports_changes_a_public_name():
    ran = subprocess.run(
        [sys.executable, "-c", ORDERS, json.dumps(ops._HOMES)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_every_public_name_is_there():
    assert {*ops._HOMES, "dispatch"} == set(ops.__all__) <= set(dir(ops))
    assert [name for name in ops.__all__ if isinstance(getattr(ops, name), ModuleType)] == ["dispatch"]
