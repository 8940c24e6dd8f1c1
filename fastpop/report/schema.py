"""What a report is made of: plain dicts that `json.dump` takes, nothing computed here.

An experiment fills a `Comparison` (or hands an `Audit.to_dict()` to `write_audit_report`); the
report only renders it. Every list may be empty and every key marked NotRequired may be missing:
the part that needs it is then left out, and a missing number is shown as "-".

Keys of `Row.values` and `Summary.values` that the tables and plots know (others go to the CSV and
JSON as they are):

    energy_total, energy_direction, energy_shared, energy_heterogeneous    nats², absolute
    fraction_direction, fraction_shared     energy / energy_total of the same scores
    mean_slope                              mean slope of the scores on log p
    amplitude_ratio                         |mean_slope / mean_slope of `standard`|
    reduction_shared                        1 - energy_shared / that of `standard`
    p_value_direction, p_value_shared       permutation p-values, never 0
    p_value_sign_direction, p_value_sign_shared       the same under the sign-flip null
    energy_shared_b, fraction_shared_b, mean_slope_b, p_value_shared_b
                                            with log p from events not trained on
    nll, perplexity                         nats per event; unmasked catalogue
    hr@10, recall@10, ndcg@10, ...          the keys of `Evaluation.metrics`, as they are
    recall_head@10, recall_mid@10, recall_tail@10
    coverage@10, gini@10, arp@10, aplt@10, novelty@10, popularity_correlation@10
    ndcg_repeat@10, ndcg_new@10             where seen items are not masked
"""

from typing import Any, NotRequired, TypedDict

NOT_CALIBRATED = "calibration not computed"


class Rules(TypedDict, total=False):
    """The line that every table states, in words. `calibration` defaults to NOT_CALIBRATED."""

    encoder: str  # "factor, dim 64"
    decoder: str  # "dot product, fixed scale 1.0, no learned bias"
    loss: str  # "sampled softmax, logq=standard, hits=keep"
    sampler: str  # "popularity^0.75, 1024 negatives shared by 128 rows"
    context_weighting: str  # "one context per training event"
    popularity_weight: str  # "beta in {0, 0.5, 1}; learned part = scores without log p"
    split: str  # "leave-last-out; event half A trains, log p from A"
    evaluation: str  # Evaluation.rule
    optimizer: str
    null: str  # "plain label permutation of b, 2000 draws"
    calibration: str


class Data(TypedDict, total=False):
    """The log that was used."""

    name: str
    num_users: int
    num_items: int
    num_events: int
    num_cases: int
    note: str  # what was dropped and why, licence, ...


class Arm(TypedDict):
    """One arm of the intervention. Colours and line styles follow the order of the list."""

    name: str  # "standard", "frozen", "permuted", "learned", "disjoint", "post-hoc"
    trained_on: NotRequired[str]  # "s + log p"
    served_as: NotRequired[str]  # "s + beta log p"


class Row(TypedDict):
    """One run of one arm, looked at in one way."""

    arm: str
    seed: int
    popularity_weight: float | None  # beta of the served score; None: the learned part s alone
    values: dict[str, float]


class Interval(TypedDict):
    mean: float
    low: NotRequired[float | None]  # None or missing: no interval (one seed)
    high: NotRequired[float | None]
    n: NotRequired[int]  # seeds (or cases) behind it


class Summary(TypedDict):
    """Rows of one (arm, popularity_weight) aggregated over seeds; of p-values the median."""

    arm: str
    popularity_weight: float | None
    values: dict[str, Interval]


class Difference(TypedDict):
    """A paired difference `arm - baseline`, same seeds, same cases."""

    arm: str
    baseline: str
    popularity_weight: float | None
    baseline_popularity_weight: NotRequired[float | None]
    metric: str
    mean: float
    low: float | None
    high: float | None
    n: int
    unit: str  # "seeds" or "cases"


class Scatter(TypedDict):
    """Mean score of each item against log p; the line goes through the mean with this slope."""

    arm: str
    log_prior: Any  # [n] nats
    mean_score: Any  # [n] of the scores that the energies were taken of; centred when drawn
    slope: float  # of mean_score on log_prior
    intercept: NotRequired[float]  # for the JSON; the picture centres the scores
    seed: NotRequired[int]
    num_items: NotRequired[int]  # when the points are a sample of the catalogue


class Null(TypedDict):
    """The permutation distribution of one statistic, and what was observed."""

    arm: str
    statistic: str  # "energy_shared"
    observed: float
    samples: Any  # [P]
    p_value: float
    seed: NotRequired[int]
    kind: NotRequired[str]  # "plain", "stratified", "sign"


class Lorenz(TypedDict):
    """How unequally the catalogue is shown: `fastpop.evaluation.lorenz_curve`."""

    arm: str
    popularity_weight: float | None
    items: Any  # [n] share of the catalogue, least shown first, 0..1
    exposure: Any  # [n] share of the shown slots, 0..1
    gini: NotRequired[float]
    k: NotRequired[int]


class Curve(TypedDict):
    """One training run."""

    arm: str
    seed: int
    epoch: Any  # [n]
    loss: Any  # [n] nats
    valid: NotRequired[Any]  # [n]; NaN or None where not evaluated
    valid_name: NotRequired[str]  # "ndcg@10 on validation"


class Comparison(TypedDict):
    """All that `write_compare_report` reads."""

    title: str
    headline: str  # one sentence in words
    sentences: list[str]  # what the table says, in words
    arms: list[Arm]
    rows: list[Row]
    summary: list[Summary]
    differences: NotRequired[list[Difference]]
    rules: Rules
    data: NotRequired[Data]
    scatter: NotRequired[list[Scatter]]
    nulls: NotRequired[list[Null]]
    lorenz: NotRequired[list[Lorenz]]
    curves: NotRequired[list[Curve]]
    made_by: NotRequired[dict[str, Any]]  # version, command, seconds, machine, seeds
