"""The best items of some cases, by anybody's model."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fastpop import checks, ops
from fastpop.data.cases import Cases
from fastpop.data.csr import Csr
from fastpop.data.interactions import Interactions
from fastpop.data.titles import read_titles
from fastpop.evaluation.asked import HasItems, Shown, Unknown, histories_of, shown
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.models import as_model, num_items_of, scores_of
from fastpop.evaluation.positions import chunks, scores_in_chunks, streamed_chunk
from fastpop.frozen import freeze
from fastpop.ops.top_items import best_columns
from fastpop.text import html_table, printable, shortened

SHOWN_USERS, SHOWN_ITEMS = 20, 10  # in a notebook
WIDTH, LONGEST_USER, LEAST_TITLE = 80, 40, 20  # characters of a line, of a user before items, of a title
PAIRED = 1 << 22  # numbers of the rows that scores of pairs are made of at a time


@dataclass(frozen=True, eq=False, repr=False)
class Recommendations:
    """Top items of users, in the ids of the log.

    user: [n] ids as they were asked for (of users; of `similar_items`, of items). item: [n, k] ids, best
    first (fewer than k possible items leave None at the end). score: [n, k] float32, -inf there.
    popularity_weight, personal_weight: the serving weights; None for a model that has none.
    title: [n, k] titles, None where there is none; None where no table was given. asked_for: "user", or
    "similar_to": what `user` holds. facts: how many ids the log does not have, by argument, and which rows
    are served log p alone ("without_history": row numbers).
    """

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray
    popularity_weight: float | None = None
    personal_weight: float = 1.0
    title: np.ndarray | None = None
    asked_for: str = "user"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "user", "item", "score", "facts")
        if self.title is not None:
            freeze(self, "title")

    def __repr__(self) -> str:
        return self.table(limit=5)

    def with_titles(self, titles: Any, catalogue: Any = None) -> "Recommendations":
        """The same with the titles of its items.

        Args:
            titles: whatever `fastpop.data.read_titles` takes.
            catalogue: [V] ids of all items; None: those here are all that is known of.
        Raises: ValueError where no item of either has a title.
        Warns: UserWarning where some of the items here have none.
        """
        table = read_titles(titles)
        title = table.of(self.item)
        here = {item for item in self.item.flat if item is not None}
        if here:
            table.check(here if catalogue is None or any(title.flat) else catalogue)
        return replace(self, title=title)

    def _repr_html_(self) -> str:
        """A row for each of the first twenty users: the ten best items, by title where there is one."""
        shown = self.item[:SHOWN_USERS, :SHOWN_ITEMS]
        title = self._title()
        if shown.size < self.item.size:
            asked = "users" if self.asked_for == "user" else "items"
            title += f" ({shown.shape[1]} here), {shown.shape[0]:,} of {self.item.shape[0]:,} {asked}"
        named = self.item if self.title is None else self.title
        rows = [
            [
                str(self.user[row]),
                *("" if item is None else str(name or item) for item, name in zip(items, named[row])),
            ]
            for row, items in enumerate(shown)
        ]
        return html_table([self.asked_for, *map(str, range(1, shown.shape[1] + 1))], rows, title)

    def _title(self) -> str:
        what = "items" if self.asked_for == "user" else "similar items"
        title = f"top {self.item.shape[1]} {what}"
        if self.popularity_weight is not None:
            title += ", " + weights_text(self.popularity_weight, self.personal_weight)
        return title

    def table(self, limit: int = 20) -> str:
        """One line a user, at most 80 columns; with titles one line an item. What could steer a terminal is
        shown escaped."""
        lines = [self._title()]
        for row, user in list(enumerate(self.user))[:limit]:
            items = [item for item in self.item[row] if item is not None]
            if self.title is not None:
                lines.append(shortened(f"  {user}", WIDTH))
                lines += [shortened(f"    {text}", WIDTH) for text in self._titled(row, items)]
                continue
            shown = " ".join(printable(str(item)) for item in items)
            text = f"  {printable(str(user))}: {shown}"
            if len(printable(str(user))) > LONGEST_USER:
                lines += [shortened(f"  {user}:", WIDTH), shortened(f"    {shown}", WIDTH)]
                continue
            lines.append(text if len(text) <= 80 else text[:76].rsplit(" ", 1)[0] + " ...")
        if len(self.user) > limit:
            lines.append(f"  ... and {len(self.user) - limit:,} more {self.asked_for.partition('_')[0]}s")
        return "\n".join(lines)

    def _titled(self, row: int, items: list[Any]) -> list[str]:
        assert self.title is not None
        found = []
        for item, title in zip(items, self.title[row]):
            own = printable(str(item))
            # The id stays whole beside a long title, where it leaves the title room.
            room = max(WIDTH - len(f"     ({own})"), LEAST_TITLE)
            found.append(own if title is None else f"{shortened(title, room)} ({own})")
        return found

    def csv(self) -> str:
        """user,rank,item,score lines under a header, with titles a column title."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        more = [] if self.title is None else ["title"]
        writer.writerow([self.asked_for, "rank", "item", "score", *more])
        for row, user in enumerate(self.user):
            for place, item in enumerate(self.item[row]):
                if item is not None:
                    score = f"{self.score[row, place]:.6g}"
                    title = [] if self.title is None else [self.title[row, place] or ""]
                    writer.writerow([user, place + 1, item, score, *title])
        return text.getvalue()

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dict a row: who was asked for, and its items, each with id, score and, with titles, title.
        JSON-able."""
        rows = []
        for row, user in enumerate(self.user):
            items: list[dict[str, Any]] = []
            for place, item in enumerate(self.item[row]):
                if item is not None:
                    one = {"id": _plain(item), "score": float(self.score[row, place])}
                    items.append(one if self.title is None else one | {"title": self.title[row, place]})
            rows.append({self.asked_for: _plain(user), "items": items})
        return rows


def _plain(one: Any) -> Any:
    return one.item() if isinstance(one, np.generic) else one


def weights_text(popularity_weight: float, personal_weight: float) -> str:
    """What is served, in words; a personal part as trained goes without saying."""
    words = f"popularity weight {popularity_weight:g}"
    return words if personal_weight == 1 else f"{words}, personal weight {personal_weight:g}"


def recommend(
    model: Any,
    cases: Any = None,
    k: int = 10,
    *,
    histories: Any = None,
    log: Interactions | None = None,
    exclude_seen: bool = True,
    candidates: Any = None,
    allow: Any = None,
    deny: Any = None,
    titles: Any = None,
    unknown: str = "warn",
) -> Recommendations:
    """The k best items of each case; see `fastpop.recommend`, which takes runs, too."""
    checks.number("k", k, ge=1, integer=True)
    model = as_model(model)
    strange = Unknown(unknown)
    if histories is not None:
        if log is None:
            raise checks.wrong("log", "the log whose item ids the histories have", None)
        wanted, cases = histories_of(histories, log, cases, strange)
    else:
        wanted, cases = asked_cases(model, cases, log)
    kept = shown(
        candidates,
        allow,
        deny,
        num_cases=cases.num_cases,
        num_items=cases.num_items,
        log=log,
        unknown=strange,
    )
    strange.tell()
    seen = cases.history_rows if exclude_seen else None
    ids, best = best_items(scores_of(model, cases), cases, k, kept, seen)
    found = as_recommendations(wanted, ids, best, log, facts=strange.counts)
    if titles is None:
        return found
    return found.with_titles(titles, range(cases.num_items) if log is None else log.item_ids)


def as_recommendations(
    wanted: np.ndarray, ids: np.ndarray, best: np.ndarray, log: HasItems | None, **rest: Any
) -> Recommendations:
    """Of places in the catalogue [n, k], -1 where none is left, as `Recommendations` in the log's ids."""
    item = np.full(ids.shape, None, dtype=object)
    real = ids >= 0
    item[real] = ids[real] if log is None else log.decode_items(ids[real])
    return Recommendations(wanted, item, best, **rest)


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


