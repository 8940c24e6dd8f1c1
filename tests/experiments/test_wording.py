"""The rules of docs/comparison.md, each with an input that flips its sentence."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_logs import small_log

import fastpop
from fastpop import registry
from fastpop.diagnostics import ScoreMoments
from fastpop.experiments import findings
from fastpop.experiments.arms import AFTERWARDS, ARMS
from fastpop.experiments.frontier import matched
from fastpop.experiments.measure import measure_reading
from fastpop.experiments.numbers import Numbers, told
from fastpop.experiments.one_arm import Reading
from fastpop.experiments.served import Served
from fastpop.experiments.wording import RULES, Words, reworded

DOCS = Path(__file__).parents[2] / "docs"
QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "permutations": 19,
    "progress": False,
    "popularity_weights": (),
}
PLAIN = {
    ("standard", None): {
        "energy_shared": 100.0,
        "energy_off_direction": 50.0,
        "slope": 1.0,
        "epoch": 10,
        "amplitude": 1.0,
        "energy_shared_b": 60.0,
    },
    ("frozen", None): {
        "energy_shared": 1.0,
        "energy_off_direction": 20.0,
        "slope": 0.1,
        "epoch": 2,
        "amplitude": 0.1,
        "cos2_change": 0.8,
        "energy_shared_b": 0.5,
    },
    ("post-hoc", None): {"energy_shared": 0.5, "energy_off_direction": 50.0, "slope": 0.0},
    ("learned-from-log-p", None): {"energy_shared": 1.5},
    ("learned", None): {"energy_shared": 90.0, "slope": 0.9},
    ("permuted", None): {"energy_shared": 150.0},
    ("standard", 1.0): {"nll": 8.0, "ndcg@10": 0.08, "coverage@10": 0.3},
    ("frozen", 1.0): {"nll": 7.9, "ndcg@10": 0.09, "coverage@10": 0.2},
    ("learned-from-log-p", 1.0): {"nll": 7.9},
    ("popularity", 1.0): {"ndcg@10": 0.05},
}


def told_of(names):
    """Rows in words, as a comparison has them."""
    kinds = {"afterwards": AFTERWARDS, "trained": ARMS}
    return [
        {
            "name": name,
            "kind": next((kind for kind, arms in kinds.items() if name in arms), "reference"),
            "trained_on": "",
            "served_as": "",
        }
        for name in names
    ]


def words(changes=(), *, seeds=3, noise=0.001, p=(0.001, 0.001), weak=None, matched=(), facts=()):
    """Words of made-up rows: `changes` on PLAIN, each number with a little noise over seeds."""
    values = {key: dict(found) for key, found in PLAIN.items()}
    for (arm, beta, metric), value in dict(changes).items():
        values.setdefault((arm, beta), {})[metric] = value
    rng = np.random.default_rng(0)
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "epochs": "best",
            "popularity_weight": beta,
            "values": {name: value * (1 + noise * rng.standard_normal()) for name, value in found.items()},
        }
        for seed in range(seeds)
        for (arm, beta), found in values.items()
    ]
    pairs = [
        {"arm": "frozen", "epochs": "best", "seed": 0, "null": null, "p_shared": value}
        for null, value in zip(("label", "sign"), p)
    ]
    for row in rows:
        if "energy_off_direction" in row["values"]:
            row["values"]["energy_direction"] = 1.1 * row["values"]["energy_shared"]
    names = list(dict.fromkeys(arm for arm, _ in values))
    return " ".join(Words(compared(rows, pairs, names, weak, matched, **dict(facts))).sentences())


def compared(rows, pairs, names, weak=None, matched=(), permutations=999, **facts):
    """A comparison of these rows, as far as words need it."""
    return {
        "arms": told_of(names),
        "rows": rows,
        "summary": findings.summarise(rows),
        "differences": findings.paired_differences(rows, names),
        "matched": list(matched),
        "pairs": pairs,
        "readings": ["best"],
        "permutations": permutations,
        "best_by": "validation NLL",
        "facts": {
            "weak": weak,
            "unseen": 0.25,
            "median_events": 2.0,
            "still_improving": [],
            "shown": False,
            **facts,
        },
    }


def test_counts_that_beat_every_arm_come_first():
    assert "beaten by counts" not in words()
    said = words({("recency", 1.0, "ndcg@10"): 0.15}, facts={"median_events": 1.0})
    assert said.startswith("These models are beaten by counts: NDCG@10 of recency 0.1")
    assert "(frozen); the median user has 1 event to learn from" in said


def test_counts_beat_models_by_an_interval_or_are_only_not_beaten():
    """One lucky seed decides nothing: .091 against .09 with much noise, or of two seeds."""
    close = {("recency", 1.0, "ndcg@10"): 0.091}
    for said in (words(close, noise=0.05), words(close, seeds=2)):
        assert said.startswith("These models are not shown to beat counts: NDCG@10 of recency 0.0")
        assert "worth serving" not in said
    assert "(no interval here or below: 2 seeds, 3 are the least)" in words(close, seeds=2)
    assert words(close, noise=1e-5).startswith("These models are beaten by counts")
    # The row that is surely better is named, and the other is not.
    both = words({("recency", 1.0, "ndcg@10"): 0.15, ("markov", 1.0, "ndcg@10"): 0.0906}, noise=0.05)
    assert both.startswith("These models are beaten by counts: NDCG@10 of recency 0.1")
    assert "markov" not in both.split("against")[0]


def test_rows_that_count_more_than_the_arms_train_on_are_named():
    more = "all that is known before a case, not only the half A that the arms train on"
    assert more not in words({("popularity", 1.0, "ndcg@10"): 0.2})
    assert f"; recency counts {more}" in words({("recency", 1.0, "ndcg@10"): 0.2})
    three = {(name, 1.0, "ndcg@10"): 0.2 for name in ("popularity", "recency", "markov")}
    assert f"; recency and markov count {more}" in words(three)
    rows = [
        {"arm": arm, "seed": seed, "epochs": "best", "popularity_weight": 1.0, "values": {"ndcg@10": value}}
        for seed in range(3)
        for arm, value in (("standard", 0.1), ("mine", 0.2))
    ]
    for counted, there in (("half", False), ("known", True)):
        found = compared(rows, [], ["standard", "mine"])
        found["arms"][1]["counted"] = counted
        assert (more in Words(found).beaten()) == there


def test_counts_beat_models_only_where_they_beat_every_arm():
    """One that is worse on average and differs between seeds may be as good as the counts."""
    rows = [
        {"arm": arm, "seed": seed, "epochs": "best", "popularity_weight": beta, "values": dict(found)}
        for seed in range(3)
        for (arm, beta), found in PLAIN.items()
    ]
    rows += [
        {
            "arm": "recency",
            "seed": seed,
            "epochs": "best",
            "popularity_weight": 1.0,
            "values": {"ndcg@10": 0.091},
        }
        for seed in range(3)
    ]
    names = list(dict.fromkeys(row["arm"] for row in rows))
    assert Words(compared(rows, [], names)).beaten().startswith("These models are beaten by counts")
    for row in rows:
        if row["arm"] == "standard" and row["popularity_weight"] == 1.0:
            row["values"]["ndcg@10"] = 0.08 + 0.03 * (row["seed"] - 1)
    said = Words(compared(rows, [], names)).beaten()
    assert said.startswith("These models are not shown to beat counts: NDCG@10 of recency 0.0910, against")


def test_a_difference_has_a_side_only_where_its_interval_has():
    assert "NLL -0.1" in words()
    assert "not told apart" not in words().split("Of what")[0]
    noisy = words({("frozen", 1.0, "nll"): 7.999}, noise=0.01)
    assert "not told apart" in noisy
    two = words(seeds=2)
    assert two.count("2 seeds") == 1
    assert "(no interval here or below: 2 seeds, 3 are the least)" in two
    assert "±" not in two


def test_a_test_is_worded_only_where_all_its_conditions_hold():
    claim = "associated with log p beyond relabelling"
    assert claim in words()
    assert claim not in words(p=(0.001, 0.4))
    assert "item norms that go with popularity" in words(p=(0.001, 0.4))
    assert "no difference beyond relabelling is shown" in words(p=(0.2, 0.4))
    assert "small under sign alone, so no association beyond relabelling is shown" in words(p=(0.2, 0.001))
    assert claim not in words({("frozen", None, "amplitude"): 0.95})
    assert "less than a tenth" in words({("frozen", None, "amplitude"): 0.95})
    assert "specific" not in words()
    few = words(p=(0.1, 0.1), facts={"permutations": 9})
    assert "9 permutations are too few for any p of 0.05, so nothing is said" in few
    assert "no difference beyond" not in few


def test_without_a_direction_there_is_a_caution_and_no_word_of_significance():
    said = words(weak="log p has no direction here: for a reason")
    assert said.startswith("CAUTION: log p has no direction here: for a reason. Energies along it are noise")
    for word in ("p = ", "ermutation test", "associated", "significan", "cos²", "is enough"):
        assert word not in said
    assert "hardly follows" not in words({("standard", None, "slope"): 0.1}, weak="log p has no direction")
    assert "no direction" not in words()


def test_a_p_value_at_its_floor_says_so():
    assert "label p = 1/1000, at its floor: none of 999 draws reaches the data, sign p = 1/1000" in words()
    assert "label p = 0.002, sign" in words(p=(0.002, 0.001))


def test_a_change_is_called_popularity_by_the_interval_of_its_share():
    assert "mostly popularity (cos²)" in words()
    little = words({("frozen", None, "cos2_change"): 0.04})
    assert "mostly something else (cos²)" in little
    middle = words({("frozen", None, "cos2_change"): 0.5}, noise=0.1)
    assert "mostly" not in middle
    assert "mostly" not in words(seeds=2)


def test_the_change_off_log_p_has_an_interval():
    assert "(cos²); the energy off log p changes by -60% [-60%, -60%]." in words()
    assert "changes by -60%." in words(seeds=2)
    assert "[-100%, " in words(noise=1.0)  # energies do not fall by more than all


def test_starting_at_log_p_is_enough_where_it_is():
    assert "starting at log p is enough" in words()
    assert "starting at log p is enough" not in words({("learned-from-log-p", None, "energy_shared"): 2.5})
    assert "starting at log p is enough" not in words({("learned-from-log-p", 1.0, "nll"): 8.4})
    # Not for want of evidence: an interval too wide to rule out a loss is no proof that there is none.
    assert "starting at log p is enough" not in words(noise=0.02)
    assert "starting at log p is enough" not in words(seeds=2)
    assert "ratio 1.5 [1." in words()
    less = "does less than holding it fixed"
    assert less in words({("learned-from-log-p", None, "energy_shared"): 2.5})
    assert less in words({("learned-from-log-p", 1.0, "nll"): 8.4})
    assert less not in words()
    unsure = "whether starting at log p does as much cannot be told"
    assert unsure in words({("learned-from-log-p", None, "energy_shared"): 2.0}, noise=0.01)
    assert unsure not in words()
    assert unsure not in words(seeds=2)


def sentence(said, start):
    """The one that begins so; sentences hold full stops."""
    return start + said.split(start, 1)[1].split(". ", 1)[0]


def test_energies_have_intervals_and_a_side_only_where_those_have_one():
    said = words()
    assert "standard 110 [109" in said
    assert "along log p lower -108.9 [-109" in said
    assert "shared lower -99" in said
    assert "off log p lower -30" in said
    same = words({("frozen", None, "energy_off_direction"): 50.0}, noise=0.05)
    between = same.split("Frozen minus standard: along")[1].split("Shared energy ranks nothing")[0]
    assert "off log p lower" not in between
    assert between.rstrip(" .").endswith("not told apart")
    assert "off log p higher +" in words({("frozen", None, "energy_off_direction"): 60.0})
    wide = words(noise=2.0).split("post-hoc ", 2)[-1]
    assert "[0, " in wide  # no interval leaves what an energy can be


def test_a_bias_from_zero_is_judged_by_its_difference_from_standard():
    assert "less than standard leaves" in words()
    assert "more than standard leaves" in words({("learned", None, "energy_shared"): 120.0})
    assert "it is not shown to leave less than standard" in words(
        {("learned", None, "energy_shared"): 100.0}, noise=0.05
    )
    assert "than standard leaves" not in words(seeds=2)


def test_the_control_is_judged_by_its_difference_from_standard():
    assert "+50" in sentence(words(), "Control: with")
    assert "relabelled, it takes no popularity out" in words()
    lower = words({("permuted", None, "energy_shared"): 60.0})
    assert "even relabelled it takes some popularity out" in lower
    level = words({("permuted", None, "energy_shared"): 100.0}, noise=0.05)
    assert "relabelled, it is not shown to take popularity out" in level
    assert "relabelled, it" not in words(seeds=2).split("Control:")[1]


def test_the_other_half_is_judged_by_differences_too():
    more = {("disjoint", None, "energy_shared_b"): 0.2, ("disjoint", None, "energy_shared"): 0.3}
    said = words(more)
    assert "Frozen minus standard: -59." in said
    assert ", frozen lower. Disjoint minus frozen: -0." in said
    assert ", disjoint lower. disjoint was given that very log p." in said
    higher = words({**more, ("disjoint", None, "energy_shared_b"): 0.8})
    assert ", disjoint higher." in higher
    level = words({**more, ("disjoint", None, "energy_shared_b"): 0.5}, noise=0.05)
    assert "not told apart" in sentence(level, "Disjoint minus frozen")
    assert "disjoint lower" not in level


def test_of_one_run_it_is_said_that_it_is_one():
    said = words({("disjoint", None, "energy_shared_b"): 0.2}, seeds=1)
    for start in (
        "Of what separation",
        "Frozen minus standard: along",
        "A free item bias that starts at log p",
        "Control: with",
    ):
        assert "interval" not in sentence(said, start), start
    assert said.count("one run, no interval here or below") == said.count("one run") == 1
    assert "interval" not in sentence(said, "Disjoint minus frozen")
    assert "[" not in said
    for verdict in (" lower", " higher", "is enough", "relabelled, it", "than standard"):
        assert verdict not in said, verdict


def test_without_a_direction_energies_have_no_verdict():
    said = words(weak="log p has no direction here: for a reason")
    assert "along log p -108.9" in said
    for verdict in (" lower", " higher", "relabelled, it", "than standard"):
        assert verdict not in said, verdict


def test_a_comparison_that_was_kept_in_part_says_what_its_intervals_allow():
    """Without rows of each seed, the widest interval that two intervals allow stands for a difference."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "epochs": "best",
            "popularity_weight": None,
            "values": {"energy_shared": value + seed},
        }
        for seed in range(3)
        for arm, value in (("frozen", 10.0), ("learned-from-log-p", 14.0))
    ]
    one, other = ("learned-from-log-p", None), ("frozen", None)
    whole = compared(rows, [], ["frozen", "learned-from-log-p"])
    paired = Numbers(whole, "best").pair(one, other, "energy_shared")
    assert (paired["mean"], paired["low"], paired["high"]) == (4.0, 4.0, 4.0)
    part = Numbers({**whole, "rows": []}, "best")
    first, second = part.interval(one, "energy_shared"), part.interval(other, "energy_shared")
    unpaired = part.pair(one, other, "energy_shared")
    assert unpaired["low"] == first["low"] - second["high"]
    assert unpaired["high"] == first["high"] - second["low"]
    assert told(unpaired, None).endswith(" unpaired, not told apart")
    ratio = part.ratio(one, other, "energy_shared")
    assert ratio["low"] == first["low"] / second["high"]
    assert ratio["unpaired"]
    assert Numbers(whole, "best").ratio(one, other, "energy_shared")["mean"] == pytest.approx(
        (14 * 15 * 16 / (10 * 11 * 12)) ** (1 / 3)
    )


