"""The best items of some cases, by anybody's model."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastpop import checks, ops
from fastpop.data.cases import Cases
from fastpop.data.csr import Csr
from fastpop.data.interactions import Interactions
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.models import as_model, num_items_of, scores_of
from fastpop.evaluation.positions import scores_in_chunks
from fastpop.frozen import freeze
from fastpop.ops.top_items import best_columns
from fastpop.text import printable


@dataclass(frozen=True, eq=False, repr=False)
class Recommendations:
    """Top items of users, in the ids of the log.

    user: [n] ids as they were asked for. item: [n, k] ids, best first (fewer than k possible
    items leave None at the end). score: [n, k] float32, -inf there. popularity_weight, personal_weight:
    the serving weights; None for a model that has none.
    """

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray
    popularity_weight: float | None = None
    personal_weight: float = 1.0

    def __post_init__(self) -> None:
        freeze(self, "user", "item", "score")

    def __repr__(self) -> str:
        return self.table(limit=5)

    def table(self, limit: int = 20) -> str:
        """One line a user, at most 80 columns; what could steer a terminal is shown escaped."""
        title = f"top {self.item.shape[1]} items"
        if self.popularity_weight is not None:
            title += ", " + weights_text(self.popularity_weight, self.personal_weight)
        lines = [title]
        for user, items in list(zip(self.user, self.item))[:limit]:
            shown = " ".join(printable(str(item)) for item in items if item is not None)
            text = f"  {printable(str(user))}: {shown}"
            lines.append(text if len(text) <= 80 else text[:76].rsplit(" ", 1)[0] + " ...")
        if len(self.user) > limit:
            lines.append(f"  ... and {len(self.user) - limit:,} more users")
        return "\n".join(lines)

    def csv(self) -> str:
        """user,rank,item,score lines under a header."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["user", "rank", "item", "score"])
        for user, items, scores in zip(self.user, self.item, self.score):
            for rank, (item, score) in enumerate(zip(items, scores), 1):
                if item is not None:
                    writer.writerow([user, rank, item, f"{score:.6g}"])
        return text.getvalue()


def weights_text(popularity_weight: float, personal_weight: float) -> str:
    """What is served, in words; a personal part as trained goes without saying."""
    words = f"popularity weight {popularity_weight:g}"
    return words if personal_weight == 1 else f"{words}, personal weight {personal_weight:g}"


def recommend(
    model: Any, cases: Any, k: int = 10, *, log: Interactions | None = None, exclude_seen: bool = True
) -> Recommendations:
    """The k best items of each case; see `fastpop.recommend`, which takes runs, too."""
    checks.number("k", k, ge=1, integer=True)
    model = as_model(model)
    wanted, cases = asked_cases(model, cases, log)
    scores = scores_of(model, cases)
    seen = cases.history_rows if exclude_seen else None
    if isinstance(scores, DotScores):
        checks.shape("model.queries(cases)", scores.query, (cases.num_cases, "D"))
        checks.shape("model.items()", scores.items, (cases.num_items, "D"))
        ids, best = ops.top_items(
            k=min(k, cases.num_items),
            **scores.keywords(),
            exclude_offsets=None if seen is None else seen.offsets,
            exclude_item=None if seen is None else seen.item,
        )
    else:
        ids, best = _best_of_dense(scores, cases, min(k, cases.num_items), seen)
    found = ids.cpu().numpy()
    item = np.full(found.shape, None, dtype=object)
    real = found >= 0
    item[real] = found[real] if log is None else log.decode_items(found[real])
    return Recommendations(wanted, item, best.float().cpu().numpy())


def asked_cases(model: Any, cases: Any, log: Interactions | None) -> tuple[np.ndarray, Cases]:
    """(who was asked for, their cases): of Cases; of ids of a log's users, with its events as histories;
    or, without a log, of rows of a model's user table, without histories."""
    if isinstance(cases, Cases):
        known = log is not None and bool((cases.user >= 0).all())
        return (log.decode_users(cases.user) if log is not None and known else cases.user), cases
    if log is None:
        users = checks.int_array("cases", np.atleast_1d(np.asarray(cases)))
        rows, num_items, wanted = Csr.of("histories", [[]] * len(users)), num_items_of(model), users
    else:
        wanted = np.atleast_1d(np.asarray(cases))
        users = log.encode_users(wanted)
        rows, num_items = log.items_by_user.take(users), log.num_items
    return wanted, Cases.of(rows, [[]] * len(users), num_items, user=users)


def _best_of_dense(scores: Any, cases: Cases, k: int, seen: Csr | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [C, k], -1 where none is left; scores [C, k]) of scores that are written down in chunks."""
    ids, best = [torch.empty(0, k, dtype=torch.int64)], [torch.empty(0, k)]
    for start, stop, score_BV in scores_in_chunks(scores, cases.num_cases, cases.num_items):
        if seen is not None:
            some = seen.part(start, stop)
            score_BV = score_BV.clone()
            score_BV[torch.tensor(some.row_of_each()), torch.tensor(some.item.astype(np.int64))] = -torch.inf
        found, value = best_columns(score_BV, k)
        ids.append(found.masked_fill(value == -torch.inf, -1))
        best.append(value.float())
    return torch.cat(ids), torch.cat(best)
