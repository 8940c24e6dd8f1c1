"""What stands in a run's folder for people to read. The numbers themselves are the model's own state."""

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

from fastpop.training import checkpoint, sealed

HISTORY, METRICS, AUDIT = "train.csv", "metrics.json", "audit.json"


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


def metrics_text(metrics: dict[str, float]) -> str:
    """Of metrics.json."""
    return json.dumps(metrics, indent=2) + "\n"


def history_csv(history: list[dict[str, Any]]) -> str:
    """Of train.csv: one row per epoch; columns that some epochs lack stay empty."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
