"""Contract suites for parts of your own: the same that ours pass.

    from fastpop.testing import check_metric
    def test_my_metric(): check_metric(MyMetric(limit=3))

Plain assertions, which say what is wrong; numpy and torch are enough. `with registered("metric", MyMetric):`
makes a part known for as long as a test takes.
"""

from fastpop.registry import registered
from fastpop.testing.experiments import check_answer, check_experiment
from fastpop.testing.judging import check_arm, check_diagnostic, check_metric, check_null, check_preset
from fastpop.testing.references import check_reference
from fastpop.testing.rows import check_rows
from fastpop.testing.training import (
    check_encoder,
    check_item_tower,
    check_logger,
    check_loss,
    check_options,
    check_prior,
    check_proposal,
    check_recipe,
    check_regularizer,
    check_run,
    check_split,
    check_table_optimizer,
    small_log,
)

__all__ = [
    "check_answer",
    "check_arm",
    "check_diagnostic",
    "check_encoder",
    "check_experiment",
    "check_item_tower",
    "check_logger",
    "check_loss",
    "check_metric",
    "check_null",
    "check_options",
    "check_preset",
    "check_prior",
    "check_proposal",
    "check_recipe",
    "check_reference",
    "check_regularizer",
    "check_rows",
    "check_run",
    "check_split",
    "check_table_optimizer",
    "registered",
    "small_log",
]
