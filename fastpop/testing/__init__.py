"""Contract suites for parts of your own: the same that fastpop's parts pass.

    from fastpop.testing import check_metric
    def test_my_metric(): check_metric(MyMetric(limit=3))

Plain assertions, which say what is wrong; numpy and torch are enough. `with registered("metric", MyMetric):`
makes a part known for as long as a test takes.
"""

from fastpop.registry import registered
from fastpop.testing.judging import (
    check_arm,
    check_diagnostic,
    check_metric,
    check_null,
    check_preset,
)

__all__ = ["check_arm", "check_diagnostic", "check_metric", "check_null", "check_preset", "registered"]
