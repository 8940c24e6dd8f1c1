"""What a comparison says in words. Each sentence has a rule, and every rule stands in RULES and in
docs/comparison.md."""

import math
from collections.abc import Iterable
from typing import Any

from fastpop.diagnostics import p_words
from fastpop.experiments.arms import AFTERWARDS, ARMS, BEST, POST_HOC, STANDARD
from fastpop.experiments.findings import MIN_SEEDS
from fastpop.experiments.numbers import Numbers, amount, percent, side, told, why_no_interval

FOLLOWS = 0.2  # slope on log p below which a standard model has hardly learned popularity
LEAST_EFFECT = 0.1  # share of standard's amplitude along log p that has to go before a test is worded
MOSTLY = 0.5  # cos² of a change with log p, from which the change is called mostly popularity
P_VALUE = 0.05
NO_WORSE = 0.02  # nats that a rival's NLL may be above frozen's, at the upper end of its interval
ALIKE = 2.0  # ratio of a rival's shared energy to frozen's up to which both separate alike
ENERGIES = (
    ("energy_direction", "along log p"),
    ("energy_shared", "shared"),
    ("energy_off_direction", "off log p"),
)
SEEN = (("nll", "NLL", 3), ("ndcg@10", "NDCG@10", 4), ("coverage@10", "coverage@10", 3))  # and decimals

# (what is said, when); what is said otherwise stands in the same cell.
RULES = (
    (
        "beaten by counts",
        "first of all, where a row that no model needs has a higher NDCG@10 than every trained arm "
        'served as trained, at its better reading, by the whole interval of their difference; "not '
        'shown to beat counts" where only its mean is higher. Rows that count more than half A are named',
    ),
    (
        "not told apart",
        "the 95 % t interval of a paired difference over at least 3 seeds holds 0; of fewer seeds "
        'there is "no interval", of one it is "one run", which is said once, and nothing is claimed. '
        '"unpaired" stands where a comparison was kept without the numbers of each seed: the interval is '
        "then the widest that the two intervals allow",
    ),
    (
        "at equally popular lists",
        "accuracy of both arms, read from their curves over beta at three levels of ARP that both "
        'reach in every seed: "better" or "worse" where all three intervals lie on that side, "in '
        'part" so where some do and the others hold 0, "cannot be told apart" where all hold 0, '
        '"mixed" where they lie on both sides; the intervals are of 95 % each, not widened for being three',
    ),
    (
        "associated with log p beyond relabelling",
        "the paired test of shared energy has p <= .05 in every seed under every null, label and "
        "sign among them, standard's "
        "amplitude along log p falls by at least a tenth, log p spreads by .05 nats or more, and its "
        "smoothing is not at a bound. Not a word of significance, of cos² or of a sufficient start "
        "where log p is no direction",
    ),
    (
        "mostly popularity",
        "the lower end of the interval of cos²(change of the mean score, log p) is at least .5; "
        '"mostly something else" where the upper end is below .5; otherwise the number alone',
    ),
    (
        "starting at log p is enough",
        "the ratio of learned-from-log-p's shared energy to frozen's (geometric mean over seeds) is "
        "at most 2 at the upper end of its interval, and its NLL minus frozen's at most .02 nats at "
        'the upper end of its own; "does less than holding it fixed" where either is above that at '
        'its lower end; "cannot be told" otherwise',
    ),
    (
        "Frozen minus standard",
        "paired differences of the energies along log p, shared and off log p, and of the shared "
        'energy along log p of the other half: "higher" or "lower" where the whole interval lies on '
        "that side of 0. The same of disjoint minus frozen along log p of the other half",
    ),
    (
        "less than standard leaves",
        "the interval of learned's shared energy minus standard's lies below 0; \"more than standard "
        'leaves" where it lies above; "not shown to leave less than standard" where it holds 0',
    ),
    (
        "relabelled, it takes no popularity out",
        "the interval of permuted's shared energy minus standard's lies above 0; \"even relabelled it "
        'takes some popularity out" where it lies below; "relabelled, it is not shown to take '
        'popularity out" where it holds 0',
    ),
    (
        "minus standard as trained",
        "of every arm that is none of fastpop's own: paired differences of NLL, NDCG@10 and "
        "coverage@10 from standard; at beta 1, or, made of standard afterwards, at beta 0, where "
        "there is no NLL",
    ),
    (
        "among items shown at random",
        'AUC of the best arm as trained minus that of each row that no model needs: "is beaten by" those '
        'whose interval lies below 0; of the others "beats every" where all intervals lie above 0, "is not '
        'shown to beat any" where none does, "is not shown to beat every" otherwise',
    ),
    (
        "CAUTION: hardly follows log p",
        "the slope of standard's scores on log p is below .2, and log p has a direction",
    ),
    (
        "CAUTION: training ended first",
        "an arm came to --max-epochs before it had gone --patience epochs without a better validation NLL",
    ),
    (
        "CAUTION: log p has no direction",
        "the root mean square of centred log p is below .05 nats, or the smoothing that fits the "
        "counts best is at an end of its range: the upper one, or the lower one where there are "
        "unseen items",
    ),
)


