"""docs/audit_gallery.py as a module, and how near an audit has to be to the one that is kept."""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEAR = {"fraction_direction": 0.03, "fraction_shared": 0.03, "slope": 0.05, "nll": 0.05}
NEAR |= {"correlation": 0.03, "correlation_p": 0.03}


def script():
    spec = importlib.util.spec_from_file_location("audit_gallery", ROOT / "docs" / "audit_gallery.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


gallery = script()
RECORD = json.loads(gallery.RECORD.read_text())


def check_as_recorded(name, audit):
    """The numbers of the page, as near as another kind of processor makes the same training."""
    found, wanted = gallery.measured(audit), RECORD["models"][name]
    for key, value in wanted.items():
        if value is None or key in ("items", "permutations", "chance"):
            assert found[key] == value, (name, key)
        elif key in NEAR:
            assert abs(found[key] - value) < NEAR[key], (name, key, found[key], value)
    for key in ("p_value", "p_value_shared"):
        assert (found[key] < 0.05) == (wanted[key] < 0.05), (name, key, found[key])
