"""When do item vectors inherit the scores' rank-one part, and does a long tail make them anisotropic?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import diagnostics
from fastpop.data.interactions import Interactions
from fastpop.studies.models import model_options, trained
from fastpop.studies.study import Answer, Setting, Study, Table, excludes, of_seeds, told
from fastpop.training import TrainResult
from fastpop.training.result import moments_of

SHAPE = {
    "r1_scores": "R1 of scores",
    "r1_items": "R1 of items",
    "rank_items": "eff. rank",
    "cosine": "mean cosine",
    "balance": "balance error",
}


@dataclass(frozen=True)
class Transfer(Study):
    """Geometry of item tables, each model at its own best epoch: with and without log p outside, with a
    linear map above the table, and on as many events of the same items, all of them equally frequent."""

    name: ClassVar[str] = "transfer"
    sets: ClassVar[tuple[str, ...]] = (
        "prior",
        "encoder",
        "base",
        "split",
        "item_tower",
        "patience",
        "evaluate_every",
    )
    question: ClassVar[str] = "Is the anisotropy of item vectors an effect of long-tailed marginals?"

    def run(self, setting: Setting) -> Answer:
        drawn, flat = evened(setting.log, seed=0)
        arms: dict[str, tuple[Interactions, dict[str, Any]]] = {
            "standard": (drawn, {"prior": "none"}),
            "log p outside": (drawn, {"prior": "frozen"}),
            "flat marginals": (flat, {"prior": "none"}),
            "linear map": (drawn, {"prior": "none", "item_tower": "linear"}),
        }
        values: dict[str, float] = {}
        for arm, (log, options) in arms.items():
            found: dict[str, list[float]] = {}
            for seed in range(setting.seeds):
                both = {**_plain(model_options(setting)), **options}
                result = trained(setting, f"{arm.replace(' ', '-')}-{seed}", log, seed=seed, **both)
                for name, value in shape_of(result).items():
                    found.setdefault(name, []).append(value)
            for name, each in found.items():
                values |= of_seeds(f"{arm}.{name}", each)
                if arm != "standard":
                    base = [values[f"standard.{name}#{seed}"] for seed in range(setting.seeds)]
                    values |= of_seeds(f"{arm} - standard.{name}", np.subtract(each, base).tolist())
                else:
                    values |= {f"standard.{name}#{seed}": value for seed, value in enumerate(each)}
        table = Table(
            f"Item tables and scores, {setting.log_name}, means of {setting.seeds} seeds",
            ("arm", *SHAPE.values()),
            tuple((arm, *(values[f"{arm}.{name}"] for name in SHAPE)) for arm in arms),
        )
        return Answer(values, tuple(_sentences(values)), (table,))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """What is drawn has no order: matrix factorisation, without a shared vector. As many epochs as help:
    equal ones would compare tables that have learned with such as have not."""
    own = {"encoder": "factor", "base": False, "split": "random-by-user", "patience": 3, "evaluate_every": 1}
    return {**options, **own, "epochs": 8 * options["epochs"]}


def shape_of(result: TrainResult) -> dict[str, float]:
    """Of the centred item table, and of the scores over the training contexts."""
    found = diagnostics.geometry(moments_of(result.model, result.split.train), result.prior.log_prior_V)
    return {
        "r1_scores": found.scores.r1,
        "r1_items": found.items_centred.r1,
        "rank_items": found.items_centred.effective_rank,
        "cosine": found.average_cosine_centred,
        "balance": found.balance_error,
    }


def evened(log: Interactions, *, seed: int) -> tuple[Interactions, Interactions]:
    """(events at random, equally many of each item), of the same size and over the same items.

    The items have at least c events, c chosen so that most events are left; the second log has exactly c of
    each, drawn without replacement, so that who takes an item stays as it was.
    """
    rng = np.random.default_rng(seed)
    count_V, item_N = log.item_counts(), np.asarray(log.item)
    size = np.arange(1, count_V.max() + 1)
    left = np.array([c * np.count_nonzero(count_V >= c) for c in size])
    least = int(size[np.argmax(left)])
    order = rng.permutation(np.flatnonzero(count_V[item_N] >= least))
    order = order[np.argsort(item_N[order], kind="stable")]  # by item, at random within it
    first = np.searchsorted(item_N[order], item_N[order])
    flat_N = np.sort(order[np.arange(len(order)) - first < least])
    drawn_N = np.sort(rng.choice(order, len(flat_N), replace=False))
    kept_V = np.flatnonzero(count_V >= least)
    user_N = np.repeat(np.arange(log.num_users), np.diff(log.offsets))
    drawn, flat = (
        Interactions.from_arrays(
            user_N[some],
            np.searchsorted(kept_V, item_N[some]),
            user_ids=np.arange(log.num_users),
            item_ids=np.arange(len(kept_V)),
            ordered=False,
            facts={"source": f"{least} events of each of {len(kept_V)} items, or as many", "seed": int(seed)},
        )
        for some in (drawn_N, flat_N)
    )
    return drawn, flat


_VERDICTS = {1: "larger", -1: "smaller", 0: "not told apart", None: "too few runs to say"}


def _sentences(values: dict[str, float]) -> list[str]:
    found = []
    for arm in ("flat marginals", "log p outside"):
        name = f"{arm} - standard.r1_items"
        words = _VERDICTS[excludes(values, name)]
        found.append(
            f"R1 of the item table, {arm} against standard: {words}, difference {told(values, name)}; of the "
            f"scores {told(values, f'{arm} - standard.r1_scores')}."
        )
    return found
