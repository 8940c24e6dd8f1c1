"""One safetensors file with a format name and JSON beside the arrays; never half written."""

import os
from pathlib import Path

import numpy as np

from fastpop import checks


def write_arrays(
    path: str | Path, arrays: dict[str, np.ndarray], kind: str, about: str
) -> None:
    """Writes path.tmp-<pid>, flushes it to disk, then renames: a reader sees all or nothing."""
    from safetensors.numpy import save

    path = Path(path)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, _metadata(kind, about))
    try:
        with open(beside, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays and the JSON text of a file that `write_arrays` wrote as `kind`."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a saved {kind}; got no file at {path}")
    try:
        with safe_open(path, framework="numpy") as stored:
            about = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise checks.wrong("path", f"a saved {kind}", f"={path} ({error})") from None
    if about.get("fastpop") != kind:
        raise checks.wrong("path", f"a saved {kind}", f"={path}, another safetensors file")
    return arrays, about["about"]


def _metadata(kind: str, about: str) -> dict[str, str]:
    return {"fastpop": kind, "about": about}
