"""The matched intervention: everything else equal, honest words, one table, one report."""

import json

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import synthetic
from fastpop.experiments import ARMS, findings
from fastpop.popularity import PopularityPrior
from fastpop.training import TrainConfig, build
from fastpop.training.loop import fit

QUICK = {"epochs": 4, "dim": 8, "batch_size": 64, "num_negatives": 32, "learning_rate": 0.03,
         "permutations": 99, "progress": False}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("compare") / "report"
    found = fastpop.compare(small_log(events=3000), seeds=2, out=out, name="made <up>", **QUICK)
    return found, out


def test_every_arm_seed_and_knob_has_a_row(result):
    found, _ = result
    keys = {(row["arm"], row["seed"], row["popularity_weight"]) for row in found.rows}
    expected = {(arm, seed, weight) for arm in ARMS for seed in (0, 1)
                for weight in (None, 0.0, 0.5, 1.0)}
    assert keys == expected | {("post-hoc", seed, None) for seed in (0, 1)}


def test_energies_add_up_and_p_values_are_never_zero(result):
    for row in result[0].rows:
        values = row["values"]
        parts = values["energy_shared"] + values["energy_heterogeneous"]
        assert values["energy_direction"] == pytest.approx(parts)
        assert values["fraction_shared"] == pytest.approx(
            values["energy_shared"] / values["energy_total"])
        for name, value in values.items():
            if name.startswith("p_value"):
                assert 1 / 100 <= value <= 1


def test_post_hoc_is_standard_at_knob_zero_and_frozen_at_zero_is_the_learned_part(result):
    found, _ = result
    assert found.value("post-hoc", "energy_shared") == pytest.approx(
        found.value("standard", "energy_shared", 0.0))
    for arm, weight in (("frozen", 0.0), ("standard", 1.0), ("learned", 0.0), ("disjoint", 0.0)):
        assert found.value(arm, "energy_shared", weight) == found.value(arm, "energy_shared")


def test_separation_takes_popularity_out_and_the_control_does_not(result):
    found, _ = result
    assert found.value("standard", "mean_slope") > 0.5
    assert abs(found.value("frozen", "mean_slope")) < 0.25
    assert found.value("frozen", "energy_shared") < 0.1 * found.value("standard", "energy_shared")
    assert found.value("permuted", "energy_shared") > 0.5 * found.value("standard", "energy_shared")


def test_arms_of_a_seed_start_alike_and_see_the_same_batches_and_draws():
    log = small_log()
    prior = PopularityPrior.from_counts(log.item_counts())
    started = {}
    for arm in ARMS.values():
        config = TrainConfig(prior=arm.prior, dim=8)
        state = build.build_model(config, log, prior.log_prior_V).state_dict()
        started[arm.name] = {name: value for name, value in state.items()
                             if "embedding" in name}
    for state in started.values():
        for name, value in state.items():
            assert torch.equal(value, started["standard"][name])
    # A frozen arm of weight 0 is the standard arm in every step.
    trained = []
    for options in ({"prior": "none"}, {"prior": "frozen", "prior_weight": 0.0}):
        config = TrainConfig(dim=8, epochs=2, num_negatives=16, batch_size=64, **options)
        model = build.build_model(config, log, prior.log_prior_V)
        fit(model, build.build_loss(config, build.build_batches(config, log, "events")),
            build.build_batches(config, log, "events"), build.build_optimizers(config, model),
            config, show=False)
        trained.append(model.decoder.item_embedding.detach())
    assert torch.equal(*trained)


def test_the_report_is_written_whole_and_escapes_names(result):
    found, out = result
    assert {path.name for path in out.iterdir()} == {
        "report.html", "comparison.json", "rows.csv", "table.txt"}
    page = (out / "report.html").read_text()
    assert "made &lt;up&gt;" in page
    assert "made <up>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["headline"] == found.headline
    assert len((out / "rows.csv").read_text().splitlines()) == 1 + len(found.rows)


def test_the_table_fits_eighty_columns_and_speaks(result):
    text = result[0].table()
    assert max(map(len, text.splitlines())) <= 80
    assert "without retraining" in " ".join(text.split())
    assert "no causal reading" in " ".join(text.split())