def test_sentences_follow_from_what_a_comparison_keeps():
    found = fastpop.compare(small_log(events=2000), seeds=3, **QUICK)
    kept = json.loads(json.dumps(found.comparison))
    again = reworded({**kept, "headline": "", "sentences": []})
    assert [again["headline"], *again["sentences"]] == [found.headline, *found.sentences]


def test_a_randomised_part_is_won_by_intervals():
    auc = {
        ("standard", 1.0, "auc_shown"): 0.60,
        ("frozen", 1.0, "auc_shown"): 0.63,
        ("popularity", 1.0, "auc_shown"): 0.62,
        ("item-mean", 1.0, "auc_shown"): 0.61,
    }
    assert "best arm (frozen, AUC 0.63" in words(auc)
    assert "beats every row that needs no model (popularity 0.62" in words(auc)
    assert "is not shown to beat any row" in words(auc, noise=0.05)
    assert "is not shown to beat any row" in words(auc, seeds=2)
    mean = ("item-mean", 1.0, "auc_shown")
    assert "is beaten by item-mean, and beats every other row that needs no model" in words(
        {**auc, mean: 0.64}
    )
    assert "is not shown to beat every row" in words({**auc, mean: auc["frozen", 1.0, "auc_shown"]})
    assert "shown at random" not in words()


