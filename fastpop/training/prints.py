"""What stands in a run's folder for people to read. The numbers themselves are the model's own state."""

import csv
import io
import json
from typing import Any

HISTORY, METRICS, AUDIT = "train.csv", "metrics.json", "audit.json"


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
