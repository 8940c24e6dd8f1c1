"""A randomised test part: items shown at random, some of them liked, ranked among themselves.

What a user meets in a log was chosen by somebody, often by popularity; here nobody chose, so neither
accuracy nor its lack is owed to what is popular.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks, evaluation
from fastpop.data.cases import Cases, build_cases
from fastpop.data.csr import Csr
from fastpop.data.interactions import Interactions
from fastpop.data.own_test import one_catalogue
from fastpop.model import Recommender
from fastpop.training.recommending import readable_cases

K = 5


@dataclass(frozen=True, eq=False)
class Shown:
    """cases: a user each, with what was liked as targets (perhaps none). items: what was shown to them,
    one row a case."""

    cases: Cases
    items: Csr

    __repr__ = checks.brief

    @classmethod
    def of(cls, log: Interactions, liked: Any, shown: Any) -> tuple[Interactions, "Shown"]:
        """(the log over the catalogue of both, the cases). Raises TypeError for a test part that is no
        log, ValueError for one with events that were not shown."""
        for name, part in (("test", liked), ("shown", shown)):
            if not isinstance(part, Interactions):
                raise checks.wrong_type(name, "Interactions, beside shown=", part)
        log, shown = one_catalogue(log, shown, {})
        joined, liked = one_catalogue(log, liked, {})
        same = joined.num_items == log.num_items and joined.num_users == log.num_users
        if not same or not _within(liked, shown):
            raise checks.wrong("test", "events that are among shown", text="others")
        users = np.flatnonzero((np.diff(shown.offsets) > 0) & (np.diff(log.offsets) > 0))
        cases, _ = build_cases(users, log, liked, False)
        return log, cls(cases, shown.items_by_user.take(users, log.storage))

    def take(self, index: np.ndarray) -> "Shown":
        rows = np.flatnonzero(index)
        return Shown(self.cases.take(rows), self.items.take(rows, self.cases.storage))


def readable_shown(model: Recommender, train: Interactions, shown: Shown) -> Shown:
    """What was shown to users that the encoder can answer: the same for all arms of a seed."""
    known, left_out = readable_cases(model, train, shown.cases)
    return shown.take(np.isin(shown.cases.user, known.user)) if left_out else shown


def judge_scores(score: Any, shown: Shown) -> dict[str, float]:
    """Pooled AUC and NDCG@5 over the items shown."""
    found = evaluation.evaluate(score, shown.cases, ks=(K,), logits=False, candidates=shown.items)
    return {"auc_shown": found.metrics["pooled_auc"], f"ndcg_shown@{K}": found.metrics[f"ndcg@{K}"]}


def _within(liked: Interactions, shown: Interactions) -> bool:
    def pairs(log: Interactions) -> np.ndarray:
        return log.user.astype(np.int64) * log.num_items + log.item

    return bool(np.isin(pairs(liked), pairs(shown)).all())