def words(frozen, post_hoc, standard=(10.0, 11.0, 12.0)):
    rows = [
        {"arm": arm, "seed": seed, "popularity_weight": None,
         "values": {"energy_shared": value, "energy_direction": value, "energy_shared_b": value,
                    "energy_total": 100.0, "mean_slope": 0.5}}
        for arm, values in (("standard", standard), ("frozen", frozen), ("post-hoc", post_hoc))
        for seed, value in enumerate(values)
    ]
    pairs = [{"arm": "frozen", "null": null, "p_shared": p, "p_direction": p}
             for null, p in (("label", 0.001), ("sign", 0.4))]
    prior = PopularityPrior.from_counts(np.array([3, 2, 1, 0]), smoothing=1.0)
    return " ".join(findings.sentences(
        rows, findings.summarise(rows), [], pairs, ["standard", "frozen"], {"A": prior}, 3))


def test_the_words_follow_the_numbers():
    assert "Post-hoc subtraction does as well as separation here" in words([1, 1.1, 0.9], [0.5] * 3)
    assert "Separation leaves less" in words([0.5, 0.51, 0.52], [1, 1.1, 1.2])
    assert "cannot be told apart" in words([0.1, 3.0, 0.2], [1, 1.6, 1])
    raised = words([20, 21, 22], [1, 1, 1])
    assert "90.9% MORE" in raised
    assert "item norms that go with popularity" in raised
    assert "20 times AS MUCH" in words([220, 220, 220], [1, 1, 1])
    assert "25% of the items have no event" in raised


def test_on_the_generator_separation_gives_the_reduction_of_theory():
    """Twin-block log whose population reduction is known: the arms come near it."""
    world = synthetic.paper_headline()
    log = world.sample_events(600, 60, seed=0)
    result = fastpop.compare(
        log, seeds=1, arms=["standard", "frozen"], epochs=12, dim=16, num_negatives=128,
        learning_rate=0.02, batch_size=2048, permutations=99, progress=False, split="none")
    assert result.value("standard", "mean_slope") == pytest.approx(1 + world.delta, abs=0.25)
    assert result.value("frozen", "mean_slope") == pytest.approx(world.delta, abs=0.25)
    assert result.value("frozen", "reduction_shared") > 0.9


@pytest.mark.parametrize(("options", "kind", "message"), [
    ({"arms": ["standard", "magic"]}, ValueError, "arms: expected one of"),
    ({"seeds": 0}, ValueError, "seeds: expected an integer >= 1; got 0"),
    ({"seeds": "three"}, TypeError, "seeds: expected a number of seeds"),
    ({"prior": "frozen"}, ValueError, "prior: expected no prior"),
    ({"permutations": 0}, ValueError, "permutations: expected an integer >= 1"),
    ({"encoder": "nope"}, ValueError, "encoder: expected one of"),
])
def test_bad_arguments_get_one_clear_error(options, kind, message):
    with pytest.raises(kind) as caught:
        fastpop.compare(small_log(), **QUICK | options)
    assert message in str(caught.value)


def test_an_unwritable_folder_is_found_out_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(fastpop.training.CheckpointError, match="out: expected a writable folder"):
        fastpop.compare(small_log(), out=tmp_path / "file" / "x", **QUICK)


@pytest.mark.parametrize(("options", "message"), [
    ({"seeds": [0, 0]}, "seeds: expected different seeds"),
    ({"config": TrainConfig(prior="none")}, "prior: expected no prior"),
    ({"evaluate_every": 1}, "patience, evaluate_every: expected 0"),
])
def test_what_a_comparison_has_no_use_for_is_refused(options, message):
    with pytest.raises(ValueError) as caught:
        fastpop.compare(small_log(), **QUICK | options)
    assert message in str(caught.value)


def test_the_encoder_of_a_configuration_is_taken():
    config = TrainConfig(encoder="bag", max_length=10)
    found = fastpop.compare(small_log(), seeds=1, arms=["standard"], config=config,
                            **QUICK | {"epochs": 1})
    assert found.comparison["rules"]["encoder"].startswith("bag")


def test_double_subtraction_is_warned_of():
    with pytest.warns(UserWarning, match="arm 'frozen': logq='none'"):
        fastpop.compare(small_log(), seeds=1, arms=["standard"], proposal="in_batch", logq="none",
                        **QUICK | {"epochs": 1})


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        fastpop.compare(small_log(), out=tmp_path, **QUICK)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_a_hardly_trained_model_is_cautioned_of():
    text = words([1, 1, 1], [1, 1, 1])
    assert "CAUTION" not in text
    found = fastpop.compare(small_log(), seeds=1, arms=["standard", "frozen"],
                            **QUICK | {"epochs": 1, "learning_rate": 1e-6})
    assert found.headline.startswith("CAUTION: the standard model hardly follows log p")
