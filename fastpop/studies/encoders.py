"""Does putting log p outside the dot product do the same whatever makes the queries?"""

from dataclasses import dataclass
from typing import Any, ClassVar

from fastpop import registry
from fastpop.experiments import compare
from fastpop.experiments.arms import BEST, EQUAL, POST_HOC, STANDARD
from fastpop.experiments.findings import MIN_SEEDS, paired
from fastpop.studies.curves import DIFFERENCES, NDCG, READINGS, listed, verdict
from fastpop.studies.models import model_options
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, give_or_take, told

FROZEN = "frozen"
REFERENCES = ("popularity", "recency", "markov")
SHOWN = {"nll": "nll", "ndcg": NDCG, "arp": "arp@10", "coverage": "coverage@10"}
SERVED = {"standard": (STANDARD, 1.0), "frozen": (FROZEN, 1.0), "post-hoc": (POST_HOC, 0.0)}
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Encoders(Study):
    """The same matched intervention, standard, frozen and post-hoc, with every encoder that the log lets
    train.

    encoders: names; none: all that there are.
    """

    name: ClassVar[str] = "encoders"
    sets: ClassVar[tuple[str, ...]] = ("prior", "encoder")
    question: ClassVar[str] = "Does log p outside do the same whatever makes the queries?"
    encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.encoders:
            registry.find("encoder", name, "encoders.encoders")

    def run(self, setting: Setting) -> Answer:
        values: dict[str, float] = {}
        references: dict[str, dict[str, float]] = {}
        done, left_out = [], []
        for encoder in self.encoders or tuple(registry.available("encoders")):
            try:
                found = self._compared(setting, encoder)
            except ValueError as error:  # of an encoder of histories, on a log without an order
                if setting.log.has_order:
                    raise
                left_out.append(f"{encoder} ({error})")
                continue
            done.append(encoder)
            values |= _values(encoder, found)
            references = references or {name: _reference(found, name) for name in REFERENCES}
        references = {name: each for name, each in references.items() if each}
        for name, each in references.items():
            values |= {f"{name}.{short}": value for short, value in each.items()}
        sentences = _sentences(values, done, references)
        if left_out:
            sentences.append(f"Left out: {'; '.join(left_out)}.")
        tables = [_table(values, done, references, epochs, setting) for epochs in READINGS]
        return Answer(
            values,
            tuple(sentences),
            (*tables, _differences(values, done)),
            tuple(_chart(values, done, epochs, setting) for epochs in READINGS),
        )

    def _compared(self, setting: Setting, encoder: str) -> dict[str, Any]:
        options = {**model_options(setting), "encoder": encoder}
        epochs = options["epochs"]
        found = compare(
            setting.log,
            arms=(FROZEN,),
            references=REFERENCES,
            seeds=setting.seeds,
            popularity_weights=WEIGHTS,
            permutations=10,
            max_epochs=(2 if setting.quick else 3) * epochs,
            max_cases=100 if setting.quick else 2000,
            name=f"{setting.log_name}, {encoder}",
            out=setting.part(encoder),
            progress=setting.progress,
            **options,
        )
        setting.lap()
        return dict(found.comparison)


def _values(encoder: str, compared: dict[str, Any]) -> dict[str, float]:
    """Of each of the three as served: "best.sasrec.frozen.ndcg". "best.sasrec.at 50": frozen's NDCG minus
    post-hoc's at half of the range of ARP that both reach. "best.sasrec.nll": frozen's minus standard's."""
    values: dict[str, float] = {}
    for row in compared["summary"]:
        for label, served in SERVED.items():
            if (row["arm"], row["popularity_weight"]) == served:
                for short, key in {**SHOWN, "epoch": "epoch"}.items():
                    if key in row["values"]:
                        name = f"{row['epochs']}.{encoder}.{label}.{short}"
                        values |= _interval(name, row["values"][key])
    for epochs in READINGS:
        points = [
            point
            for point in compared["matched"]
            if (point["arm"], point["baseline"], point["metric"], point["epochs"])
            == (FROZEN, POST_HOC, NDCG, epochs)
        ]
        for short, point in zip(DIFFERENCES[1:], points):
            values |= _interval(f"{epochs}.{encoder}.{short}", point)
        for short, key in (("nll", "nll"), ("ndcg", NDCG)):
            pair = paired(compared["rows"], (FROZEN, 1.0), (STANDARD, 1.0), key, epochs)
            if pair is not None:
                values |= _interval(f"{epochs}.{encoder}.{short}", pair)
    return values


