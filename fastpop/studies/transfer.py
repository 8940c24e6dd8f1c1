"""When do item vectors inherit the scores' rank-one part, and does a long tail make them anisotropic?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastpop import diagnostics
from fastpop.data.interactions import Interactions
from fastpop.studies.models import model_options, prior_direction, trained
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
    """Geometry of item tables: trained with and without log p outside, on a log as it is and on the same log
    resampled to flat marginals, with the table alone and with linear maps above it."""

    name: ClassVar[str] = "transfer"
    question: ClassVar[str] = "Is the anisotropy of item vectors an effect of long-tailed marginals?"

    def run(self, setting: Setting) -> Answer:
        flat = flattened(setting.log, seed=0)
        arms = {
            "standard": (setting.log, {"prior": "none"}),
            "log p outside": (setting.log, {"prior": "frozen"}),
            "flat marginals": (flat, {"prior": "none"}),
            "linear map": (setting.log, {"prior": "none", "item_tower": "linear"}),
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


def _plain(options: dict) -> dict:
    """The log that is resampled has no order: matrix factorisation, without a shared vector."""
    return {**options, "encoder": "factor", "base": False, "split": "random-by-user"}


def shape_of(result: TrainResult) -> dict[str, float]:
    """Of the centred item table, and of the scores over the training contexts."""
    found = diagnostics.geometry(moments_of(result.model, result.split.train), prior_direction(result))
    return {
        "r1_scores": found.scores.r1,
        "r1_items": found.items_centred.r1,
        "rank_items": found.items_centred.effective_rank,
        "cosine": found.average_cosine_centred,
        "balance": found.balance_error,
    }


def flattened(log: Interactions, *, seed: int) -> Interactions:
    """As many events as the log has, drawn with replacement so that every item is expected equally often; an
    event is drawn within its item, so that who takes it stays."""
    rng = np.random.default_rng(seed)
    item_N, user_N = np.asarray(log.item), np.repeat(np.arange(log.num_users), np.diff(log.offsets))
    chance_N = 1.0 / log.item_counts()[item_N]
    chosen_N = np.sort(rng.choice(log.num_events, log.num_events, p=chance_N / chance_N.sum()))
    return Interactions.from_arrays(
        user_N[chosen_N],
        item_N[chosen_N],
        user_ids=np.arange(log.num_users),
        item_ids=np.arange(log.num_items),
        ordered=False,
        facts={"source": "resampled to flat marginals", "seed": int(seed)},
    )


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
