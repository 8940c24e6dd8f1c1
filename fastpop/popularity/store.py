"""One safetensors file with a format name and JSON beside the arrays; never half written."""

from pathlib import Path

import numpy as np

from fastpop import checks, files
from fastpop.data.paths import engine_name, local_path


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray], kind: str, about: str) -> None:
    """A reader sees all or nothing. Raises OSError with the path."""
    from safetensors.numpy import save

    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, _metadata(kind, about))
    files.write_bytes(local_path(path), data)


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays and the JSON text of a file that `write_arrays` wrote as `kind`."""
    from safetensors import SafetensorError, safe_open

    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a saved {kind}; got no file at {path}")
    try:
        with safe_open(engine_name(path), framework="numpy") as stored:
            about = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise checks.wrong("path", f"a saved {kind}", text=f"{path} ({error})") from None
    if about.get("fastpop") != kind:
        raise checks.wrong("path", f"a saved {kind}", text=f"{path}, another safetensors file")
    return arrays, about["about"]


def _metadata(kind: str, about: str) -> dict[str, str]:
    return {"fastpop": kind, "about": about}
