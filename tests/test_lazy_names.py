"""A public name of a package is the same object for every order of imports."""

import importlib
import json
import subprocess
import sys

import pytest

# In forked children, so that each order starts with a package that is not loaded yet.
ORDERS = """
import importlib, json, os, sys, types
import torch
package, homes = json.loads(sys.argv[1])
for order in ("module first", "name first", "all modules first"):
    for name, home in homes.items():
        sys.stdout.flush()
        if os.fork() == 0:
            if order == "all modules first":
                for other in homes.values():
                    importlib.import_module(other)
            if order == "name first":
                getattr(importlib.import_module(package), name)
            defined = vars(importlib.import_module(home))[name]
            scope = {}
            exec(f"from {package} import {name}", scope)
            assert getattr(sys.modules[package], name) is defined is scope[name], (order, name)
            assert not isinstance(defined, types.ModuleType), (order, name)
            os._exit(0)
        assert os.wait()[1] == 0, (order, name)
"""


@pytest.mark.parametrize(
    "name", ["ops", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pretrain", "finetune"))]
)
def test_no_order_of_imports_changes_a_public_name(name):
    package = importlib.import_module(f"dnagpt_fast.{name}")
    asked = json.dumps([package.__name__, package.HOMES])
    ran = subprocess.run([sys.executable, "-c", ORDERS, asked], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert set(package.HOMES) <= set(package.__all__) <= set(dir(package))


def test_a_name_that_does_not_exist():
    from dnagpt_fast import ops

    with pytest.raises(AttributeError, match="no attribute 'gc_counts'"):
        ops.gc_counts  # noqa: B018
