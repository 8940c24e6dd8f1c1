"""Experiments from Python and from the command line: answers, folders that go on, errors."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import fastpop
from fastpop import cli, registry, testing
from fastpop.data import Interactions
from fastpop.data.demo_log import bundled_log
from fastpop.studies import Answer, Chart, Drift, Series, Study, Table
from fastpop.studies.drift import Weeks
from fastpop.training import sealed

EXPERIMENTS = sorted(fastpop.available("experiments"))


# What an answer has to have, by experiment: nothing is left out on the bundled log.
HAS = {
    "baselines": [
        f"{epochs}.{name}.ndcg" for name in fastpop.available("recipes") for epochs in ("best", "equal")
    ],
    "encoders": [
        f"best.{name}.{arm}.ndcg" for name in fastpop.available("encoders") for arm in ("frozen", "post-hoc")
    ],
    "frontier": [f"best.{arm}.ndcg" for arm in ("standard", "frozen", "PDA", "ReSN", "IPS", "DICE")],
    "unbiased": ["naive.off", "ips.off", "best.IPS 0.5.ndcg", "best.standard.ndcg"],
    "periods": [
        "rank",
        "rank.dense",
        "cosine.1",
        "by-period - frozen.energy",
        "standard.p",
        "frozen.nll.fresh",
    ],
    "drift": ["retrained.recency", "retrained - frozen.recency", "popularity.recency"],
}
WITHOUT_A_MODEL = ("popularity", "recency", "markov")


@dataclass(frozen=True)
class Toy(Study):
    """Counts users."""

    name: ClassVar[str] = "toy"
    question: ClassVar[str] = "How many users?"
    factor: int = 1

    def run(self, setting):
        number = float(self.factor * setting.log.num_users)
        line = Series("users", (0.0, 1.0), (number, number), (number - 1,) * 2, (number + 1,) * 2)
        return Answer(
            {"users": number},
            (f"{number:.0f} users.",),
            (Table("Users", ("what", "number"), (("users", number),)),),
            (Chart("users", "Users", "nothing", "users", (line,)),),
        )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_answers_quickly_and_comes_back(name, tmp_path, capsys):
    argv = ["experiment", name, "--quick", "--out", str(tmp_path)]
    cli.main(argv)
    said = capsys.readouterr().out
    text = (tmp_path / name / "answer.txt").read_text()
    assert text in said
    assert "QUICK" in text
    assert max(map(len, text.splitlines())) <= 80
    answer = json.loads((tmp_path / name / "answer.json").read_text())
    assert answer["values"]
    assert all(isinstance(value, float) for value in answer["values"].values())
    assert answer["sentences"]
    assert not [name for name in HAS.get(name, []) if name not in answer["values"]]
    if name in ("frontier", "unbiased", "encoders", "baselines"):
        assert all(answer["values"][f"{row}.ndcg"] > 0 for row in WITHOUT_A_MODEL)
    assert answer["question"] == registry.find("experiment", name, "name").question
    for chart in answer["charts"]:
        assert (tmp_path / name / f"{chart['name']}.svg").read_text().startswith("<svg")
    before = (tmp_path / name / "answer.json").stat().st_mtime_ns
    cli.main(argv)
    assert (tmp_path / name / "answer.json").stat().st_mtime_ns == before
    assert answer["sentences"][0][:40] in " ".join(capsys.readouterr().out.split()).replace("- ", "")
    testing.check_experiment(name, bundled_log(), out=tmp_path / name, anew=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_answers_the_same_again(name):
    testing.check_experiment(name, bundled_log())


def test_a_damaged_answer_is_made_anew_and_a_damaged_picture_drawn_anew(tmp_path):
    out, log = tmp_path / "toy", bundled_log()
    first = fastpop.experiment(Toy(), log, out=out, name="a log")
    sound = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "seconds.json"}
    for name, said in (
        ("users.svg", r"expected users\.svg as written; got other bytes"),
        ("answer.txt", r"expected answer\.txt as written; got other bytes"),
        ("answer.json", r"answer\.json: expected the bytes that were written; got others\. It is made anew"),
    ):
        (out / name).write_bytes(sound[name][:-2])
        with pytest.warns(UserWarning, match=said):
            again = fastpop.experiment(Toy(), log, out=out, name="a log")
        assert again.values == first.values
        if name != "answer.json":  # which says how long it took
            assert (out / name).read_bytes() == sound[name]
    (out / "asked.json").write_bytes(sound["asked.json"][:-2])
    with pytest.raises(ValueError, match=r"asked\.json: expected the bytes that were written; got others"):
        fastpop.experiment(Toy(), log, out=out, name="a log")
    assert not list(out.glob(".*"))


def test_a_second_process_in_the_folder_of_an_experiment_is_refused(tmp_path):
    from fastpop.training import CheckpointError
    from fastpop.training.folder import held

    out = tmp_path / "toy"
    with held(out), pytest.raises(CheckpointError, match=rf"got {out}, which process \d+ is writing now"):
        fastpop.experiment(Toy(), bundled_log(), out=out, name="a log")


def test_a_damaged_model_of_an_experiment_is_made_again(tmp_path):
    from fastpop.studies.models import trained
    from fastpop.studies.study import Setting
    from fastpop.testing import small_log

    setting = Setting(small_log(), "a log", True, 1, tmp_path, False)
    options = {"encoder": "factor", "dim": 4, "epochs": 2, "num_negatives": 8}
    first = trained(setting, "one", **options)
    path = tmp_path / "one" / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"model\.safetensors: .*\. one goes on from its checkpoint"):
        again = trained(setting, "one", **options)
    assert again.metrics == first.metrics
    assert fastpop.load(tmp_path / "one").metrics == first.metrics
    (tmp_path / "one" / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"config\.json: expected the bytes .*\. one is trained anew"):
        again = trained(setting, "one", **options)
    assert again.metrics == fastpop.load(tmp_path / "one").metrics == first.metrics


def test_one_from_outside_runs_by_name_and_as_an_object(tmp_path):
    log = bundled_log()
    with registry.registered("experiment", Toy):
        assert "toy" in fastpop.available("experiments")
        assert fastpop.experiment("toy", log).values == {"users": log.num_users}
    result = fastpop.experiment(Toy(factor=2), log, out=tmp_path / "toy", name="a log")
    assert result.values["users"] == 2 * log.num_users
    assert "a log" in result.table()
    assert (tmp_path / "toy" / "users.svg").exists()
    for change, words in (
        ({"study": Toy(factor=3)}, r"toy\.factor: expected 2, as in the experiment in .*; got 3$"),
        ({"seeds": 7}, r"seeds: expected \d, as in the experiment in .*; got 7$"),
        ({"dim": 8}, r"dim: expected None, as in the experiment in .*; got '8'$"),
        (
            {"log": log.take(np.arange(log.num_events) % 2 == 0)},
            r"log: expected another, as in .*; got another$",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            fastpop.experiment(**{"study": Toy(factor=2), "log": log, "out": tmp_path / "toy"} | change)


def test_errors_name_the_argument(tmp_path):
    (tmp_path / "there").write_text("x")
    log = bundled_log()
    for argument, call in {
        "study": lambda: fastpop.experiment("drifft", log),
        "seeds": lambda: fastpop.experiment(Toy(), log, seeds=-1),
        "quick": lambda: fastpop.experiment(Toy(), log, quick="yes"),
        "prior": lambda: fastpop.experiment("drift", log, prior="none"),
        "seed": lambda: fastpop.experiment(Toy(), log, seed=3),
        "max_length": lambda: fastpop.experiment(Toy(), log, max_length="20"),
        "out": lambda: fastpop.experiment(Toy(), log, out=tmp_path),
        r"drift\.train_weeks": lambda: Drift(train_weeks=1),
    }.items():
        with pytest.raises((ValueError, TypeError), match=f"^{argument}: expected .*; got"):
            call()
    timeless = Interactions.from_arrays([0, 0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"^log: expected events with times, which drift asks"):
        fastpop.experiment("drift", timeless)


def test_weeks_know_nothing_of_what_comes_after():
    log = bundled_log()
    weeks = Weeks.of(log, 16, 300)
    cases = weeks.cases(18, seed=0)
    user_N = np.repeat(np.arange(log.num_users), np.diff(log.offsets)).tolist()
    week_of = dict(zip(zip(user_N, log.item.tolist()), weeks.week_N))
    assert cases.num_cases == 300
    for case in range(0, 300, 7):
        assert week_of[cases.user[case], cases.target_item[case]] == 18
        history = cases.history_item[cases.history_offsets[case] : cases.history_offsets[case + 1]]
        assert all(week_of[cases.user[case], item] <= 18 for item in history)
        assert cases.target_item[case] not in history
    static, later = weeks.priors(18)["static"], weeks.priors(24)["static"]
    np.testing.assert_array_equal(static, later)
    assert not np.array_equal(weeks.priors(18)["cumulative"], weeks.priors(24)["cumulative"])
    assert weeks.priors(15)["static"].sum() != static.sum()  # before the cut: no later counts


def test_a_fresh_log_p_saves_what_it_did():
    """Popularity alone, every event of weeks 17 to 25; half-life and smoothing are of weeks 1 to 16."""
    weeks = Weeks.of(bundled_log(), 16, 10**9)
    total = dict.fromkeys(("static", "cumulative", "recency"), 0.0)
    count = 0
    for week in range(weeks.first, weeks.last + 1):
        target = weeks.cases(week, 0).target_item
        for name, log_prior_V in weeks.priors(week).items():
            total[name] -= float(log_prior_V[target].sum())
        count += len(target)
    nll = {name: value / count for name, value in total.items()}
    assert nll["static"] - nll["recency"] >= 0.6
    assert nll["cumulative"] - nll["recency"] >= 0.1


@dataclass(frozen=True)
class Stops(Study):
    """Tells its time, and ends."""

    name: ClassVar[str] = "stops"
    question: ClassVar[str] = "How long did it take?"

    def run(self, setting):
        setting.lap()
        raise OSError(28, "No space left on device")


def test_the_time_of_a_process_that_was_stopped_is_kept(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        fastpop.experiment(Stops(), bundled_log(), out=tmp_path / "stops")
    assert sealed.read(tmp_path / "stops" / "seconds.json")["seconds"] > 0


def test_every_experiment_names_its_options_as_the_command_line_does():
    """A value of no type that an option has, one by one."""
    for name in fastpop.available("experiments"):
        study = registry.find("experiment", name)
        for option in study().options():
            with pytest.raises((ValueError, TypeError), match=rf"^{name}\.{option}: expected .*; got"):
                study(**{option: object()})
            if isinstance(study().options()[option], tuple):
                twice = (*(study().options()[option] or fastpop.available("encoders")[:1]),) * 2
                with pytest.raises(ValueError, match=rf"^{name}\.{option}: expected values that differ"):
                    study(**{option: twice})


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("convergence", {"shares": (0,)}, r"convergence\.shares: expected an integer >= 1 <= 100; got 0"),
        ("convergence", {"shares": ()}, r"convergence\.shares: expected at least one number; got \(\)"),
        ("baselines", {"only": ("nope",)}, r"baselines\.only: expected one of .*; got 'nope'"),
        ("encoders", {"encoders": ("nope",)}, r"encoders\.encoders: expected one of .*; got 'nope'"),
    ],
)
def test_what_an_experiment_cannot_do_is_said_before_it_begins(study, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        registry.find("experiment", study)(**options)