def best_items(
    scores: Any, cases: Cases, k: int, shown: Shown, seen: Csr | None
) -> tuple[np.ndarray, np.ndarray]:
    """(ids [C, k] int64, -1 where none is left; scores [C, k] float32, -inf there), k at most the catalogue.

    scores: what `scores_of` gave for these cases. seen: items of each case to leave out.
    """
    k = min(k, cases.num_items)
    if isinstance(scores, DotScores):
        checks.shape("model.queries(cases)", scores.query, (cases.num_cases, "D"))
        checks.shape("model.items()", scores.items, (cases.num_items, "D"))
    if shown.candidates is not None:
        return _best_of_candidates(scores, cases, k, shown, seen)
    if not isinstance(scores, DotScores):
        ids, best = _best_of_dense(scores, cases, k, shown, seen)
        return ids.cpu().numpy(), best.float().cpu().numpy()
    given = scores.keywords()
    if shown.allowed_V is not None:
        bias_V = scores.items.new_zeros(cases.num_items) if given["bias"] is None else given["bias"]
        given["bias"] = bias_V.masked_fill(~torch.tensor(shown.allowed_V, device=bias_V.device), -torch.inf)
    found = np.full((cases.num_cases, k), -1), np.full((cases.num_cases, k), -np.inf, np.float32)
    for start, stop in chunks(cases.num_cases, streamed_chunk(cases.num_items), "best items"):
        some = None if seen is None else seen.part(start, stop)
        ids, best = ops.top_items(
            k=k,
            **{**given, "query": given["query"][start:stop]},
            exclude_offsets=None if some is None else some.offsets,
            exclude_item=None if some is None else some.item,
        )
        found[0][start:stop], found[1][start:stop] = ids.cpu().numpy(), best.float().cpu().numpy()
    return found


