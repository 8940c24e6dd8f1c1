"""The contract of comparison.json: what `fastpop.compare` writes and a report draws.

A `Comparison` is plain dicts that `json.dump` takes; a report computes nothing of it, it only renders.
Every list may be empty (a log without a test part has no accuracy, one arm has no tests), and every key
marked NotRequired may be missing: the part that needs it is then left out. In the file a number that is not
known is null, in memory also NaN; both are shown as "-".

Two readings. Each trained arm is read twice: at "equal" epochs, and at its own "best" epoch by validation
NLL, or NDCG@10 where scores are no logits (only where there is a validation part). What is made of `standard`
afterwards is read where standard is. Rows that no model needs are the same at both.

Two views. `popularity_weight` None is the learned part of the score, s; a number is the score served at that
beta. NLL is given at beta 1 alone: at another beta no score is a model of p(i | c).

Keys of `Row.values` and `Summary.values`; others may stand beside them:

    of the learned part (popularity_weight None), nats² for energies
    epoch                                   the epoch that was read
    energy_total = energy_direction + energy_off_direction
    energy_direction = energy_shared + energy_heterogeneous
                                            along centred log p of half A
    energy_off_direction                    off log p: what a model has to say beside popularity
    fraction_direction, fraction_shared     energy / energy_total of the same scores
    slope                                   mean slope of the scores on log p
    amplitude                               |slope / slope of `standard`|; its square is the ratio of energies
    cos2_change                             cos² of the change of the mean score from `standard`'s with log p
    reduction_shared                        1 - energy_shared / that of `standard`
    p_value_direction, p_value_shared       permutation p-values of the arm's own energies, never 0
    p_value_sign_direction, p_value_sign_shared         the same under the sign null
    energy_shared_b, slope_b                with log p of the other half
    r1_items, r1_scores, effective_rank_items, effective_rank_scores, cosine_items, pc1_items, pc1_scores
                                            geometry, centred: `fastpop.diagnostics.geometry`
    a diagnostic that was asked for         by its name, or "name, which" of several numbers

    of a served score (popularity_weight a number)
    energies and slope                      at beta 0, .5 and 1
    nll, perplexity                         nats per event over the unmasked catalogue; beta 1 alone
    hr@10, recall@10, ndcg@10, ...          the keys of `Evaluation.metrics`, as they are
    recall_head@10, recall_mid@10, recall_tail@10
    coverage@10, gini@10, arp@10, aplt@10, novelty@10, popularity_correlation@10
    ndcg_repeat@10, ndcg_new@10             where seen items are not masked
    auc_shown, ndcg_shown@5                 over the shown items of a randomised test part
    a metric that was asked for             its key; of logits at beta 1 alone
"""

from typing import Any, Literal, NotRequired, TypedDict

NOT_CALIBRATED = "calibration not computed"
Epochs = Literal["best", "equal"]


class Rules(TypedDict, total=False):
    """How the numbers came about, in words. `calibration` defaults to NOT_CALIBRATED."""

    encoder: str  # "factor, dim 64"
    decoder: str  # "dot product, temperature 1, prior weight 1, log p smoothed by loo"
    loss: str  # "sampled softmax, logq=standard"
    sampler: str  # "mixture, 1024 negatives shared by the batch"
    context_weighting: str  # "one context per training event of half A"
    popularity_weight: str  # "beta in {0, 0.1, ...}; learned part s: scores without the popularity term"
    split: str  # "leave-last-out; all arms train on half A, ..."
    readings: str  # "equal: 6 epochs for all; best: each arm's epoch of lowest validation NLL"
    evaluation: str  # Evaluation.rule
    optimizer: str
    null: str  # "log p shuffled over items (label), and random signs (sign); 2000 draws"
    intervals: str  # "95 % t over seeds, from 3 seeds on; of fewer, their range"
    references: (
        str  # "recency: half life days 14; alpha 0.1: chosen by the likelihood of half A's later events"
    )
    words: str  # where it stands when each sentence is printed
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
    """One row of the tables, in their order.

    kind: "trained"; "afterwards", made of the trained `standard`; "reference", which no model is needed for.
    counted: of a reference, "half", the events that the arms train on, or "known", all before a case.
    readings: means over seeds in flat numbers, one entry a reading: epochs, popularity_weight (at which its
    lists are served: 1, or 0 for "afterwards"), and the keys above, energies of the learned part.
    """

    name: str  # "standard", "frozen", ..., "post-hoc", ..., "popularity", ...
    kind: Literal["trained", "afterwards", "reference"]
    trained_on: NotRequired[str]  # "s + tau log p"
    served_as: NotRequired[str]  # "s + beta log p"
    counted: NotRequired[Literal["half", "known"]]
    readings: NotRequired[list[dict[str, Any]]]


class Row(TypedDict):
    """One run of one arm, read at one epoch and judged in one way."""

    arm: str
    seed: int
    epochs: Epochs
    popularity_weight: float | None  # beta of the served score; None: the learned part s alone
    values: dict[str, float]


class Interval(TypedDict):
    """A mean over seeds. From three seeds on low and high, a 95 % t interval that leaves no metric's range;
    of two, least and most instead; of one, neither. Of p-values the median, and low and high their range."""

    mean: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    least: NotRequired[float]
    most: NotRequired[float]
    n: NotRequired[int]  # seeds behind it


class Summary(TypedDict):
    """Rows of one (arm, reading, popularity_weight) over seeds. Of one model's own report without epochs."""

    arm: str
    epochs: NotRequired[Epochs]
    popularity_weight: float | None
    values: dict[str, Interval]


class Difference(TypedDict):
    """arm - baseline over the same seeds and cases, at one reading and one view of both.

    low and high are None below three seeds.
    """

    arm: str
    baseline: str
    epochs: Epochs
    popularity_weight: float | None
    metric: str
    mean: float
    low: float | None
    high: float | None
    n: int
    unit: str  # "seeds"


