"""What stands beside a run's model for people to read, against the model's own state."""

import warnings
from pathlib import Path
from typing import Any

from fastpop.training import checkpoint, sealed
from fastpop.training.prints import AUDIT, HISTORY, METRICS, history_csv, metrics_text


def warn_of_damaged(folder: Path, saved: dict[str, Any]) -> None:
    """Warns of what stands beside the model for people to read and says something else than the model's own
    state (`saved`), or is not as it was written. Nothing else is read of these files."""
    last = saved["history"][-1]["step"] if saved["history"] else 0
    newest = checkpoint.latest(folder)
    texts = {METRICS: metrics_text(saved["metrics"])}
    if newest is None or int(newest.name.removeprefix(checkpoint.PREFIX)) <= last:  # else it goes on
        texts[HISTORY] = history_csv(saved["history"])
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode():
            warnings.warn(
                f"{path}: expected what model/state.json says; got other bytes. The model is sound",
                UserWarning,
                stacklevel=4,
            )
    try:
        sealed.read(folder / AUDIT, older=True)
    except FileNotFoundError:
        pass
    except (OSError, sealed.Damaged) as error:
        warnings.warn(f"{error}. `fastpop audit` makes it anew", UserWarning, stacklevel=4)