def reworded(comparison: Any) -> Any:
    """The comparison (report.schema.Comparison, with `facts`) with the sentences that its numbers give."""
    said = Words(comparison).sentences()
    return {**comparison, "headline": said[0], "sentences": said[1:]}


class Words:
    """The sentences of one comparison, from its numbers."""

    def __init__(self, comparison: Any):
        self.told = {arm["name"]: arm for arm in comparison["arms"]}
        self.arms = list(self.told)
        self.pairs, self.matched = comparison["pairs"], comparison["matched"]
        self.permutations = comparison["permutations"]
        self.best_by = comparison.get("best_by", "validation NLL")
        self.facts = comparison["facts"]
        self.weak: str | None = self.facts["weak"]  # why log p is no direction; None where it is one
        self.readings = comparison["readings"]
        self.main = self.readings[0]
        self.numbers = {reading: Numbers(comparison, reading) for reading in self.readings}
        self.at_main = self.numbers[self.main]

    def sentences(self) -> list[str]:
        """The headline first. Nothing is left out for being unwelcome."""
        caution = "" if self.weak is None else cautioned(self.weak)
        said = [self.beaten(), caution, self.hardly_follows()]
        if "frozen" in self.arms:
            said += [
                *(self.fit(reading) for reading in self.readings),
                self.still_improving(),
                self.frontier(),
                self.energies(),
                self.change(),
                self.association(),
            ]
        else:
            said += [self.standard_alone(), self.still_improving()]
        said += [
            self.initialisation(),
            self.learned(),
            self.control(),
            self.other_half(),
            *map(self.another, self.arms),
            self.randomised(),
            self.limits(),
        ]
        return self._once([sentence for sentence in said if sentence])

    def _once(self, said: list[str]) -> list[str]:
        """Too few seeds for any interval: the first number says so for all."""
        seeds = max(
            (found["n"] for row in self.at_main.summary.values() for found in row.values()), default=0
        )
        if not 0 < seeds < MIN_SEEDS:
            return said
        why = why_no_interval(seeds)
        first = next((at for at, sentence in enumerate(said) if why in sentence), len(said))
        for at in range(first, len(said)):
            begin, here, rest = said[at].partition(why) if at == first else ("", "", said[at])
            here = here and here.replace("no interval", "no interval here or below")
            said[at] = begin + here + rest.replace(f" ({why})", "").replace(f", {why}", "")
        return said

    # What stands first where it applies.

    def beaten(self) -> str:
        trained = {
            arm: max((self.mean(arm, 1.0, "ndcg@10", reading) for reading in self.readings), default=math.nan)
            for arm in self._of("trained")
        }
        trained = {arm: value for arm, value in trained.items() if not math.isnan(value)}
        counts = {name: self.mean(name, 1.0, "ndcg@10", self.main) for name in self._of("reference")}
        if not trained:
            return ""
        best = max(trained, key=lambda arm: trained[arm])
        better = {name: value for name, value in counts.items() if value > trained[best]}
        if not better:
            return ""
        ahead = {name: [self._ahead(name, arm) for arm in trained] for name in better}
        surely = {
            name: better[name]
            for name, pairs in ahead.items()
            if all(pair is not None and pair["low"] is not None and pair["low"] > 0 for pair in pairs)
        }
        listed = ", ".join(
            f"{name} {value:.4f}"
            for name, value in sorted((surely or better).items(), key=lambda entry: -entry[1])
        )
        against = (
            f"NDCG@10 of {listed}, against {trained[best]:.4f} of the best arm ({best}){self._because()}"
            f"{self._counted(surely or better)}"
        )
        if surely:
            return (
                f"These models are beaten by counts: {against}. What follows compares arms; by this "
                "measure none of them, as trained here on half A, is worth serving."
            )
        known = [pair for pairs in ahead.values() for pair in pairs if pair is not None]
        without = [pair["n"] for pair in known if pair["low"] is None]
        if without:
            against += f" ({why_no_interval(without[0])})"
        return f"These models are not shown to beat counts: {against}."

    def _ahead(self, row: str, arm: str) -> dict[str, Any] | None:
        """NDCG@10 of a row that no model needs minus an arm's as trained, at its better reading."""
        ndcg = {reading: self.mean(arm, 1.0, "ndcg@10", reading) for reading in self.readings}
        reading = max((name for name in ndcg if not math.isnan(ndcg[name])), key=lambda name: ndcg[name])
        return self.numbers[reading].pair((row, 1.0), (arm, 1.0), "ndcg@10")

    def _because(self) -> str:
        median = self.facts["median_events"]
        if median is None:
            return ""
        return f"; the median user has {median:g} event{'s' * (median != 1)} to learn from"

    def _counted(self, names: Iterable[str]) -> str:
        """Which rows count more than the arms train on: half of the events is no match for all of them."""
        more = [name for name in names if self.told[name].get("counted", _counted_before(name)) == "known"]
        if not more:
            return ""
        return (
            f"; {' and '.join(more)} count{'s' * (len(more) == 1)} all that is known before a case, not only "
            "the half A that the arms train on"
        )

    def hardly_follows(self) -> str:
        slope = self.mean(STANDARD, None, "slope", self.main)
        if self.weak is not None or not abs(slope) < FOLLOWS:
            return ""
        return (
            f"CAUTION: the standard model hardly follows log p (slope {slope:.3f}, where 1 is expected): "
            "it is perhaps not trained enough, and what follows says little."
        )

    def still_improving(self) -> str:
        late = self.facts["still_improving"]
        return (
            ""
            if not late
            else (
                f"CAUTION: training ended before {self.best_by} had gone its epochs of patience without a "
                f"better one in {', '.join(late)}: more epochs (--max-epochs) could move that best reading."
            )
        )

    # Frozen against standard.

    def fit(self, reading: str) -> str:
        """Fit and accuracy as trained, with the epochs at which they were read."""
        epochs = {arm: self.mean(arm, None, "epoch", reading) for arm in (STANDARD, "frozen")}
        where = f"At {epochs[STANDARD]:g} epoch{'s' * (epochs[STANDARD] != 1)} for both"
        if reading == BEST:
            where = (
                f"Each at its own best epoch ({self.best_by}; standard {epochs[STANDARD]:.3g}, frozen "
                f"{epochs['frozen']:.3g})"
            )
        parts = []
        for metric, label, digits in SEEN:
            pair = self.numbers[reading].pair(("frozen", 1.0), (STANDARD, 1.0), metric)
            if pair is not None:
                parts.append(f"{label} {told(pair, digits)}")
        if not parts:
            return ""
        return f"{where}, frozen minus standard, both as trained: " + "; ".join(parts) + "."

    def frontier(self) -> str:
        """Frozen against post-hoc subtraction where both show equally popular items."""
        mine = [
            m
            for m in self.matched
            if m["arm"] == "frozen"
            and m["baseline"] == POST_HOC
            and m["metric"] == "ndcg@10"
            and m["epochs"] == self.main
        ]
        if not mine:
            return ""
        levels = "; ".join(
            f"ARP {m['arp']:.3g}: {m['arm_mean']:.4f} against {m['baseline_mean']:.4f}, difference "
            f"{told(m, 4)}"
            for m in mine
        )
        sides = {(m["low"] > 0) - (m["high"] < 0) for m in mine if m["low"] is not None}
        verdicts = {
            (): "Separation and post-hoc subtraction, without intervals,",
            (1,): "Separation is better than post-hoc subtraction",
            (-1,): "Separation is worse than post-hoc subtraction",
            (0,): "Separation and post-hoc subtraction cannot be told apart",
            (0, 1): "Separation is in part better than post-hoc subtraction, and nowhere shown to be worse,",
            (-1, 0): "Separation is in part worse than post-hoc subtraction, and nowhere shown to be better,",
        }
        verdict = verdicts.get(tuple(sorted(sides)), "Separation against post-hoc subtraction is mixed")
        return f"{verdict} at equally popular lists (NDCG@10; {levels})."

    def energies(self) -> str:
        slope = ", slope {}" if self.weak is None else ""  # on nearly nothing, a slope is anything
        parts = [
            f"{arm} {amount(self._learned(arm, 'energy_direction'))} along log p, "
            f"{amount(self._learned(arm, 'energy_shared'))} of it shared, "
            f"{amount(self._learned(arm, 'energy_off_direction'))} off log p"
            f"{slope.format(amount(self._learned(arm, 'slope'), '.3f'))}"
            for arm in (STANDARD, "frozen", POST_HOC)
        ]
        differences = []
        for metric, label in ENERGIES:
            pair = self._against("frozen", STANDARD, metric)
            if pair is not None:
                word = self._verdict(pair, "higher ", "lower ", "")
                differences.append(f"{label} {word}{told(pair, None)}")
        between = f" Frozen minus standard: {'; '.join(differences)}." if differences else ""
        return (
            f"Energy of the learned scores, nats²: {'; '.join(parts)}.{between} Shared energy ranks nothing: "
            "subtracting the fitted slope times log p leaves 0 in any model."
        )

    def change(self) -> str:
        found = self._learned("frozen", "cos2_change")
        if found is None or self.weak is not None:
            return ""
        low, high = found.get("low"), found.get("high")
        word = ""
        if low is not None and high is not None and low >= MOSTLY:
            word = ", mostly popularity"
        elif high is not None and high < MOSTLY:
            word = ", mostly something else"
        changes = self.at_main.change(("frozen", None), (STANDARD, None), "energy_off_direction")
        off = f"; the energy off log p changes by {percent(changes)}" if changes else ""
        why = f" ({why_no_interval(found['n'])})" if low is None else ""
        return (
            f"Of what separation changes in the mean score, {amount(found, '.2f')}{why} lies along log "
            f"p{word} (cos²){off}."
        )

    def association(self) -> str:
        """The paired permutation test, and not a word of it where log p is no direction."""
        if self.weak is not None:
            return ""
        mine = [pair for pair in self.pairs if pair["arm"] == "frozen" and pair["epochs"] == self.main]
        worst = {
            null: max(pair["p_shared"] for pair in mine if pair["null"] == null)
            for null in dict.fromkeys(pair["null"] for pair in mine)
        }
        draws = self.permutations
        listed = ", ".join(f"{null} {p_words(value, draws)}" for null, value in worst.items())
        text = (
            f"Paired permutation test of shared energy, standard minus frozen, largest p over seeds: {listed}"
        )
        if 1 / (draws + 1) > P_VALUE:
            return f"{text}: {draws} permutations are too few for any p of {P_VALUE:g}, so nothing is said."
        amplitude = self.mean("frozen", None, "amplitude", self.main)
        if worst.keys() >= {"label", "sign"} and all(value <= P_VALUE for value in worst.values()):
            if amplitude > 1 - LEAST_EFFECT:
                return (
                    f"{text}; but the amplitude along log p falls by less than a tenth, so nothing is "
                    "said of it."
                )
            return (
                f"{text}: the difference is associated with log p beyond relabelling. (No test here "
                "shows that it is only popularity: see cos².)"
            )
        small = [null for null, value in worst.items() if value <= P_VALUE]
        lacking = [null for null in ("label", "sign") if null not in worst]
        if small and lacking:
            return (
                f"{text}: small under {', '.join(small)}; an association beyond relabelling wants the null "
                f"{' and the null '.join(lacking)}, too, which was not asked for."
            )
        if small == ["label"]:
            return (
                f"{text}: only that of label is small, so the difference may come from item norms that go "
                "with popularity."
            )
        if small:
            alone = f"small under {', '.join(small)} alone"
            return f"{text}: {alone}, so no association beyond relabelling is shown."
        return f"{text}: no difference beyond relabelling is shown."

    def standard_alone(self) -> str:
        energy, after = (amount(self._learned(arm, "energy_shared")) for arm in (STANDARD, POST_HOC))
        pair = self._against(POST_HOC, STANDARD, "energy_shared")
        difference = "" if pair is None else f", difference {told(pair, None)}"
        return (
            f"Context-shared popularity energy of the standard model's scores: {energy} nats²; after "
            f"subtracting log p {after}{difference}."
        )

    # The rivals of separation.

    def initialisation(self) -> str:
        arm = "learned-from-log-p"
        if arm not in self.arms or "frozen" not in self.arms:
            return ""
        energy, frozen = (amount(self._learned(name, "energy_shared")) for name in (arm, "frozen"))
        ratio = self.at_main.ratio((arm, None), ("frozen", None), "energy_shared")
        pair = self.at_main.pair((arm, 1.0), ("frozen", 1.0), "nll")
        text = f"A free item bias that starts at log p ends with {energy} nats² shared (frozen {frozen}"
        if ratio is not None:
            why = f", {why_no_interval(ratio['n'])}" if ratio["low"] is None else ""
            text += f", ratio {amount(ratio, '.3g')}{' unpaired' * bool(ratio.get('unpaired'))}{why}"
        text += ")"
        if pair is None:
            return text + "."
        text += f" and NLL {told(pair, 3)} from frozen"
        if self.weak is not None or ratio is None or ratio["low"] is None or pair["low"] is None:
            return text + "."
        if ratio["high"] <= ALIKE and pair["high"] <= NO_WORSE:
            return text + ": starting at log p is enough, holding it fixed is not needed."
        if ratio["low"] > ALIKE or pair["low"] > NO_WORSE:
            return text + ": starting at log p does less than holding it fixed."
        return text + ": whether starting at log p does as much cannot be told."

    def learned(self) -> str:
        if "learned" not in self.arms:
            return ""
        pair = self._against("learned", STANDARD, "energy_shared")
        verdict = self._verdict(
            pair,
            ": more than standard leaves",
            ": less than standard leaves",
            ": it is not shown to leave less than standard",
        )
        difference = "" if pair is None else f", {told(pair, None)} from standard{verdict}"
        return (
            "A free item bias that starts at 0, with the step size of the tables, leaves "
            f"{amount(self._learned('learned', 'energy_shared'))} nats² shared in the dot product (slope "
            f"{amount(self._learned('learned', 'slope'), '.3f')}){difference}. What it would take away "
            "depends on its step size."
        )

    def control(self) -> str:
        if "permuted" not in self.arms:
            return ""
        energy, standard = (amount(self._learned(arm, "energy_shared")) for arm in ("permuted", STANDARD))
        pair = self._against("permuted", STANDARD, "energy_shared")
        verdict = self._verdict(
            pair,
            ": relabelled, it takes no popularity out",
            ": even relabelled it takes some popularity out",
            ": relabelled, it is not shown to take popularity out",
        )
        difference = "" if pair is None else f", difference {told(pair, None)}{verdict}"
        return (
            "Control: with log p of randomly relabelled items outside the dot product the shared "
            f"energy is {energy} (standard {standard}){difference}."
        )

    def other_half(self) -> str:
        if "frozen" not in self.arms:
            return ""
        names = [STANDARD, "frozen"] + ["disjoint"] * ("disjoint" in self.arms)
        listed = ", ".join(f"{arm} {amount(self._learned(arm, 'energy_shared_b'))}" for arm in names)
        said = []
        for one, other in zip(names[1:], names):
            pair = self._against(one, other, "energy_shared_b")
            if pair is not None:
                verdict = self._verdict(pair, f", {one} higher", f", {one} lower", "")
                said.append(f" {one.capitalize()} minus {other}: {told(pair, None)}{verdict}.")
        note = " disjoint was given that very log p." if "disjoint" in self.arms else ""
        return (
            f"Shared energy along log p of the other half, on whose events no arm trained: {listed}."
            f"{''.join(said)}{note}"
        )

    def another(self, arm: str) -> str:
        """An arm that no other sentence is about, ours on request or of somebody else."""
        about = self.told[arm]
        if arm in ARMS or arm in AFTERWARDS or about["kind"] == "reference":
            return ""
        beta = 0.0 if about["kind"] == "afterwards" else 1.0
        parts = []
        for metric, label, digits in SEEN:
            pair = self.at_main.pair((arm, beta), (STANDARD, 1.0), metric)
            if pair is not None:
                parts.append(f"{label} {told(pair, digits)}")
        known = f"{arm} ({about['trained_on']}; served: {about['served_as']})"
        return f"{known} at beta {beta:g}, minus standard as trained: {'; '.join(parts)}." if parts else ""

    def randomised(self) -> str:
        """The test part that nobody chose: the best arm as trained against the rows that need no model."""
        arms = {arm: self.mean(arm, 1.0, "auc_shown", self.main) for arm in self._of("trained")}
        rows = {arm: self.mean(arm, 1.0, "auc_shown", self.main) for arm in self._of("reference")}
        arms, rows = (
            {name: value for name, value in found.items() if not math.isnan(value)} for found in (arms, rows)
        )
        if not arms or not rows:
            return ""
        best = max(arms, key=lambda name: arms[name])
        ahead = {name: self.at_main.pair((best, 1.0), (name, 1.0), "auc_shown") for name in rows}
        listed = "; ".join(
            f"{name} {rows[name]:.4f}, difference {told(pair, 4)}"
            for name, pair in ahead.items()
            if pair is not None
        )
        sides = {name: 0 if pair is None else side(pair) or 0 for name, pair in ahead.items()}
        above = [name for name, where in sides.items() if where < 0]
        others = {where > 0 for where in sides.values() if where >= 0}
        verdicts = {(): "", (True,): "beats every", (False,): "is not shown to beat any"}
        verdict = verdicts.get(tuple(others), "is not shown to beat every")
        said = [f"is beaten by {' and '.join(above)}"] * bool(above)
        if verdict:
            said.append(f"{verdict}{' other' * bool(above)} row that needs no model")
        return (
            f"Among items shown at random the best arm ({best}, AUC {arms[best]:.4f}) {', and '.join(said)} "
            f"({listed})."
        )

    def limits(self) -> str:
        exposure = "Exposure was not randomised: no causal reading is meant."
        if self.facts["shown"]:
            exposure = (
                "Only the randomised part (AUC, NDCG@5 over shown items) is free of what the log "
                "chose to show."
            )
        unseen = f"{self.facts['unseen']:.0%} of the items have no event in half A"
        return f"log p is known from counts: {unseen}. {exposure}"

    def _of(self, kind: str) -> list[str]:
        return [name for name, arm in self.told.items() if arm["kind"] == kind]

    def mean(self, arm: str, weight: float | None, metric: str, reading: str) -> float:
        return self.numbers[reading].mean((arm, weight), metric)

    def _learned(self, arm: str, metric: str) -> dict[str, Any] | None:
        """Of the learned part at the main reading."""
        return self.at_main.interval((arm, None), metric)

    def _against(self, arm: str, other: str, metric: str) -> dict[str, Any] | None:
        return self.at_main.pair((arm, None), (other, None), metric)

    def _verdict(self, pair: dict[str, Any] | None, higher: str, lower: str, neither: str) -> str:
        """Words of a difference; none without an interval, or where log p is no direction."""
        where = None if self.weak is not None else side(pair)
        return "" if where is None else {1: higher, -1: lower, 0: neither}[where]


def _counted_before(name: str) -> str:
    """Of a row that was kept by a version that did not say: ours alone."""
    return "half" if name == "popularity" else "known"


def cautioned(weak: str) -> str:
    return f"CAUTION: {weak}. Energies along it are noise, and no test of them is worded."
