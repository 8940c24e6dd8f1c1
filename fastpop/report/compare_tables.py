"""What stands in which table of a comparison, as rows of finished cells.

A terminal and a page show the same tables.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fastpop.report.cells import DIGITS, EACH, FLOOR, Cell, interval_cells, p_cell, writer
from fastpop.report.schema import Comparison, Interval

NULLS = {
    "label": "log p shuffled over items",
    "sign": "random signs, which norms that go with popularity do not fool",
}
LEARNED = None  # the popularity weight of the learned part alone


@dataclass(frozen=True)
class Group:
    """Rows under one heading: (label, cells)."""

    heading: str
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Table:
    """head: of the label and of each cell. note: what a reader has to know. name: for a page to find it."""

    name: str
    title: str
    note: str
    head: list[str]
    groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """decimals: None takes as many as show three digits of the largest number, four decimals of shares; EACH
    three digits of each. view: of an arm that is read, "learned" or "served" (at the beta of the row)."""

    key: str
    heading: str
    decimals: int | None = None
    view: str = "learned"
    spread: bool = True


FIT = (
    Column("epoch", "epochs", 1, spread=False),
    Column("nll", "NLL", 3, "served"),
    Column("ndcg@10", "NDCG@10", None, "served"),
    Column("recall_mid@10", "mid rec.", None, "served"),
    Column("coverage@10", "coverage", 3, "served"),
    Column("arp@10", "ARP", None, "served"),
)
SHOWN = (Column("auc_shown", "AUC", 4, "served"), Column("ndcg_shown@5", "NDCG@5", 4, "served"))
ENERGY = (
    Column("energy_total", "total", EACH),
    Column("energy_direction", "along", EACH),
    Column("energy_off_direction", "off", EACH),
    Column("energy_shared", "shared", EACH),
    Column("slope", "slope", 3),
    Column("amplitude", "ampl.", 3),
    Column("cos2_change", "cos²", 3),
)
GEOMETRY = (
    Column("r1_items", "R1 E", 3),
    Column("r1_scores", "R1 s", 3),
    Column("effective_rank_items", "rank E"),
    Column("effective_rank_scores", "rank s"),
    Column("cosine_items", "cos E", 3),
    Column("pc1_items", "PC1 E", 3),
    Column("pc1_scores", "PC1 s", 3),
)
OF_LEARNED = (
    " ampl.: |slope| over standard's. cos²: share of the change from standard that lies along log "
    "p. Shared energy ranks nothing: subtracting the fitted slope leaves 0 in any model."
)
MATCHED = (("ndcg@10", "NDCG@10"), ("recall_mid@10", "mid rec."), ("coverage@10", "coverage"))


def all_tables(comparison: Comparison) -> list[Table]:
    """In the order of reading, without those that have no numbers."""
    main = comparison["readings"][:1]
    found = [
        fit(comparison, comparison["readings"]),
        shown_items(comparison, comparison["readings"]),
        matched(comparison, main),
        energies(comparison, main),
        p_values(comparison, main),
        geometry(comparison, main),
        further(comparison, comparison["readings"]),
    ]
    return [table for table in found if any(group.rows for group in table.groups)]


def fit(comparison: Comparison, readings: Sequence[str]) -> Table:
    """Fit and accuracy of every arm, and of the rows that no model needs once, with the first reading."""
    return Table(
        "fit",
        "Fit and accuracy on the test part",
        "Trained arms as trained (beta 1); what is made of standard afterwards at beta 0, where no score is "
        "a model of p(i | c): no NLL. mid rec.: recall of the middle 60 % of events. ARP: mean count of what "
        "is shown. " + spread_words(comparison),
        ["arm", *(column.heading for column in FIT)],
        _as_served(comparison, FIT, readings),
    )


def shown_items(comparison: Comparison, readings: Sequence[str]) -> Table:
    return Table(
        "shown",
        "Over the items that were shown at random",
        "Nobody chose what was shown, so nothing here is owed to what a log chose to show. Served as above.",
        ["arm", *(column.heading for column in SHOWN)],
        _as_served(comparison, SHOWN, readings),
    )


def energies(comparison: Comparison, readings: Sequence[str], weight: float | None = LEARNED) -> Table:
    """Of the learned part, or (weight a number) of the score served at that beta."""
    columns = ENERGY if weight is LEARNED else tuple(replace(column, view="served") for column in ENERGY[:5])
    what = "the learned part s" if weight is LEARNED else f"the score served at beta {weight:g}"
    return Table(
        "energies",
        f"Energy of {what}, nats²",
        "total = along + off log p; shared: along log p, the same for every context. slope: of the scores "
        "on log p." + OF_LEARNED * (weight is LEARNED),
        ["arm", *(column.heading for column in columns)],
        _per_reading(comparison, readings, columns, lambda arm: weight),
    )


def geometry(comparison: Comparison, readings: Sequence[str]) -> Table:
    return Table(
        "geometry",
        "Geometry of the item table E and of the learned scores s",
        "R1: share of the first principal axis. rank: effective rank. cos: mean cosine of two items, "
        "centred. PC1: |correlation| of the first principal component with log p. Subtracting log p "
        "afterwards leaves E as it is.",
        ["arm", *(column.heading for column in GEOMETRY)],
        _per_reading(comparison, readings, GEOMETRY, lambda arm: LEARNED),
    )


def further(comparison: Comparison, readings: Sequence[str]) -> Table:
    """Metrics and diagnostics that were asked for; no row where none were."""
    asked = comparison.get("further", [])
    columns = [Column(one["key"], one["label"], None, one["view"]) for one in asked]
    said: dict[str, list[str]] = {}  # several numbers of one diagnostic are told once
    for one in asked:
        said.setdefault(one["definition"], []).append(one["label"])
    words = [f"{'; '.join(labels)}: {definition}" for definition, labels in said.items() if definition]
    return Table(
        "further",
        "What was asked for besides",
        "Metrics as served above, diagnostics of the learned part. " + " ".join(words),
        ["arm", *(column.heading for column in columns)],
        _as_served(comparison, columns, readings) if columns else [],
    )


def matched(comparison: Comparison, readings: Sequence[str]) -> Table:
    """arm - baseline where both show equally popular items, at each level of ARP."""
    entries = comparison.get("matched", [])
    baseline = entries[0]["baseline"] if entries else "post-hoc"
    groups = []
    for epochs in readings:
        mine = [entry for entry in entries if entry["epochs"] == epochs]
        places = list(dict.fromkeys((entry["arm"], entry["arp"]) for entry in mine))
        write = writer([arp for _, arp in places], None)
        cells = [[Cell(write(arp)) for _, arp in places]]
        for metric, _ in MATCHED:
            by_place = {(entry["arm"], entry["arp"]): entry for entry in mine if entry["metric"] == metric}
            level = max((abs(entry["arm_mean"]) for entry in by_place.values()), default=0.0)
            # As many decimals as show three digits of the accuracy itself.
            digits = max(3, DIGITS - 1 - math.floor(math.log10(level))) if level else 3
            column = [by_place.get(place) for place in places]
            cells.append(interval_cells(metric, column, digits, signed=True))
        rows, before = [], ""
        for (arm, _), row in zip(places, zip(*cells)):
            rows.append((arm if arm != before else "", list(row)))
            before = arm
        groups.append(Group(reading_words(comparison, epochs), rows))
    return Table(
        "matched",
        f"Accuracy at equally popular lists: arm minus {baseline}",
        "Both are read from their curves over beta where their lists have the same ARP, at three levels that "
        "both reach. "
        + (
            "± is half of the 95 % t interval of the paired difference."
            if seeds_of(comparison) > 2
            else NO_INTERVAL
        ),
        ["arm", "ARP", *(heading for _, heading in MATCHED)],
        groups,
    )


def p_values(comparison: Comparison, readings: Sequence[str]) -> Table:
    """Of shared energies, under every null: the arm's own, and of standard minus arm. Two nulls stand side by
    side, more of them one after the other."""
    nulls = list(dict.fromkeys(pair["null"] for pair in comparison.get("pairs", []))) or list(NULLS)
    beside = [nulls] if len(nulls) <= len(NULLS) else [[null] for null in nulls]
    draws = comparison.get("permutations", 0)
    groups = []
    for epochs, some in itertools.product(readings, beside):
        rows = []
        for arm in arms_of(comparison, "trained", "afterwards"):
            values = values_of(comparison, arm, epochs, LEARNED)
            keys = ["p_value_shared" if null == "label" else f"p_value_{null}_shared" for null in some]
            own = [values[key].get("high") if key in values else None for key in keys]
            pairs = [
                max(
                    (
                        pair["p_shared"]
                        for pair in comparison.get("pairs", [])
                        if (pair["arm"], pair["epochs"], pair["null"]) == (arm, epochs, null)
                    ),
                    default=None,
                )
                for null in some
            ]
            if any(value is not None for value in (*own, *pairs)):
                rows.append((arm, [Cell(p_cell(value, draws)) for value in (*own, *pairs)]))
        which = "" if some == nulls else f"; null {some[0]}"
        groups.append(Group(reading_words(comparison, epochs) + which, rows))
    floor = f" {FLOOR}: the floor of {draws:,} draws, 1/{draws + 1:,}: it could not be smaller." * (draws > 0)
    return Table(
        "p",
        "p-values of the shared energy, the largest over seeds",
        "own: of the arm's scores; pair: of standard minus arm. "
        + "; ".join(f"{null}: {NULLS.get(null, 'see the rules')}" for null in nulls)
        + f".{floor}",
        ["arm", *(f"{what}, {null}" for what in ("own", "pair") for null in nulls)]
        if len(beside) == 1
        else ["arm", "own", "pair"],
        groups,
    )


def served(comparison: Comparison, epochs: str) -> Table:
    """What the lists of every arm are like at every beta."""
    keys = [
        (key, heading)
        for key, heading in (
            ("hr@10", "HR"),
            ("recall@10", "recall"),
            ("ndcg@10", "NDCG"),
            ("recall_head@10", "head rec."),
            ("recall_mid@10", "mid rec."),
            ("recall_tail@10", "tail rec."),
            ("ndcg_repeat@10", "NDCG repeat"),
            ("ndcg_new@10", "NDCG new"),
            ("coverage@10", "coverage"),
            ("gini@10", "Gini"),
            ("arp@10", "ARP"),
            ("novelty@10", "novelty"),
            *((one["key"], one["label"]) for one in comparison.get("further", []) if one["view"] == "served"),
        )
        if not (key == "recall@10" and one_target(comparison))
    ]
    entries = [
        entry
        for entry in comparison["summary"]
        if entry["epochs"] == epochs and entry["popularity_weight"] is not LEARNED
    ]
    keys = [(key, heading) for key, heading in keys if any(key in entry["values"] for entry in entries)]
    entries = [entry for entry in entries if any(key in entry["values"] for key, _ in keys)]
    columns = [interval_cells(key, [entry["values"].get(key) for entry in entries], None) for key, _ in keys]
    groups: dict[str, list] = {}
    for entry, row in zip(entries, zip(*columns)):
        groups.setdefault(entry["arm"], []).append((f"{entry['popularity_weight']:g}", list(row)))
    return Table(
        "served",
        "Lists of ten at every beta, " + reading_words(comparison, epochs),
        spread_words(comparison),
        ["beta", *(heading for _, heading in keys)],
        [Group(arm, rows) for arm, rows in groups.items()],
    )


def differences(comparison: Comparison, weight: float | None, epochs: str) -> Table:
    """Paired differences from standard, an arm a row and a metric a column."""
    entries = [
        entry
        for entry in comparison.get("differences", [])
        if (entry["popularity_weight"], entry["epochs"]) == (weight, epochs)
    ]
    by_place = {(entry["arm"], entry["metric"]): entry for entry in entries}
    arms, metrics = (list(dict.fromkeys(entry[key] for entry in entries)) for key in ("arm", "metric"))
    columns = [
        interval_cells(metric, [by_place.get((arm, metric)) for arm in arms], None, signed=True)
        for metric in metrics
    ]
    what = "learned parts" if weight is LEARNED else f"both served at beta {weight:g}"
    return Table(
        "differences",
        f"Arm minus standard over the same seeds, {what}, {reading_words(comparison, epochs)}",
        NO_INTERVAL if seeds_of(comparison) < 3 else "± is half of the 95 % t interval.",
        ["arm", *metrics],
        [Group("", list(zip(arms, map(list, zip(*columns)))))],
    )


NO_INTERVAL = "No intervals below 3 seeds."


def _as_served(comparison: Comparison, columns: Sequence[Column], readings: Sequence[str]) -> list[Group]:
    """Trained arms at each reading, then what is made afterwards at each, then references once."""
    places = [
        (reading_words(comparison, epochs), epochs, arm)
        for epochs in readings
        for arm in arms_of(comparison, "trained")
    ]
    places += [
        (afterwards_words(comparison, epochs), epochs, arm)
        for epochs in readings
        for arm in arms_of(comparison, "afterwards")
    ]
    places += [
        ("no model", epochs, arm)
        for epochs in readings
        if epochs == comparison["readings"][0]
        for arm in arms_of(comparison, "reference")
    ]
    weights = {arm["name"]: 0.0 if arm["kind"] == "afterwards" else 1.0 for arm in comparison["arms"]}
    return _groups(comparison, places, columns, lambda arm: weights[arm])


def _per_reading(
    comparison: Comparison,
    readings: Sequence[str],
    columns: Sequence[Column],
    weight: Callable[[str], float | None],
) -> list[Group]:
    places = [
        (reading_words(comparison, epochs), epochs, arm)
        for epochs in readings
        for arm in arms_of(comparison, "trained", "afterwards")
    ]
    return _groups(comparison, places, columns, weight)


def _groups(
    comparison: Comparison,
    places: Sequence[tuple[str, str, str]],
    columns: Sequence[Column],
    weight: Callable[[str], float | None],
) -> list[Group]:
    """places: (heading, reading, arm). Rows without a number of more than the epoch are left out."""
    entries = []
    for heading, epochs, arm in places:
        views = {
            "served": values_of(comparison, arm, epochs, weight(arm)),
            "learned": values_of(comparison, arm, epochs, LEARNED),
        }
        mine = [views[column.view].get(column.key) for column in columns]
        if any(entry is not None for entry, column in zip(mine, columns) if column.key != "epoch"):
            entries.append((heading, arm, mine))
    by_column = [
        interval_cells(column.key, [mine[c] for _, _, mine in entries], column.decimals, spread=column.spread)
        for c, column in enumerate(columns)
    ]
    groups: dict[str, list] = {}
    for (heading, arm, _), row in zip(entries, zip(*by_column)):
        groups.setdefault(heading, []).append((arm, list(row)))
    return [Group(heading, rows) for heading, rows in groups.items()]


def arms_of(comparison: Comparison, *kinds: str) -> list[str]:
    return [arm["name"] for arm in comparison["arms"] if arm["kind"] in kinds]


def values_of(comparison: Comparison, arm: str, epochs: str, weight: float | None) -> dict[str, Interval]:
    for entry in comparison["summary"]:
        if (entry["arm"], entry["epochs"], entry["popularity_weight"]) == (arm, epochs, weight):
            return entry["values"]
    return {}


def seeds_of(comparison: Comparison) -> int:
    return len({row["seed"] for row in comparison["rows"]})


def reading_words(comparison: Comparison, epochs: str) -> str:
    if epochs == "best":
        return f"each at its own best epoch ({comparison.get('best_by', 'validation NLL')})"
    found = {
        entry["values"]["epoch"]["mean"]
        for entry in comparison["summary"]
        if entry["epochs"] == epochs and "epoch" in entry["values"]
    }
    if len(found) != 1:
        return "at equal epochs"
    [epoch] = found
    return "at 1 epoch for all" if epoch == 1 else f"at {epoch:g} epochs for all"


def afterwards_words(comparison: Comparison, epochs: str) -> str:
    where = (
        "its best epoch"
        if epochs == "best"
        else reading_words(comparison, epochs).removesuffix(" for all").removeprefix("at ")
    )
    return f"made of standard at {where}, at beta 0"


def spread_words(comparison: Comparison) -> str:
    seeds = seeds_of(comparison)
    if seeds >= 3:
        return (
            f"Means over {seeds} seeds, ± half of the 95 % t interval; ≥, ≤: its one end where the other "
            "is the metric's own."
        )
    return (
        "Means of 2 seeds with the least and the most of them: too few for an interval."
        if seeds == 2
        else "One seed: no interval."
    )


def one_target(comparison: Comparison) -> bool:
    """Whether every case has one target, so that recall is the hit rate."""
    both = [
        (entry["values"]["hr@10"]["mean"], entry["values"]["recall@10"]["mean"])
        for entry in comparison["summary"]
        if {"hr@10", "recall@10"} <= set(entry["values"])
    ]
    return all(hit is None or recall is None or abs(hit - recall) <= 1e-12 for hit, recall in both)
