"""The experiment on propensities: exact where they are known, and on a part that was shown at random."""

import json

import numpy as np
import pytest

import fastpop
from fastpop import cli
from fastpop.studies import Setting, Unbiased
from fastpop.studies.methods import Arena
from fastpop.studies.unbiased import exact_risks, world


def test_true_propensities_find_the_risk_that_the_naive_mean_misses():
    values, table = exact_risks(world(), 100)
    assert values["risk"] == pytest.approx(((world().rating_UV - 3.4) ** 2).mean())
    assert values["naive.off"] < -5  # of one draw; of the mean of a hundred ten times as much
    assert abs(values["naive.bias"]) > 30 * values["naive.bias_se"]
    for name in ("ips", "snips", "dr"):
        assert abs(values[f"{name}.bias"]) < 3 * values[f"{name}.bias_se"], name
        assert values[f"{name}.covered"] > 0.85, name
    assert values["naive.covered"] == 0
    assert [row[0] for row in table.rows] == ["naive", "ips", "snips", "dr"]


def test_powers_that_print_alike_are_methods_of_their_own():
    named = [method.name for method in Unbiased(powers=(0.5, 0.50000001))._methods()]
    assert named[2:] == ["IPS 0.5", "IPS 0.50000001"]


@pytest.fixture(scope="module")
def shown_at_random(tmp_path_factory):
    """Two files: ratings of what was chosen, and of what was shown at random."""
    folder = tmp_path_factory.mktemp("shown")
    seen, random = world().draw(0), world().draw_random(10, 0)
    for name, which in (("biased", seen), ("random", random)):
        user, item = np.nonzero(which)
        rating = world().rating_UV[which].astype(int)
        rows = "\n".join(f"{u},{i},{r}" for u, i, r in zip(user, item, rating))
        (folder / f"{name}.csv").write_text(rows + "\n")
    return folder


def test_a_part_shown_at_random_is_judged_from_the_command_line(shown_at_random, tmp_path, capsys):
    biased, random = (str(shown_at_random / f"{name}.csv") for name in ("biased", "random"))
    out = [
        "--preset",
        "coat",
        "--min-rating",
        "4",
        "--seeds",
        "3",
        "--quick",
        "--out",
        str(tmp_path),
        "--title",
        "A world",
    ]
    argv = ["experiment", "unbiased", biased, "--test", random, "--test-is-randomised", *out]
    cli.main(argv)
    answer = json.loads((tmp_path / "unbiased" / "answer.json").read_text())
    values = answer["values"]
    assert answer["log"] == "A world"
    assert answer["made_by"]["shown_sha256"] != answer["made_by"]["log_sha256"]
    assert 0.5 < values["item-mean.auc"] < 1
    for arm in ("standard", "post-hoc", "frozen", "frozen, beta 0", "IPS 0.5"):
        assert 0 < values[f"best.{arm}.auc"] < 1
        assert values[f"best.{arm} - item-mean.auc"] == pytest.approx(
            values[f"best.{arm}.auc"] - values["item-mean.auc"]
        )
    assert (tmp_path / "unbiased" / "unbiased-shown.svg").exists()
    text = (tmp_path / "unbiased" / "answer.txt").read_text()
    assert "±" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "item-mean" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["experiment", "drift", biased, "--test", random, *out])
    assert "test-is-randomised" in capsys.readouterr().err


def test_what_judges_no_such_part_says_so():
    log = fastpop.testing.small_log()
    for argument, call in {
        "shown": lambda: fastpop.experiment("decomposition", log, shown=log, test=log),
        "test": lambda: fastpop.experiment(Unbiased(), log, test=log),
        "rated": lambda: fastpop.experiment(Unbiased(), log, rated=log),
        "rated: expected a log with": lambda: fastpop.experiment(
            Unbiased(), log, test=log, shown=log, rated=log
        ),
    }.items():
        with pytest.raises(ValueError, match=f"^{argument}"):
            call()
    with pytest.raises(TypeError, match=r"^test: expected Interactions"):
        fastpop.experiment(Unbiased(), log, shown=log)


def test_counts_and_mean_ratings_on_coat(shared_data):
    def read(part, **options):
        return fastpop.read_log(shared_data / f"coat.{part}.csv.gz", preset="coat", **options)

    liked, rated = read("random", min_rating=4), read("biased", weight="rating")
    setting = Setting(
        read("biased", min_rating=4), "Coat", False, 1, None, False, {}, liked, read("random"), rated
    )
    found = Arena.of(setting, metric="nll", encoder="factor").references()
    assert found["popularity"]["auc_shown"] == pytest.approx(0.6225, abs=5e-5)
    assert found["popularity"]["ndcg_shown@5"] == pytest.approx(0.459, abs=5e-4)
    assert found["item-mean"]["auc_shown"] == pytest.approx(0.639, abs=5e-4)
    assert found["item-mean"]["ndcg_shown@5"] == pytest.approx(0.478, abs=5e-4)
