"""The matched intervention: everything else equal, honest words, one table, one report."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import toy_parts
from helpers_logs import small_log

import fastpop
from fastpop import synthetic
from fastpop.data import Cases, Interactions
from fastpop.data.split import event_halves
from fastpop.diagnostics import Null
from fastpop.experiments import ARMS
from fastpop.experiments.arms import AFTERWARDS
from fastpop.experiments.compare import BETAS, NULLS
from fastpop.popularity import PopularityPrior
from fastpop.testing import registered
from fastpop.training import TrainConfig, build
from fastpop.training.loop import fit
from fastpop.training.run import make_split

QUICK = {
    "epochs": 4,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "learning_rate": 0.03,
    "permutations": 99,
    "progress": False,
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("compare") / "report"
    found = fastpop.compare(small_log(events=3000), seeds=2, out=out, name="made <up>", **QUICK)
    return found, out


def test_every_arm_seed_reading_and_knob_has_a_row(result):
    found, _ = result
    keys = {(row["arm"], row["seed"], row["epochs"], row["popularity_weight"]) for row in found.rows}
    knobs = {arm: {None, *BETAS} for arm in (*ARMS, *AFTERWARDS)} | {"standard": {None, 1.0}}
    knobs |= {arm: {1.0} for arm in ("popularity", "recency", "recency-window", "markov")}
    assert keys == {
        (arm, seed, epochs, beta)
        for arm, betas in knobs.items()
        for seed in (0, 1)
        for epochs in ("equal", "best")
        for beta in betas
    }
    assert len(BETAS) >= 15


def test_the_json_has_every_arm_at_both_readings(result):
    """Flat numbers that a reader of comparison.json finds without knowing the rows."""
    saved = json.loads((result[1] / "comparison.json").read_text())
    assert [arm["name"] for arm in saved["arms"]] == [
        "standard",
        "frozen",
        "learned",
        "learned-from-log-p",
        "permuted",
        "disjoint",
        "post-hoc",
        "post-hoc-fitted",
        "projected",
        "popularity",
        "recency",
        "recency-window",
        "markov",
    ]
    asked = {
        "energy_off_direction",
        "cos2_change",
        "slope",
        "amplitude",
        "nll",
        "ndcg@10",
        "arp@10",
        "coverage@10",
    }
    for arm in saved["arms"]:
        assert [reading["epochs"] for reading in arm["readings"]] == ["best", "equal"]
        for reading in arm["readings"]:
            assert asked <= reading.keys()
            missing = {name for name in asked if reading[name] is None}
            assert missing == {
                "standard": {"cos2_change"},
                "popularity": {"cos2_change", "amplitude"},
                "recency": asked - {"ndcg@10", "arp@10", "coverage@10", "nll"},  # hangs on the case's time
                "recency-window": asked - {"ndcg@10", "arp@10", "coverage@10"},
                "markov": asked - {"ndcg@10", "arp@10", "coverage@10"},
            }.get(arm["name"], set())  # no logits
    flat = {(arm["name"], reading["epochs"]): reading for arm in saved["arms"] for reading in arm["readings"]}
    assert flat["frozen", "equal"]["ndcg@10"] == result[0].value("frozen", "ndcg@10", 1.0, "equal")
    assert flat["post-hoc", "best"]["arp@10"] == result[0].value("post-hoc", "arp@10", 0.0, "best")
    assert flat["post-hoc", "best"]["nll"] == result[0].value("standard", "nll", 1.0, "best")


def test_energies_add_up_and_p_values_are_never_zero(result):
    for row in result[0].rows:
        values = row["values"]
        if "energy_heterogeneous" in values:
            parts = values["energy_shared"] + values["energy_heterogeneous"]
            assert values["energy_direction"] == pytest.approx(parts, abs=1e-9)
            assert values["energy_direction"] + values["energy_off_direction"] == pytest.approx(
                values["energy_total"]
            )
            assert values["fraction_shared"] == pytest.approx(
                values["energy_shared"] / values["energy_total"]
            )
        for name, value in values.items():
            if name.startswith("p_value"):
                assert 1 / 100 <= value <= 1


def test_what_is_made_of_the_standard_model_is_what_it_says(result):
    """Subtraction that is fitted leaves no shared energy, projection none along log p at all, and post-hoc
    at beta 1 is the model as trained: so energies rank nothing."""
    found, _ = result
    for epochs in ("best", "equal"):
        standard = found.value("standard", "energy_shared", epochs=epochs)
        assert found.value("post-hoc-fitted", "energy_shared", epochs=epochs) <= 1e-20 * standard
        assert found.value("projected", "energy_direction", epochs=epochs) <= 1e-20 * standard
        for arm in ("post-hoc-fitted", "projected"):
            assert found.value(arm, "energy_off_direction", epochs=epochs) == pytest.approx(
                found.value("standard", "energy_off_direction", epochs=epochs)
            )
            assert found.value(arm, "cos2_change", epochs=epochs) == pytest.approx(1)
        for metric in ("nll", "ndcg@10", "arp@10", "energy_shared"):
            assert found.value("post-hoc", metric, 1.0, epochs) == pytest.approx(
                found.value("standard", metric, 1.0, epochs), rel=1e-6
            )
    assert found.value("frozen", "energy_shared", 0.0) == found.value("frozen", "energy_shared")


def test_an_nll_is_given_where_scores_are_meant_as_log_probabilities_only(result):
    for row in result[0].rows:
        has = {name for name in row["values"] if name.startswith(("nll", "perplexity"))}
        assert not has or row["popularity_weight"] == 1


def test_separation_takes_popularity_out_and_the_control_does_not(result):
    found, _ = result
    assert found.value("standard", "slope") > 0.5
    assert abs(found.value("frozen", "slope")) < 0.25
    assert found.value("frozen", "energy_shared") < 0.1 * found.value("standard", "energy_shared")
    assert found.value("permuted", "energy_shared") > 0.5 * found.value("standard", "energy_shared")
    assert found.value("learned-from-log-p", "energy_shared") < 2 * found.value("frozen", "energy_shared")


def test_the_best_epoch_is_the_one_of_lowest_validation_nll(result):
    for curve in result[0].comparison["curves"]:
        best, equal = curve["readings"]["best"], curve["readings"]["equal"]
        assert equal == QUICK["epochs"]
        assert curve["nll"][best - 1] == min(curve["nll"])
        assert len(curve["epoch"]) >= max(equal, min(best + 3, 2 * equal))
        for row in result[0].rows:
            if (row["arm"], row["seed"], row["popularity_weight"]) == (curve["arm"], curve["seed"], None):
                assert row["values"]["epoch"] == {"best": best, "equal": equal}[row["epochs"]]


def test_a_reading_is_the_model_of_its_epoch():
    """At equal epochs an arm is what training for so many epochs gives; at the best one likewise."""
    options = QUICK | {"arms": ["standard", "frozen"], "epochs": 3, "max_epochs": 6, "permutations": 1}
    found = fastpop.compare(small_log(), seeds=[1], **options)
    for curve in found.comparison["curves"]:
        for epochs, epoch in curve["readings"].items():
            alone = fastpop.compare(
                small_log(),
                seeds=[1],
                **options | {"epochs": epoch, "max_epochs": epoch, "arms": ["standard", curve["arm"]]},
            )
            for metric, beta in (("energy_total", None), ("ndcg@10", 1.0)):
                assert alone.value(curve["arm"], metric, beta, "equal") == found.value(
                    curve["arm"], metric, beta, epochs
                )


def test_each_seed_has_halves_of_its_own(result):
    def energies(seed):
        return {
            row["arm"]: row["values"]["energy_shared"]
            for row in result[0].rows
            if row["seed"] == seed and row["arm"] == "popularity"
        }

    assert energies(0) != energies(1)


def test_arms_of_a_seed_start_alike_and_see_the_same_batches_and_draws():
    log = small_log()
    prior = PopularityPrior.from_counts(log.item_counts())
    started = {}
    for arm in ARMS.values():
        config = TrainConfig(prior=arm.prior, bias_start=arm.bias_start, dim=8)
        state = build.build_model(config, log, prior.log_prior_V, log).state_dict()
        started[arm.name] = {name: value for name, value in state.items() if "embedding" in name}
    for state in started.values():
        for name, value in state.items():
            assert torch.equal(value, started["standard"][name])
    # A frozen arm of weight 0 is the standard arm in every step.
    trained = []
    for options in ({"prior": "none"}, {"prior": "frozen", "prior_weight": 0.0}):
        config = TrainConfig(dim=8, epochs=2, num_negatives=16, batch_size=64, **options)
        parts = build.assemble(config, log, log, prior.log_prior_V)
        fit(parts, show=False)
        trained.append(parts.model.decoder.item_embedding.detach())
    assert torch.equal(*trained)


def test_the_report_is_written_whole_and_escapes_names(result):
    found, out = result
    assert {path.name for path in out.iterdir()} == {
        "report.html",
        "comparison.json",
        "rows.csv",
        "table.txt",
    }
    page = (out / "report.html").read_text()
    assert "made &lt;up&gt;" in page
    assert "made <up>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["headline"] == found.headline
    assert len((out / "rows.csv").read_text().splitlines()) == 1 + len(found.rows)


def test_titles_stand_in_the_lists_of_a_few_users_every_one_escaped(result):
    found, out = result
    log = small_log(events=3000)
    examples = found.comparison["examples"]
    assert len(examples) == 3
    sizes = [example["num_events"] for example in examples]
    assert sizes == sorted(sizes)
    ids = {str(one) for one in log.item_ids}
    for example in examples:
        shown = [(one["arm"], one["popularity_weight"]) for one in example["lists"]]
        assert len(shown) == len(set(shown))
        assert {("standard", 1.0), ("post-hoc", 0.0), ("frozen", 1.0), ("frozen", 0.0)} <= set(shown)
        assert ("standard", 0.0) not in shown
        seen = {item["id"] for item in example["history"]}
        for one in example["lists"]:
            names = [item["id"] for item in one["items"]]
            assert len(names) == len(set(names)) == 5
            assert set(names) <= ids - seen
            assert not any("title" in item for item in one["items"])
    page = (out / "report.html").read_text()
    assert "What a few users are shown" in page
    titles = {one: f"<script>alert({one})</script>" for one in ids}
    lacking = examples[0]["lists"][0]["items"][0]["id"]
    del titles[lacking]
    some = f"^titles for {len(titles)} of {len(ids)} items"
    with pytest.warns(UserWarning, match="is finished: it is shown"), pytest.warns(UserWarning, match=some):
        again = fastpop.compare(
            small_log(events=3000), seeds=2, out=out, name="made <up>", titles=titles, **QUICK
        )
    assert again.rows == found.rows
    first = again.comparison["examples"][0]["lists"][0]["items"]
    assert [item.get("title") for item in first] == [titles.get(item["id"]) for item in first]
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert f"&lt;script&gt;alert({first[1]['id']})&lt;/script&gt;" in page
    assert json.loads((out / "comparison.json").read_text())["examples"] == again.comparison["examples"]
    with pytest.raises(TypeError, match="titles: expected a path, a table"):
        fastpop.compare(log, titles=3, **QUICK)


def test_the_table_fits_eighty_columns_and_speaks(result):
    text = result[0].table()
    assert max(map(len, text.splitlines())) <= 80
    assert "Shared energy ranks nothing" in " ".join(text.split())
    assert "no causal reading" in " ".join(text.split())


def test_on_the_generator_separation_gives_the_reduction_of_theory():
    """Twin-block log whose population reduction is known: the arms come near it."""
    world = synthetic.paper_headline()
    log = world.sample_events(600, 60, seed=0)
    result = fastpop.compare(
        log,
        seeds=1,
        arms=["standard", "frozen"],
        epochs=12,
        dim=16,
        num_negatives=128,
        learning_rate=0.02,
        batch_size=2048,
        permutations=99,
        progress=False,
        split="none",
    )
    assert result.value("standard", "slope") == pytest.approx(1 + world.delta, abs=0.25)
    assert result.value("frozen", "slope") == pytest.approx(world.delta, abs=0.25)
    assert result.value("frozen", "reduction_shared") > 0.9


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"arms": ["standard", "magic"]}, ValueError, "arms: expected one of"),
        ({"seeds": 0}, ValueError, "seeds: expected an integer >= 1; got 0"),
        ({"seeds": "three"}, TypeError, "seeds: expected a number of seeds"),
        ({"prior": "frozen"}, ValueError, "prior: expected no prior"),
        ({"permutations": 0}, ValueError, "permutations: expected an integer >= 1"),
        ({"encoder": "nope"}, ValueError, "encoder: expected one of"),
        ({"arms": "frozen"}, TypeError, "arms: expected a list of arms; got str"),
        ({"arms": None}, TypeError, "arms: expected a list of arms; got NoneType"),
        ({"popularity_weights": 0.5}, TypeError, "popularity_weights: expected a list of numbers; got float"),
        ({"popularity_weights": [1e30]}, ValueError, "popularity_weights: expected a finite number"),
    ],
)
def test_bad_arguments_get_one_clear_error(options, kind, message):
    with pytest.raises(kind) as caught:
        fastpop.compare(small_log(), **QUICK | options)
    assert message in str(caught.value)


def test_an_unwritable_folder_is_found_out_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(fastpop.training.CheckpointError, match="out: expected a writable folder"):
        fastpop.compare(small_log(), out=tmp_path / "file" / "x", **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, 0]}, "seeds: expected different seeds"),
        ({"config": TrainConfig(prior="none")}, "prior: expected no prior"),
        ({"evaluate_every": 2}, "evaluate_every: expected 0 or 1"),
        ({"bias_start": "log-prior"}, "bias_start: expected no bias_start"),
        ({"prior_weight": 0.5}, "prior_weight: expected 1: arms are read at popularity weight 1, as trained"),
        (
            {"config": TrainConfig(metric="auc")},
            "metric: expected no metric: the best epoch is that of best validation NLL, for every arm",
        ),
        (
            {"metric": "auc", "loss": toy_parts.BPR()},
            "metric: expected no metric: the best epoch is that of best validation NDCG@10, for every arm",
        ),
        ({"tensorboard": True}, "tensorboard: expected False"),
        ({"max_epochs": 3}, "max_epochs: expected 0, or at least epochs = 4; got 3"),
        ({"max_cases": -1}, "max_cases: expected an integer >= 0"),
    ],
)
def test_what_a_comparison_has_no_use_for_is_refused(options, message):
    with pytest.raises(ValueError) as caught:
        fastpop.compare(small_log(), **QUICK | options)
    assert message in str(caught.value)


def test_the_encoder_of_a_configuration_is_taken():
    config = TrainConfig(encoder="bag", max_length=10)
    found = fastpop.compare(small_log(), seeds=1, arms=["standard"], config=config, **QUICK | {"epochs": 1})
    assert found.comparison["rules"]["encoder"].startswith("bag")


def test_double_subtraction_is_warned_of():
    with pytest.warns(UserWarning, match="arm 'frozen': logq='none'"):
        fastpop.compare(
            small_log(), seeds=1, arms=["standard"], proposal="in_batch", logq="none", **QUICK | {"epochs": 1}
        )


def test_a_test_part_that_nobody_can_read_is_found_out_before_training(monkeypatch):
    from fastpop.experiments import twice

    monkeypatch.setattr(twice, "fit", None)
    log = small_log()
    user, offsets = np.full(20, -1), np.arange(21)
    strangers = Cases(
        user, offsets, np.resize(log.item, 20), offsets, np.resize(log.item[5:], 20), log.num_items
    )
    with pytest.raises(ValueError, match="log: expected a test part that the encoder 'factor' can read"):
        fastpop.compare(log, test=strangers, seeds=1, **QUICK)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        fastpop.compare(small_log(), out=tmp_path, **QUICK)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_a_log_without_items_of_middling_popularity_is_compared():
    """Metrics that no case has are left out: here mid recall, of items that are all alike."""
    flat = Interactions.from_arrays(np.repeat(np.arange(60), 15), np.tile(np.arange(30), 30), np.arange(900))
    with pytest.warns(UserWarning, match="log p has no direction"):
        found = fastpop.compare(flat, seeds=1, arms=["standard", "frozen"], **QUICK | {"epochs": 1})
    metrics = {entry["metric"] for entry in found.comparison["matched"]}
    assert metrics == {"ndcg@10", "coverage@10"}


def test_the_best_epoch_is_that_of_the_users_who_were_trained_on(monkeypatch):
    """A user whose events all fell into half B has no say in it."""
    from fastpop.experiments import one_arm

    asked = []
    real = one_arm.evaluate_model
    monkeypatch.setattr(
        one_arm,
        "evaluate_model",
        lambda model, cases, *rest, **options: (asked.append(cases), real(model, cases, *rest, **options))[1],
    )
    log = small_log(users=200, events=900)
    options = {"seeds": [3], "arms": ["standard"], "split": "global-time", "split_fraction": 0.2, **QUICK}
    fastpop.compare(log, **options)
    parts = make_split(log, None, TrainConfig(split="global-time", split_fraction=0.2))
    half, _ = event_halves(parts.train, 3)
    known = parts.valid.user[np.diff(half.offsets)[parts.valid.user] > 0]
    assert 0 < len(known) < parts.valid.num_cases
    assert asked
    for cases in asked:
        np.testing.assert_array_equal(cases.user, known)
    asked.clear()
    fastpop.compare(log, valid_cases=7, **options)
    assert {cases.num_cases for cases in asked} == {7}
    assert set(asked[0].user) <= set(known)


def test_without_a_direction_no_p_value_is_shown(tmp_path):
    rng = np.random.default_rng(0)
    alike = Interactions.from_arrays(rng.integers(0, 60, 1500), rng.integers(0, 20, 1500), np.arange(1500))
    with pytest.warns(UserWarning, match="log p has no direction"):
        found = fastpop.compare(
            alike, seeds=1, arms=["standard", "frozen"], out=tmp_path / "report", **QUICK | {"epochs": 1}
        )
    assert "p-value" not in found.table()
    assert len(found.comparison["pairs"]) == len(found.comparison["nulls"]) == 0
    assert not any(name.startswith("p_value") for entry in found.summary for name in entry["values"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "p-values of the shared energy" not in page
    assert "none of 99 draws" not in page


@dataclass(frozen=True)
class Backwards(Null):
    """log p shuffled, and turned round."""

    name = "toy-backwards"
    words = "minus log p shuffled over items"

    def draw(self, label_V, rng, stratum_V):
        return -rng.permutation(label_V)


def test_nulls_are_asked_for_by_name(tmp_path):
    """The defaults beside one from outside: the same numbers under those, one more wherever they stand."""
    options = QUICK | {"seeds": 1, "arms": ["frozen"], "epochs": 1}
    plain = fastpop.compare(small_log(), **options)
    with registered("null", Backwards):
        found = fastpop.compare(
            small_log(), nulls=["label", "sign", "toy-backwards"], out=tmp_path / "out", **options
        )
        alone = fastpop.compare(small_log(), nulls=[Backwards()], **options)
    assert {pair["null"] for pair in plain.comparison["pairs"]} == {"label", "sign"}
    mine = [pair for pair in found.comparison["pairs"] if pair["null"] != "toy-backwards"]
    assert mine == list(plain.comparison["pairs"])
    value = found.value("frozen", "p_value_toy-backwards_shared")
    assert 0 < value <= 1
    assert found.value("frozen", "p_value_sign_shared") == plain.value("frozen", "p_value_sign_shared")
    assert "minus log p shuffled over items (toy-backwards)" in found.comparison["rules"]["null"]
    assert "null toy-backwards" in found.table()
    assert max(map(len, found.table().splitlines())) <= 80
    assert "null toy-backwards" in (tmp_path / "out" / "report.html").read_text()
    assert {pair["null"] for pair in alone.comparison["pairs"]} == {"toy-backwards"}
    assert "own, toy-backwards" in " ".join(alone.table().split())
    said = [one for one in alone.sentences if one.startswith("Paired permutation test")]
    assert "toy-backwards p = " in said[0]
    assert plain.comparison["rules"]["null"] == (
        "log p shuffled over all items (label), and random signs (sign); 99 draws"
    )


@pytest.mark.parametrize(
    ("nulls", "kind", "message"),
    [
        ("label", TypeError, "nulls: expected a list of nulls; got str"),
        ([], ValueError, "nulls: expected different ones, at least one, that need no strata"),
        (["label", "label"], ValueError, "nulls: expected different ones"),
        (["stratified"], ValueError, "nulls: expected different ones, at least one, that need no strata"),
        (["lable"], ValueError, "nulls: expected one of .*did you mean 'label'"),
    ],
)
def test_bad_nulls_get_one_clear_error(nulls, kind, message):
    with pytest.raises(kind, match=message):
        fastpop.compare(small_log(), nulls=nulls, **QUICK)


def test_the_command_line_asks_for_the_same_nulls():
    from fastpop.cli.parse import parse

    assert parse(["compare", "bundled", "--out", "x"]).nulls == NULLS
    assert parse(["compare", "bundled", "--out", "x", "--nulls", "sign"]).nulls == ("sign",)
