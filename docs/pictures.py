"""The pictures of README and docs: python docs/pictures.py REPORT_FOLDER (of fastpop compare)."""

import json
import sys
from pathlib import Path

from fastpop.report import plots

comparison = json.loads((Path(sys.argv[1]) / "comparison.json").read_text())
arms = [arm["name"] for arm in comparison["arms"]]
here = Path(__file__).parent / "pictures"
shown = [scatter for scatter in comparison["scatter"] if scatter["arm"] in ("standard", "frozen")]
learned = [entry for entry in comparison["summary"] if entry["popularity_weight"] is None]
served = [entry for entry in comparison["summary"] if entry["popularity_weight"] is not None]
plots.save_figure(plots.score_against_popularity(shown), here / "score-against-log-p.png")
plots.save_figure(plots.energy_by_arm(learned), here / "energy-by-arm.png")
plots.save_figure(plots.accuracy_against_popularity(served, arms), here / "knob.png")
