"""Popularity by period: how many directions does it move in, and do scores hold them?"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fastpop import checks, diagnostics
from fastpop.diagnostics.time_rank import log_bilinear
from fastpop.popularity import TemporalPrior
from fastpop.priors import ByPeriod
from fastpop.studies.models import model_options, trained
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, of_seeds, told
from fastpop.training import TrainConfig, TrainResult, build, sealed

ARMS = {
    "standard": "standard",
    "frozen": "log p of all periods outside",
    "by-period": "log p of each period outside",
}
DENSE = 5  # events of an item a period, in the second count of directions
QUICK_PERIODS = 6
FOUND_AGAIN = 0.5  # the cosine above which a direction of one half is said to be one of the other


@dataclass(frozen=True)
class Periods(Study):
    """log p_t of periods of about equally many events: its rank by count splitting, whether both halves of
    the counts have the same directions, and how much of the scores lies in them, log p outside or not.

    periods: T. least: items with fewer events a period, on average, are counted as one item together.
    """

    name: ClassVar[str] = "periods"
    sets: ClassVar[tuple[str, ...]] = ("prior",)
    question: ClassVar[str] = "Does popularity move in few directions over time, and do scores hold them?"
    needs: ClassVar[str] = "time"
    periods: int = 24
    least: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("periods.periods", self.periods, ge=3, integer=True)
        checks.number("periods.least", self.least, ge=1, integer=True)

    def run(self, setting: Setting) -> Answer:
        number = min(self.periods, QUICK_PERIODS) if setting.quick else self.periods
        temporal = TemporalPrior.from_interactions(setting.log, num_buckets=number)
        if temporal.num_buckets < 3:
            raise checks.wrong(
                "log", "events at times that make three periods or more", text=f"{temporal.num_buckets}"
            )
        values = residual(temporal) | {"periods": float(temporal.num_buckets)}
        for name, least in (("rank", self.least), ("rank.dense", DENSE * self.least)):
            values |= _ranks(setting, name, together(temporal.counts_TV, least))
        dim = max(1, round(values["rank"]) - 1)
        values |= {"directions": float(dim)}
        values |= _angles(setting, together(temporal.counts_TV, self.least), dim)
        values |= _models(setting, temporal.num_buckets, dim)
        return Answer(
            values,
            _sentences(values, setting),
            (_rank_table(values), _model_table(values)),
            (_chart(values),),
        )


def together(count_TV: np.ndarray, least: int) -> np.ndarray:
    """[T, v + 1] counts of the items with least events a period or more, and of all others as one item."""
    kept_V = count_TV.sum(axis=0) >= least * len(count_TV)
    others_T1 = count_TV[:, ~kept_V].sum(axis=1, keepdims=True)
    return np.hstack([count_TV[:, kept_V], others_T1])


def residual(temporal: TemporalPrior) -> dict[str, float]:
    """What one log p for all periods leaves of log p_t, in nats² and as a share of it."""
    weight_T = temporal.counts_TV.sum(axis=1)
    spread_T = temporal.log_prior_TV.var(axis=1) * temporal.num_items
    left = diagnostics.pooled_residual(temporal.log_prior_TV, weight_T)
    return {
        "pooled_residual": left,
        "pooled_residual.share": left / float(np.average(spread_T, weights=weight_T)),
    }


def _kept(setting: Setting, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Numbers by their name within the experiment: made, or as they were kept."""
    path = setting.part(f"{name}.json")
    if path is not None and path.exists():
        return sealed.read(path)
    found = make()
    if path is not None:
        sealed.write(path, found)
    setting.lap()
    return found


