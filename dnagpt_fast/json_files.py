"""Reads JSON files from untrusted sources: their size is limited, and every error names the file."""

import json
from pathlib import Path
from typing import Any

from dnagpt_fast.input_files import InputFileError, check_regular

# Far above the size of a run's record, an export or an index of shards; small enough to read without harm.
MOST_BYTES = 64 << 20


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a file. Raises FileNotFoundError, OSError, and ValueError that names the file: no JSON, no object,
    nested too deeply, too large."""
    path = Path(path)
    try:
        check_regular(path)
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no {path.name} in {path.parent}") from None
    except InputFileError:
        raise
    except RecursionError:
        raise ValueError(f"{path} cannot be read: its JSON is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {type(value).__name__}: wanted a JSON object")
    return value