class Matched(TypedDict):
    """arm - baseline where both show equally popular items: metric of both at one level of ARP, read from
    their curves over beta. low and high are None below three seeds."""

    arm: str
    baseline: str  # "post-hoc"
    epochs: Epochs
    metric: str  # "ndcg@10", "recall_mid@10", "coverage@10"
    arp: float
    arm_mean: float
    baseline_mean: float
    mean: float
    low: float | None
    high: float | None
    n: int


class Pair(TypedDict):
    """The paired permutation test of one seed: standard minus arm, energies of the learned parts."""

    arm: str
    seed: int
    epochs: Epochs
    null: str  # "label", "sign", or another that was asked for
    delta_direction: float  # nats²
    delta_shared: float
    p_direction: float
    p_shared: float


class Scatter(TypedDict):
    """Mean score of each item against log p, of the first seed at the first of `readings`."""

    arm: str
    log_prior: Any  # [n] nats
    mean_score: Any  # [n] of the learned part; centred when drawn
    slope: float  # of mean_score on log_prior
    served_score: NotRequired[Any]  # [n] of the score served at beta 1, where that is another one
    served_slope: NotRequired[float]
    num_items: NotRequired[int]  # of the catalogue: the points may be a sample of it
    seed: NotRequired[int]


class Null(TypedDict):
    """Draws of a permuted statistic and what was observed, of the first seed at the first of `readings`."""

    arm: str  # "standard - frozen"
    statistic: str  # "energy_shared"
    observed: float
    samples: Any  # [P]
    p_value: float
    kind: NotRequired[str]  # "label", "sign"
    seed: NotRequired[int]


class Exposure(TypedDict):
    """To which items the slots of all lists of k go, of the first seed at the first of `readings`.

    share: [10] of the slots, by tenths of the training events, items from the most popular to the least:
    lists in proportion to popularity have .1 in each. popularity_weight: beta that was served.
    """

    arm: str
    popularity_weight: float
    share: list[float]
    k: int


class Item(TypedDict):
    """id: of the log, as text. title: where a table of titles has one."""

    id: str
    title: NotRequired[str]


class ExampleList(TypedDict):
    """items: the best of an arm at this beta, best first."""

    arm: str
    popularity_weight: float
    items: list[Item]


class Example(TypedDict):
    """A test case and what the arms show it, of the first seed at the first of `readings`. num_events: of its
    history, whose last events are in history. targets: what came then."""

    num_events: int
    history: list[Item]
    targets: list[Item]
    lists: list[ExampleList]


class Lorenz(TypedDict):
    """How unequally the catalogue is shown: `fastpop.evaluation.lorenz_curve`. Of one model's report."""

    arm: str
    popularity_weight: float | None
    items: Any  # [n] share of the catalogue, least shown first, 0..1
    exposure: Any  # [n] share of the shown slots, 0..1
    gini: NotRequired[float]
    k: NotRequired[int]


# The functional form, because of the key "ndcg@10".
Curve = TypedDict(
    "Curve",
    {
        "arm": str,
        "seed": int,
        "epoch": Any,  # [n]
        "loss": Any,  # [n] training loss, nats
        "readings": NotRequired[dict[str, int]],  # the epochs that were read: {"best": 7, "equal": 4}
        # After each epoch, on the validation part as trained; None where not validated.
        "nll": NotRequired[Any],
        "ndcg@10": NotRequired[Any],
        "slope": NotRequired[Any],  # of the learned part on log p
        "energy_off_direction": NotRequired[Any],  # nats²
        # Of one model's report: one validation metric and what it is called.
        "valid": NotRequired[Any],
        "valid_name": NotRequired[str],
    },
)
Curve.__doc__ = "One training run by epoch."


class Facts(TypedDict):
    """What sentences need beside the numbers.

    weak: why log p is no direction, None where it is one. unseen: share of items without an event in half A.
    median_events: of a user there. still_improving: arms whose training ended before their patience. shown:
    whether a part of the test was shown at random.
    """

    weak: str | None
    unseen: float
    median_events: float
    still_improving: list[str]
    shown: bool


class Further(TypedDict):
    """A number that was asked for beside those that every comparison has: of a metric or a diagnostic.

    key: in `Row.values`; of one of several numbers of a diagnostic "name, which". view: "served", of a score
    at a beta, or "learned", of the learned part.
    """

    key: str
    label: str
    definition: str
    view: Literal["served", "learned"]


class Comparison(TypedDict):
    """All that `write_compare_report` and `comparison_text` read."""

    title: str
    headline: str  # one sentence in words
    sentences: list[str]  # what the numbers say, in words, what matters most first
    readings: list[Epochs]  # those that there are, the main one first
    best_by: NotRequired[str]  # "validation NLL", by which an arm's best epoch is chosen
    permutations: NotRequired[int]  # P of each p-value, whose floor is 1/(P + 1)
    arms: list[Arm]
    rows: list[Row]
    summary: list[Summary]
    differences: NotRequired[list[Difference]]
    matched: NotRequired[list[Matched]]
    pairs: NotRequired[list[Pair]]
    rules: Rules
    further: NotRequired[list[Further]]  # metrics and diagnostics that were asked for
    data: NotRequired[Data]
    scatter: NotRequired[list[Scatter]]
    nulls: NotRequired[list[Null]]
    exposure: NotRequired[list[Exposure]]
    examples: NotRequired[list[Example]]
    curves: NotRequired[list[Curve]]
    facts: NotRequired[Facts]  # from which, and the numbers, the sentences are made
    made_by: NotRequired[dict[str, Any]]  # version, seconds, machine, seeds, configuration
