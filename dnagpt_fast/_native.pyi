from typing import Any

cuda_archs: str

def __getattr__(name: str) -> Any: ...
