"""Public names of a package that are imported on first use, and do not change with the order of imports."""

import importlib
import sys
from types import ModuleType
from typing import Any


def load_on_first_use(package: str, homes: dict[str, str], packages: tuple[str, ...] = ()) -> None:
    """Makes each name of `homes` (name -> module that defines it) an attribute of the package, imported on first use;
    likewise its subpackages `packages`. `dir` shows what is in `__all__`.

    Importing a submodule sets it as an attribute of its package. If the submodule has the name of a public function, as
    ops.gc_count has, the attribute is still the function.
    """

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name in packages:
                return importlib.import_module(f"{package}.{name}")
            if name not in homes:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(importlib.import_module(homes[name]), name)
            self.__dict__[name] = value
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name in homes and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*self.__all__, *(name for name in self.__dict__ if name.startswith("__"))})

    sys.modules[package].__class__ = Package