def test_models_that_are_not_trained_enough_are_cautioned_of():
    assert "CAUTION" not in words()
    assert "hardly follows log p (slope 0.1" in words({("standard", None, "slope"): 0.1})
    assert "without a better one in standard: more epochs" in words(facts={"still_improving": ["standard"]})


def curve(arm, seed, shift, slope=0.1, steps=5):
    """NDCG rises with ARP, by `slope` over its range."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "epochs": "best",
            "popularity_weight": beta,
            "values": {
                "arp@10": 10.0 + 10.0 * beta,
                "ndcg@10": shift + slope * beta,
                "recall_mid@10": shift,
                "coverage@10": shift,
            },
        }
        for beta in np.linspace(0, 1, steps)
    ]


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0.02, "Separation is better than post-hoc subtraction at equally popular lists"),
        (-0.02, "Separation is worse than"),
        (0.0, "cannot be told apart at equally popular lists"),
    ],
)
def test_the_frontier_decides_between_separation_and_subtraction(ahead, said):
    rng = np.random.default_rng(1)
    rows = [
        row
        for seed in range(4)
        for arm, shift, steps in (("post-hoc", 0, 5), ("frozen", ahead, 7))
        for row in curve(arm, seed, 0.05 + shift + 0.001 * rng.standard_normal(), steps=steps)
    ]
    found = matched(rows, "post-hoc", ["frozen"], "best")
    mine = [entry for entry in found if entry["metric"] == "ndcg@10"]
    assert [entry["arp"] for entry in mine] == pytest.approx([12.5, 15.0, 17.5])
    for entry in mine:
        assert entry["mean"] == pytest.approx(ahead, abs=0.002)
    assert said in words(matched=found)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ((1, 0, 0), "in part better than post-hoc subtraction, and nowhere shown to be worse"),
        ((0, -1, -1), "in part worse than post-hoc subtraction, and nowhere shown to be better"),
        ((1, 0, -1), "Separation against post-hoc subtraction is mixed at equally"),
    ],
)
def test_a_frontier_that_is_better_in_places_is_not_called_mixed(ahead, said):
    levels = [
        {
            "arm": "frozen",
            "baseline": "post-hoc",
            "epochs": "best",
            "metric": "ndcg@10",
            "arp": 10.0 + n,
            "arm_mean": 0.08 + side / 100,
            "baseline_mean": 0.08,
            "mean": side / 100,
            "low": side / 100 - 0.005,
            "high": side / 100 + 0.005,
            "n": 3,
        }
        for n, side in enumerate(ahead)
    ]
    assert said in words(matched=levels)


def test_a_frontier_of_too_few_seeds_is_said_to_have_no_intervals():
    rows = [row for arm in ("post-hoc", "frozen") for row in curve(arm, 0, 0.05)]
    found = matched(rows, "post-hoc", ["frozen"], "best")
    said = "Separation and post-hoc subtraction, without intervals, at equally popular lists (NDCG@10; "
    assert said in words(seeds=1, matched=found)


def test_curves_that_do_not_meet_are_not_compared():
    rows = curve("post-hoc", 0, 0.05)
    apart = [
        {**row, "arm": "frozen", "values": {**row["values"], "arp@10": 100 * row["values"]["arp@10"]}}
        for row in rows
    ]
    assert matched(rows + apart, "post-hoc", ["frozen"], "best") == []
    # One seed of three whose lists do not change with beta: the other two would be a choice of seeds.
    three = [row for seed in range(3) for arm in ("post-hoc", "frozen") for row in curve(arm, seed, 0.05)]
    assert matched(three, "post-hoc", ["frozen"], "best")
    for row in three:
        if row["arm"] == "frozen" and row["seed"] == 2:
            row["values"]["arp@10"] = 15.0
    assert matched(three, "post-hoc", ["frozen"], "best") == []


def test_the_rules_stand_in_the_docs():
    text = " ".join((DOCS / "comparison.md").read_text().split())
    for said, when in RULES:
        assert said in text, said
        assert " ".join(when.split()) in text, said


@pytest.mark.parametrize(
    ("correlation", "said"), [(0.2, "mostly something else"), (0.9, "mostly popularity")]
)
def test_a_difference_along_a_direction_that_is_hardly_log_p_is_not_called_popularity(correlation, said):
    """Both nulls reject it all the same: they tell association, and cos² tells how much of it is log p."""
    num_items, rows, pairs = 400, [], []
    log_p = -1.1 * np.log(np.arange(1, num_items + 1))
    b = (log_p - log_p.mean()) / np.linalg.norm(log_p - log_p.mean())
    for seed in range(3):
        rng = np.random.default_rng(seed)
        other = rng.standard_normal(num_items)
        other -= other.mean() + b * (b @ other)
        along = correlation * b + (1 - correlation**2) ** 0.5 * other / np.linalg.norm(other)
        items = np.column_stack([0.3 * rng.standard_normal((num_items, 4)), 60 * along])
        query = np.column_stack([rng.standard_normal((100, 4)), np.ones(100)])
        standard = ScoreMoments.of(query, items)
        frozen = ScoreMoments.of(query * [1, 1, 1, 1, 0], items)
        served = {
            "standard": [
                Served("standard", standard, None),
                Served("post-hoc", standard.with_popularity(-1, log_p), log_p),
            ],
            "frozen": [Served("frozen", frozen, log_p)],
        }
        made, tested, _ = measure_reading(
            {arm: Reading(3, families, {}, {}, {}) for arm, families in served.items()},
            log_p,
            log_p,
            permutations=199,
            seed=seed,
            nulls=[registry.made("null", name) for name in ("label", "sign")],
        )
        rows += [{**row, "seed": seed, "epochs": "best"} for row in made]
        pairs += [{**pair, "seed": seed, "epochs": "best"} for pair in tested]
    text = " ".join(
        Words(compared(rows, pairs, ["standard", "frozen", "post-hoc"], permutations=199)).sentences()
    )
    assert said in text
    assert f"{correlation**2:.2f} [" in text
    assert "No test here shows that it is only popularity" in text
    assert "specific" not in text


def test_a_small_difference_that_is_told_apart_shows_what_it_is():
    pair = {"mean": 3.2e-4, "low": 2e-4, "high": 4.4e-4, "n": 5}
    assert told(pair, 3) == "+0.0003 [+0.0002, +0.0004]"
    assert told(pair | {"low": -2e-4}, 3) == "+0.000 [-0.000, +0.000], not told apart"
    assert told({"mean": -0.0126, "low": -0.02, "high": -0.01, "n": 5}, 3) == "-0.013 [-0.020, -0.010]"


def test_a_run_that_is_kept_for_the_docs_has_the_same_sentences(tmp_path, monkeypatch):
    """What docs/results.py drops of a comparison is nothing that a sentence needs."""
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    results = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results", results)
    spec.loader.exec_module(results)
    monkeypatch.setattr(results, "RUNS", tmp_path / "runs")
    found = fastpop.compare(small_log(events=2000), seeds=3, out=tmp_path / "out", **QUICK)
    results.keep("mine", tmp_path / "out")
    kept = results._read(results.Run("mine", "", ""))
    said = [kept["headline"], *kept["sentences"]]
    assert len(said) == len(found.sentences) + 1
    assert "unpaired" not in " ".join(said)
    for one, other in zip(said, [found.headline, *found.sentences]):
        assert one == other
