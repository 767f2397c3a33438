"""What makes commands start and end fast: no search for garbage among the objects that imports make.

`import torch` makes 300,000 objects, none of which is garbage. Python looks through them again and again while they are
made, and once more when it ends: a quarter of the processor time of `import torch`.
"""

import atexit
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        enabled = gc.isenabled()
        gc.disable()
        try:
            super().exec_module(module)
        finally:
            if enabled:
                gc.enable()
        gc.freeze()


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def end_without_search() -> None:
    """Python's end does not search for garbage. Files are closed before: output_files.py does not rely on the end."""
    atexit.unregister(_freeze)
    atexit.register(_freeze)


def _freeze() -> None:
    # At the end Triton's library lists on standard error all of its objects that only the search would free.
    if "triton._C.libtriton" not in sys.modules:
        gc.freeze()


@contextmanager
def torch_is_no_garbage() -> Iterator[None]:
    """If torch is imported in this context, garbage is collected again afterwards, but not among what exists then."""
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)