def _ranks(setting: Setting, name: str, count_TV: np.ndarray) -> dict[str, float]:
    """The rank of each split, and what is held out at each rank."""

    def split(seed: int) -> dict[str, Any]:
        found = diagnostics.time_rank(count_TV, most=len(count_TV) // 2, seed=seed)
        return {"rank": found.rank, "held_out_R": found.held_out_R.tolist()}

    each = [_kept(setting, f"{name}-{seed}", functools.partial(split, seed)) for seed in range(setting.seeds)]
    values = of_seeds(name, [float(one["rank"]) for one in each])
    values |= {f"{name}.items": float(count_TV.shape[1] - 1)}
    values |= {f"{name}.events": float(count_TV[:, :-1].sum() / count_TV.sum())}
    for rank, nats in enumerate(np.array([one["held_out_R"] for one in each]).T):
        over = nats - [one["held_out_R"][1] for one in each]
        values |= of_seeds(f"{name}.over.r{rank}", over.tolist())
    return values


def _angles(setting: Setting, count_TV: np.ndarray, dim: int) -> dict[str, float]:
    """Cosines of the principal angles between the directions, beside the pooled log p, of two halves."""
    pooled_V = np.log(count_TV.sum(axis=0) + 0.5)

    def cosines(seed: int) -> dict[str, Any]:
        half_TV = np.random.default_rng([seed, dim]).binomial(count_TV.astype(np.int64), 0.5).astype(float)
        weight_T = count_TV.sum(axis=1)
        both = [
            diagnostics.time_subspace(log_bilinear(one_TV, dim + 1), dim, weight=weight_T, beside=pooled_V)
            for one_TV in (half_TV, count_TV - half_TV)
        ]
        return {"cosine_K": diagnostics.principal_angles(*both).tolist()}

    each = [
        _kept(setting, f"angles-{seed}", functools.partial(cosines, seed)) for seed in range(setting.seeds)
    ]
    values: dict[str, float] = {}
    for place, found in enumerate(np.array([one["cosine_K"] for one in each]).T, 1):
        values |= of_seeds(f"cosine.{place}", found.tolist())
    return values


def _models(setting: Setting, periods: int, dim: int) -> dict[str, float]:
    """Of each arm: the share of the scores' energy in the subspace, the shift test, NLL of later events."""
    options = {"split": "global-time", **model_options(setting)}
    priors = {"standard": "none", "frozen": "frozen", "by-period": ByPeriod(periods=periods)}
    found: dict[str, list[float]] = {}
    subspace: Subspace | None = None
    for seed in range(setting.seeds):
        by_arm = {}
        for arm, prior in priors.items():
            result = trained(setting, f"{arm}-{seed}", **options | {"prior": prior, "seed": seed})
            if subspace is None:
                subspace = Subspace.of(result, periods, dim)
            measure = functools.partial(measured, result, subspace)
            by_arm[arm] = _kept(setting, f"scores-{arm}-{seed}", measure)
        for arm, numbers in by_arm.items():
            for name, value in numbers.items():
                found.setdefault(f"{arm}.{name}", []).append(value)
    values = {"null_share": dim / (setting.log.num_items - 1)}
    for name, each in found.items():
        values |= {name: max(each)} if name.endswith(".p") else of_seeds(name, each)
    for name in ("share", "energy", "nll", "nll.fresh"):
        for other in ("standard", "frozen"):
            less = np.subtract(found[f"by-period.{name}"], found[f"{other}.{name}"])
            values |= of_seeds(f"by-period - {other}.{name}", less.tolist())
    return values


@dataclass(frozen=True, eq=False)
class Subspace:
    """temporal: log p_t of the events trained on. pooled_V: log p of them all. basis_VK: the directions that
    are beside it."""

    temporal: TemporalPrior
    pooled_V: np.ndarray
    basis_VK: np.ndarray

    @classmethod
    def of(cls, result: TrainResult, periods: int, dim: int) -> "Subspace":
        config: TrainConfig = result.config.replace(prior=ByPeriod(periods=periods))
        train = result.split.train
        temporal = build.temporal_prior(config, train)
        pooled_V = build.target_prior(train, config.encoder_part, config.smoothing).log_prior_V
        basis_VK = diagnostics.time_subspace(
            temporal.log_prior_TV, dim, weight=temporal.counts_TV.sum(axis=1), beside=pooled_V
        )
        return cls(temporal, pooled_V, basis_VK)


def measured(result: TrainResult, subspace: Subspace) -> dict[str, float]:
    """Of the learned part, a context a training event; NLL as served, and beside the newest log p."""
    query_CD, period_C, weight_C = contexts(result, subspace.temporal)
    decoder = result.model.decoder
    item_VD = decoder.item_vectors().detach().double().cpu().numpy()
    scale = float(decoder.scale.detach())
    moments = diagnostics.ScoreMoments.of(query_CD, item_VD, scale=scale, context_weight=weight_C)
    shifted = diagnostics.time_shift_test(
        query_CD, item_VD, period_C, subspace.temporal.log_prior_TV, scale=scale, context_weight=weight_C
    )
    nll = result.metrics["nll"]
    exchanged = result.config.prior == "frozen"
    fresh = result.refresh_prior(subspace.temporal.newest()).evaluate().metrics["nll"] if exchanged else nll
    within = diagnostics.subspace_energy(moments, subspace.basis_VK)
    return {
        "share": within.share,
        "share_off": within.energy / moments.energy(subspace.pooled_V).off_direction,
        "energy": within.energy,
        "p": shifted.p_value,
        "own": shifted.energy / float(shifted.shifted_S.mean()),
        "nll": nll,
        "nll.fresh": fresh,
    }


@torch.no_grad()
def contexts(
    result: TrainResult, temporal: TemporalPrior
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(query [C, D] float64, period [C], weight [C] or None): each event that is trained on, once."""
    model, train = result.model.eval(), result.split.train
    period_N = build.period_of_events(train, temporal)
    rows: Any = model.train_rows
    batches = rows.batches(
        train, max_length=model.max_length, batch_size=2048, seed=result.config.seed, period=period_N
    )
    item_VD = model.decoder.item_vectors()
    queries, periods, weights = [], [], []
    for batch in batches.epoch(0):
        query_RD, _, weight_R = model.rows(batch, item_VD)
        queries.append(query_RD.double().cpu().numpy())
        periods.append(batch.period[batch.target >= 0])
        if weight_R is not None:
            weights.append(weight_R.double().cpu().numpy())
    return np.concatenate(queries), np.concatenate(periods), np.concatenate(weights) if weights else None


def low_rank(values: dict[str, float], name: str = "rank") -> str:
    """A rule on the interval of the rank: "few", more than one and less than half as many as periods; "one";
    "many", half or more; "open", an interval that holds two of these; "too few runs"."""
    low, high = values.get(f"{name}.low"), values.get(f"{name}.high")
    half = values["periods"] // 2
    if low is None or high is None:
        return "too few runs"
    if high <= 1:
        return "one"
    if low >= half:
        return "many"
    return "few" if low > 1 and high < half else "open"


_WORDS = {
    "few": "few, as a low-rank subspace beyond one log p would have it",
    "one": "no more than one log p for all periods has",
    "many": "as many as half of the periods, or more",
    "open": "whether that is few the interval leaves open",
    "too few runs": "too few runs to say whether that is few",
}


def _sentences(values: dict[str, float], setting: Setting) -> tuple[str, ...]:
    dense = (
        f"counted over the {values['rank.dense.items']:.0f} items of {DENSE} times as many it is "
        f"{told(values, 'rank.dense', 1)}: {_WORDS[low_rank(values, 'rank.dense')]}"
    )
    return (
        f"{setting.log_name}, log p of {values['periods']:.0f} periods of about equally many events: rank "
        f"{told(values, 'rank', 1)} by count splitting, over {values['rank.items']:.0f} items with "
        f"{100 * values['rank.events']:.0f} % of the events, the others as one: "
        f"{_WORDS[low_rank(values)]}; {dense}.",
        _angle_words(values),
        f"One log p for all periods leaves {values['pooled_residual']:.1f} of the squared nats of log p_t, "
        f"{100 * values['pooled_residual.share']:.2f} %.",
        _share_words(values),
        _nll_words(values),
    )


def again(values: dict[str, float]) -> int | None:
    """How many directions are found in both halves: their whole intervals above a cosine of .5, from the
    first; None without intervals."""
    sides = [
        excludes(values, f"cosine.{place}", FOUND_AGAIN) for place in range(1, int(values["directions"]) + 1)
    ]
    if None in sides:
        return None
    return next((place for place, side in enumerate(sides) if side != 1), len(sides))


def _angle_words(values: dict[str, float]) -> str:
    number, found = int(values["directions"]), again(values)
    said = ", ".join(told(values, f"cosine.{place}", 2) for place in range(1, number + 1))
    rule = "too few runs to say more" if found is None else f"{found} of {number} found in both"
    return f"Directions beside the pooled log p, of either half of the counts: cosines {said}: {rule}."


_SIDES = {1: "more than", -1: "less than", 0: "not told apart from", None: "too few runs against"}


def _share_words(values: dict[str, float]) -> str:
    said = "; ".join(
        f"{words} {100 * values[f'{arm}.share']:.2f} %, {told(values, f'{arm}.energy', 2)} squared nats "
        f"(shift test: p at most {values[f'{arm}.p']:.3f})"
        for arm, words in ARMS.items()
    )
    sides = (
        f"{_SIDES[excludes(values, f'by-period - {other}.energy')]} {ARMS[other]}"
        for other in ("frozen", "standard")
    )
    return (
        f"Of the learned scores' energy in these directions, {100 * values['null_share']:.3f} % by chance: "
        f"{said}. The energy with {ARMS['by-period']}: {'; '.join(sides)}."
    )


def _nll_words(values: dict[str, float]) -> str:
    verdict = {1: "higher", -1: "lower", 0: "not told apart", None: "too few runs to say"}
    said = "; ".join(
        f"{words}: {told(values, name)}, {verdict[excludes(values, name)]}"
        for name, words in (
            ("by-period - frozen.nll.fresh", "one of all periods, the newest beside it"),
            ("by-period - frozen.nll", "one of all periods, as it is"),
            ("by-period - standard.nll", "the standard model"),
        )
    )
    return f"NLL of later events, trained by period and beside the newest log p, against {said}."


def _rank_table(values: dict[str, float]) -> Table:
    ranks = range(int(values["periods"]) // 2 + 1)
    rows = tuple(
        (str(rank), *(values.get(f"{name}.over.r{rank}", "-") for name in ("rank", "rank.dense")))
        for rank in ranks
        if f"rank.over.r{rank}" in values
    )
    columns = ("rank", f"{values['rank.items']:.0f} items", f"{values['rank.dense.items']:.0f} items")
    return Table("Held-out half of the counts, nats an event over rank 1", columns, rows)


def _model_table(values: dict[str, float]) -> Table:
    columns = ("model", "share", "off p", "energy", "own/shifted", "p at most", "NLL", "newest p")
    names = ("share", "share_off", "energy", "own", "p", "nll", "nll.fresh")
    rows = tuple((arm, *(values[f"{arm}.{name}"] for name in names)) for arm in ARMS)
    by_chance = ("by chance", values["null_share"], values["null_share"], *("-",) * 5)
    return Table(
        "Learned scores in the directions of time, and fit to later events", columns, (*rows, by_chance)
    )


def _chart(values: dict[str, float]) -> Chart:
    series = []
    for name in ("rank", "rank.dense"):
        ranks = [rank for rank in range(1, int(values["periods"])) if f"{name}.over.r{rank}" in values]
        mean, low, high = (
            tuple(
                values[f"{name}.over.r{rank}{end}"] for rank in ranks if f"{name}.over.r{rank}{end}" in values
            )
            for end in ("", ".low", ".high")
        )
        words = f"{values[f'{name}.items']:.0f} items, the others as one"
        series.append(Series(words, tuple(map(float, ranks)), mean, low, high))
    return Chart(
        "periods",
        "Likelihood of the held-out half of the counts",
        "rank of log p by period",
        "nats an event over rank 1",
        tuple(series),
    )
