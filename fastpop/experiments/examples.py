"""What the arms show a few users of the test part, for the report: of the first seed at the first reading."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fastpop.data.cases import Cases
from fastpop.data.titles import Titles
from fastpop.evaluation.recommendations import recommend
from fastpop.experiments.arms import STANDARD
from fastpop.experiments.served import Served

SHOWN, LAST = 5, 5  # items of a list; events of a history
QUARTERS = (0.25, 0.5, 0.75)  # which users: by the length of their histories


def chosen(cases: Cases) -> np.ndarray:
    """Places of three cases, of a short, a middling and a long history; fewer where there are fewer."""
    order = np.argsort(np.diff(cases.history_rows.offsets), kind="stable")
    return order[list(dict.fromkeys(int(share * (len(order) - 1)) for share in QUARTERS))]


def lists(
    served: Sequence[Served], query_CD: Tensor, cases: Cases, mask_seen: bool
) -> dict[tuple[str, float], list[list[int]]]:
    """(arm, beta) → the best items of each chosen case. Trained arms as trained and without popularity, but
    for standard; what is made of standard afterwards at 0."""
    places = chosen(cases)
    some, query = cases.take(places), query_CD[places]
    found = {}
    is_standard = any(family.arm == STANDARD for family in served)
    for family in served:
        betas = (1.0, 0.0) if not is_standard else (1.0,) if family.arm == STANDARD else (0.0,)
        for beta in betas:
            best = recommend(family.scores(query, beta), some, SHOWN, exclude_seen=mask_seen).item
            found[family.arm, beta] = [[int(item) for item in row if item is not None] for row in best]
    return found


def kept(cases: Cases, found: dict[tuple[str, float], list[list[int]]]) -> list[dict[str, Any]]:
    """A dict a case of item numbers, as plain data."""
    return [
        {
            "num_events": len(cases.history(case)),
            "history": cases.history(case)[-LAST:].tolist(),
            "targets": cases.targets(case)[:LAST].tolist(),
            "lists": [
                {"arm": arm, "popularity_weight": beta, "items": rows[place]}
                for (arm, beta), rows in found.items()
            ],
        }
        for place, case in enumerate(chosen(cases).tolist())
    ]


def with_ids(examples: list[dict[str, Any]], item_ids: Any) -> list[dict[str, Any]]:
    """What was kept with the log's ids, as text, for its item numbers."""
    return _named(examples, lambda items: [{"id": str(item_ids[item])} for item in items])


def with_titles(examples: list[dict[str, Any]], titles: Titles) -> list[dict[str, Any]]:
    """The same with the titles that the table has, in the place of others."""

    def named(items: list[dict[str, str]]) -> list[dict[str, str]]:
        found = titles.of([item["id"] for item in items])
        return [
            {"id": item["id"]} | ({} if title is None else {"title": title})
            for item, title in zip(items, found, strict=True)
        ]

    return _named(examples, named)


def _named(examples: list[dict[str, Any]], named: Callable[[list[Any]], list[Any]]) -> list[dict[str, Any]]:
    return [
        example
        | {key: named(example[key]) for key in ("history", "targets")}
        | {"lists": [one | {"items": named(one["items"])} for one in example["lists"]]}
        for example in examples
    ]