def _best_of_dense(
    scores: Any, cases: Cases, k: int, shown: Shown, seen: Csr | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [C, k], -1 where none is left; scores [C, k]) of scores that are written down in chunks."""
    ids, best = [torch.empty(0, k, dtype=torch.int64)], [torch.empty(0, k)]
    for start, stop, score_BV in scores_in_chunks(scores, cases.num_cases, cases.num_items):
        if seen is not None or shown.allowed_V is not None:
            score_BV = score_BV.clone()
        if seen is not None:
            some = seen.part(start, stop)
            score_BV[torch.tensor(some.row_of_each()), torch.tensor(some.item.astype(np.int64))] = -torch.inf
        if shown.allowed_V is not None:
            score_BV[:, torch.tensor(~shown.allowed_V)] = -torch.inf
        found, value = best_columns(score_BV, k)
        ids.append(found.masked_fill(value == -torch.inf, -1))
        best.append(value.float())
    return torch.cat(ids), torch.cat(best)


def _best_of_candidates(
    scores: Any, cases: Cases, k: int, shown: Shown, seen: Csr | None
) -> tuple[np.ndarray, np.ndarray]:
    """The same where each case has candidates of its own: their scores alone are made of a dot product.

    Equal scores in order of id, as everywhere.
    """
    rows = shown.candidates
    assert rows is not None
    num_items = cases.num_items
    keep = np.ones(rows.item.size, bool) if shown.allowed_V is None else shown.allowed_V[rows.item]
    if seen is not None:
        keep &= ~np.isin(rows.keys(num_items), seen.keys(num_items))
    case, item = rows.row_of_each()[keep], rows.item[keep].astype(np.int64)
    score = _scores_of_pairs(scores, cases, case, item)
    if np.isnan(score).any():
        raise checks.wrong(
            "model", "scores that are numbers", text=f"NaN in row {case[int(np.isnan(score).argmax())]}"
        )
    real = score > -np.inf
    case, item, score = case[real], item[real], score[real]
    order = np.lexsort((item, -score, case))
    case, item, score = case[order], item[order], score[order]
    rank = np.arange(case.size) - np.searchsorted(case, case)
    first = rank < k
    ids, best = np.full((cases.num_cases, k), -1), np.full((cases.num_cases, k), -np.inf, np.float32)
    ids[case[first], rank[first]] = item[first]
    best[case[first], rank[first]] = score[first]
    return ids, best


def _scores_of_pairs(scores: Any, cases: Cases, case: np.ndarray, item: np.ndarray) -> np.ndarray:
    """[n] float32 or float64 scores of (case, item) pairs; case rises."""
    if not isinstance(scores, DotScores):
        parts = [
            score_BV[torch.tensor(case[at] - start), torch.tensor(item[at])].cpu().numpy()
            for start, stop, score_BV in scores_in_chunks(scores, cases.num_cases, cases.num_items)
            for at in [slice(*np.searchsorted(case, (start, stop)))]
        ]
        return np.concatenate([np.empty(0, np.float32), *parts])
    query, items = scores.query.detach(), scores.items.detach()
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    parts = [np.empty(0, np.float32)]
    chunk = max(1, PAIRED // query.shape[1])
    for start in range(0, case.size, chunk):
        at = slice(start, start + chunk)
        row, column = (torch.tensor(one[at], device=query.device) for one in (case, item))
        score = (query[row].to(dtype) * items[column].to(dtype)).sum(1) * scores.scale
        if scores.bias is not None:
            bias = scores.bias.detach()[column]
            score = torch.where(bias == -torch.inf, -torch.inf, score + bias)
        parts.append(score.cpu().numpy())
    return np.concatenate(parts)