def _interval(name: str, found: dict[str, Any]) -> dict[str, float]:
    known = {name: found["mean"]}
    if found["low"] is not None and found["n"] >= MIN_SEEDS:
        known |= {f"{name}.low": found["low"], f"{name}.high": found["high"]}
    return known


def _reference(compared: dict[str, Any], name: str) -> dict[str, float]:
    for row in compared["summary"]:
        if row["arm"] == name and row["popularity_weight"] is not None:
            return {short: row["values"][key]["mean"] for short, key in SHOWN.items() if key in row["values"]}
    return {}


def _sentences(
    values: dict[str, float], done: list[str], references: dict[str, dict[str, float]]
) -> list[str]:
    found = []
    for epochs, words in READINGS.items():
        said: dict[str, list[str]] = {}
        for encoder in done:
            said.setdefault(verdict(values, epochs, encoder), []).append(encoder)
        parts = "; ".join(f"{what} with {listed(names)}" for what, names in said.items())
        found.append(
            "NDCG@10 of log p outside in training against log p subtracted afterwards, where both show "
            f"equally popular items, {words}: {parts}."
        )
    if references:
        best = max(references, key=lambda name: values.get(f"{name}.ndcg", 0.0))
        counts = values[f"{best}.ndcg"]
        above = [
            encoder
            for encoder in done
            if 1
            in (
                excludes(values, f"{BEST}.{encoder}.{label}.ndcg", counts) for label in ("standard", "frozen")
            )
        ]
        more = f"as trained, one of the two arms is above it with {listed(above) if above else 'no encoder'}"
        if excludes(values, f"{BEST}.{done[0]}.standard.ndcg", counts) is None:
            more = "too few runs to say what is above it"
        found.append(f"Of the rows that no model needs {best} has the highest NDCG@10, {counts:.4f}; {more}.")
    return found


def _table(
    values: dict[str, float],
    done: list[str],
    references: dict[str, dict[str, float]],
    epochs: str,
    setting: Setting,
) -> Table:
    rows: list[tuple[Any, ...]] = []
    for encoder in done:
        for label in SERVED:
            name = f"{epochs}.{encoder}.{label}"
            cells = (values.get(f"{name}.{short}", "-") for short in ("nll", "arp", "coverage"))
            rows.append((f"{encoder}, {label}", told(values, f"{name}.ndcg", 4), *cells))
    rows += [
        (name, f"{each['ndcg']:.4f}", *(each.get(short, "-") for short in ("nll", "arp", "coverage")))
        for name, each in references.items()
    ]
    return Table(
        f"Standard and frozen as trained, post-hoc at beta 0, {READINGS[epochs]}: {setting.log_name}, "
        f"{setting.seeds} seeds",
        ("encoder, arm", "NDCG@10", "NLL", "ARP", "coverage"),
        tuple(rows),
    )


def _differences(values: dict[str, float], done: list[str]) -> Table:
    rows = [
        (
            f"{encoder}, {epochs}",
            *(give_or_take(values, f"{epochs}.{encoder}.{short}") for short in DIFFERENCES[1:]),
            give_or_take(values, f"{epochs}.{encoder}.nll", 3),
        )
        for encoder in done
        for epochs in (BEST, EQUAL)
    ]
    return Table(
        "NDCG@10 of frozen minus post-hoc at 25, 50 and 75 % of the range of ARP that both reach, and NLL of "
        "frozen minus standard as trained",
        ("encoder, epochs", "25 %", "50 %", "75 %", "NLL"),
        tuple(rows),
    )


def _chart(values: dict[str, float], done: list[str], epochs: str, setting: Setting) -> Chart:
    lines = []
    for place, (short, share) in enumerate(zip(DIFFERENCES[1:], (25, 50, 75))):
        names = [f"{epochs}.{encoder}.{short}" for encoder in done]
        there = [number for number, name in enumerate(names) if name in values]
        y, low, high = (
            tuple(values[names[number] + end] for number in there if names[number] + end in values)
            for end in ("", ".low", ".high")
        )
        x = tuple(number + 0.15 * (place - 1) for number in there)
        lines.append(Series(f"at {share} % of the range of ARP", x, y, low, high))
    ends = (-0.4, len(done) - 0.6)
    lines.append(Series("no difference", ends, (0.0, 0.0), dashed=True))
    return Chart(
        f"encoders-{epochs}",
        f"Frozen against post-hoc, {setting.log_name}, {setting.seeds} seeds, {READINGS[epochs]}",
        "encoder",
        "NDCG@10, difference",
        tuple(lines),
        ticks=tuple(done),
        joined=False,
    )
