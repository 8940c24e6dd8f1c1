"""How methods are served, against the formula; areas and verdicts, against numbers made by hand."""

import math
import types
from dataclasses import asdict

import numpy as np
import pytest
import torch

import fastpop
from fastpop import evaluation
from fastpop.experiments.frontier import matched, mean_between
from fastpop.objectives import DICE, Pda
from fastpop.report import study_text
from fastpop.studies import Setting, frontier, methods
from fastpop.studies.baselines import undominated
from fastpop.studies.curves import Curves, verdict
from fastpop.studies.frontier import Frontier
from fastpop.studies.methods import Arena, Method, afterwards, halves, injected, over_beta, run_of
from fastpop.studies.run import Watch
from fastpop.testing import small_log
from fastpop.training import TrainConfig, build


def setting_of(folder=None, **options):
    return Setting(small_log(), "a small log", True, 1, folder, False, options)


@pytest.fixture(scope="module")
def arena():
    return Arena.of(setting_of(), metric="ndcg@10")


@pytest.fixture(scope="module")
def model(arena):
    config = arena.config.replace(prior="none", epochs=1)
    assembly = build.assemble(config, arena.log, arena.judged.train, arena.judged.log_prior_V)
    with torch.no_grad():
        assembly.model.decoder.item_embedding.normal_(generator=torch.Generator().manual_seed(3))
    return assembly.model.eval()


def matrix(family, weight, query):
    """[C, V] of the scores of a family; float32."""
    score = family.score(query, weight)
    if callable(score) and not isinstance(score, evaluation.DotScores):
        return score(slice(0, len(query))).float()
    bias = 0 if score.bias is None else score.bias
    return score.scale * score.query @ score.items.T + bias


def close(one, other):
    torch.testing.assert_close(one, torch.as_tensor(other, dtype=torch.float32), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def query(model):
    return torch.randn(7, model.decoder.dim, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def product(model, query):
    return model.decoder.scale.detach() * query @ model.decoder.item_vectors().detach().T


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0, 2.0])
def test_log_p_is_subtracted_from_what_is_trained(arena, model, query, product, weight):
    judged, log_prior = arena.judged, torch.tensor(arena.judged.log_prior_V, dtype=torch.float32)
    families = {family.name: family for family in afterwards(model, judged)}
    close(matrix(families["post-hoc"], weight, query), product + (weight - 1) * log_prior)
    close(matrix(over_beta("other")(model, judged)[0], weight, query), product + (weight - 1) * log_prior)
    close(matrix(families["standard"], 1.0, query), product)
    b = (log_prior - log_prior.mean()) / (log_prior - log_prior.mean()).norm()
    outer = product - (product @ b)[:, None] * b + weight * log_prior
    close(matrix(families["projected"], weight, query), outer)
    fitted = matrix(families["post-hoc-fitted"], weight, query) - product - weight * log_prior
    slope = fitted[0, 0] / log_prior[0]
    close(fitted, (slope * log_prior).expand(7, -1))


def test_a_model_trained_beside_log_p_is_served_with_as_much_of_it_as_asked(arena):
    config = arena.config.replace(prior="frozen")
    judged = arena.judged
    model = build.assemble(config, arena.log, judged.train, judged.log_prior_V).model.eval()
    query = torch.randn(5, model.decoder.dim, generator=torch.Generator().manual_seed(2))
    product = model.decoder.scale.detach() * query @ model.decoder.item_vectors().detach().T
    (family,) = over_beta("frozen")(model, judged)
    for weight in (0.0, 1.0, 1.5):
        close(matrix(family, weight, query), product + weight * torch.tensor(judged.log_prior_V).float())


def test_halves_of_dice_and_the_product_of_pda(arena, model, query, product):
    (dice,) = halves("DICE")(model, arena.judged)
    half = model.decoder.dim // 2
    scale, items = model.decoder.scale.detach(), model.decoder.item_vectors().detach()
    close(matrix(dice, 1.0, query), product)
    close(matrix(dice, 0.0, query), scale * query[:, :half] @ items[:, :half].T)
    (pda,) = injected("PDA", (0.0, 0.1))(model, arena.judged)
    counts = torch.tensor(np.maximum(arena.judged.counts_V, 0.5)).float()
    share = counts / float(arena.judged.counts_V.sum())
    close(matrix(pda, 0.3, query).exp(), (torch.nn.functional.elu(product) + 1) * share**0.3)


def rows_of(name, points, seed=0):
    return [
        {
            "arm": name,
            "seed": seed,
            "epochs": "best",
            "popularity_weight": float(place),
            "trained": place == 1,
            "values": {"arp@10": arp, "ndcg@10": ndcg, "coverage@10": 0.5, "epoch": 2.0},
        }
        for place, (arp, ndcg) in enumerate(points)
    ]


def test_the_area_between_two_curves_is_that_of_their_lines():
    base = rows_of("post-hoc", [(0.0, 0.0), (4.0, 0.4), (8.0, 0.4)])
    arm = rows_of("frozen", [(2.0, 0.2), (6.0, 0.6), (7.0, 0.3)])
    # Over 2..7: 0 up to 4, then a triangle to 6 of height .2, then a line to -.1 at 7.
    expected = (0.5 * 2 * 0.2 + 1 * (0.2 - 0.1) / 2) / 5
    (area,) = mean_between(base + arm, "post-hoc", "frozen", "best")
    assert area == pytest.approx(expected, rel=1e-12)
    away = rows_of("frozen", [(9.0, 0.2), (10.0, 0.6)])
    assert mean_between(base + away, "post-hoc", "frozen", "best") is None
    assert not matched(base + away, "post-hoc", ["frozen"], "best")
    lonely = rows_of("frozen", [(2.0, 0.2), (6.0, 0.6)], seed=1)
    assert mean_between(base + lonely, "post-hoc", "frozen", "best") is None


def test_curves_say_what_their_intervals_say():
    rows = []
    for seed, noise in enumerate((0.0, 0.001, -0.001, 0.0005)):
        rows += rows_of("post-hoc", [(1.0, 0.1), (5.0, 0.2 + noise)], seed)
        rows += rows_of("better", [(1.0, 0.2 + noise), (5.0, 0.3)], seed)
        rows += rows_of("in part", [(1.0, 0.1 + 30 * noise), (5.0, 0.3 + noise)], seed)
        rows += rows_of("post-hoc-fitted", [(7.0, 0.1), (9.0, 0.3)], seed)
    rows += [{**row, "epochs": "equal"} for row in rows]
    others = ("better", "in part", "post-hoc-fitted")
    references = {"popularity": {"ndcg@10": 0.25, "arp@10": 9.0}, "markov": {"ndcg@10": 0.2, "arp@10": 3.0}}
    curves = Curves(rows, references, others, others, "a log, 4 seeds")
    values = curves.values()
    assert values["best.better.area"] == pytest.approx(0.1, abs=1e-3)
    assert values["best.better.at 50"] == pytest.approx(0.1, abs=1e-3)
    assert [verdict(values, "best", arm) for arm in others] == [
        "better",
        "better in part",
        "shows no lists as popular",
    ]
    first, _, counts = curves.sentences(values)
    assert (
        "each at its own best epoch: better better; in part better in part; post-hoc-fitted shows no" in first
    )
    assert "popularity has the highest NDCG@10, 0.2500; above it as trained" in counts
    assert "better, in part and post-hoc-fitted" in counts
    assert [len(table.rows) for table in curves.tables(values)] == [5, 3, 5, 3]
    answer = {"experiment": "x", "log": "a log", "question": "?", "made_by": {}, "sentences": []}
    text = study_text({**answer, "tables": [asdict(table) for table in curves.tables(values)]})
    assert "±" in text
    assert max(map(len, text.splitlines())) <= 80
    chart = curves.charts("some")[0]
    assert [line.name for line in chart.series] == ["post-hoc", *others, "popularity", "markov"]
    assert chart.series[-1].dashed
    few = {f"best.better.at {level}": 1.0 for level in (25, 50, 75)}
    assert verdict(few, "best", "better") == "too few runs to say"


def test_who_is_not_beaten_in_both_by_anybody():
    def of(ndcg, arp):
        return [
            {"epochs": "best", "values": {"ndcg@10": ndcg + noise, "arp@10": arp + noise}}
            for noise in (0.0, 0.001, -0.001)
        ]

    found = {"a": of(0.3, 10.0), "b": of(0.2, 20.0), "c": of(0.1, 5.0), "d": of(0.2995, 10.0)}
    assert undominated(found) == ["a", "c", "d"]
    assert undominated({"a": of(0.3, 10.0)[:2]}) is None


def test_a_method_that_was_measured_is_not_trained_again(tmp_path, monkeypatch):
    setting = setting_of(tmp_path, epochs=1)
    arena = Arena.of(setting, metric="ndcg@10")
    laps = []
    object.__setattr__(setting, "lap", lambda: laps.append(1))
    method = Frontier().methods((0.1,))["ips"][0.5]
    assert (method.name, method.power) == ("ips", 0.5)
    rows = run_of(setting, arena, method, 0, "IPS-0.5")
    assert laps == [1]
    assert {(row["arm"], row["epochs"]) for row in rows} == {("IPS", "best"), ("IPS", "equal")}
    assert sum(row["trained"] for row in rows) == 2
    assert all(math.isfinite(row["values"]["ndcg@10"]) for row in rows)
    monkeypatch.setattr(methods, "fit_twice", None)
    assert run_of(setting, arena, method, 0, "IPS-0.5") == rows
    with pytest.raises(TypeError):
        run_of(setting, arena, method, 0, "IPS-1")


def test_weights_of_one_are_no_weights(tmp_path):
    """Where all items have equally many events every propensity is 1, and IPS is the standard model."""
    log = fastpop.Interactions.from_arrays(
        np.repeat(np.arange(60), 15), np.tile(np.arange(30), 30), np.arange(900)
    )
    setting = Setting(log, "flat", True, 1, None, False, {"epochs": 1, "split": "none"})
    arena = Arena.of(setting, metric="ndcg@10")
    cases = fastpop.data.split(log).test
    object.__setattr__(arena.judged, "test", cases)
    plain, weighted = (
        run_of(setting, arena, Method("m", {"prior": "none"}, over_beta("m"), power), 0)
        for power in (0.0, 1.0)
    )
    for one, other in zip(plain, weighted, strict=True):
        assert one["values"].keys() == other["values"].keys()
        for name in ("nll", "auc"):
            if name in one["values"]:
                assert one["values"][name] == pytest.approx(other["values"][name], rel=1e-5)
    assert sum("nll" in row["values"] for row in plain) == 1


def test_references_count_all_that_is_known_on_beauty(shared_data):
    log = fastpop.read_log(shared_data / "amazon-beauty-5core.seq.txt.gz", preset="sequence")
    setting = Setting(log, "Beauty", False, 1, None, False, {"encoder": "factor"})
    arena = Arena.of(setting, metric="ndcg@10")
    object.__setattr__(arena.judged, "test", fastpop.data.split(log).test)  # all cases, not some
    found = arena.references(("popularity",))["popularity"]
    assert found["recall@10"] == pytest.approx(0.0141, abs=5e-5)
    assert found["ndcg@10"] == pytest.approx(0.0063, abs=5e-5)


def test_the_time_of_processes_that_were_stopped_counts(tmp_path):
    first = Watch(tmp_path / "seconds.json")
    first.since -= 100
    assert 100 <= first.lap() < 110
    second = Watch(tmp_path / "seconds.json")
    assert 100 <= second.lap() < 110
    assert Watch(None).lap() < 10


def test_methods_take_the_options_of_their_sources_first_and_try_others():
    asked = Frontier(resn=(0.5, 0.25), ips=(0.25,), dice=(7.0, 3.0))
    found = asked.methods()
    config = {
        name: [TrainConfig().replace(**method.options) for method in tries.values()]
        for name, tries in found.items()
    }
    assert [str(config[name][0].loss) for name in ("pda", "dice")] == ["pda", "dice"]
    assert [each.regularizers[0].weight for each in config["resn"]] == [0.5, 0.25]
    assert [each.loss_part.margin for each in config["dice"]] == [7.0, 3.0]
    assert [each.loss_part.power for each in config["pda"]] == [0.1, 0.05, 0.2]
    assert [method.power for method in found["ips"].values()] == [0.25]
    served = found["pda"][0.05].serve
    assert served is found["pda"][0.05].judge
    assert {str(each.prior) for name in config for each in config[name] if name != "frozen"} == {"none"}
    for name, plain in (("dice", DICE().margin), ("pda", Pda().power)):
        assert next(iter(Frontier().methods()[name])) == plain  # what its source has comes first
    with pytest.raises(ValueError, match=r"^frontier\.dice: expected at least one number; got \(\)"):
        Frontier(dice=())
    with pytest.raises(ValueError, match=r"^frontier\.ips: expected .*; got -1"):
        Frontier(ips=(-1.0,))


def test_what_a_method_has_to_choose_is_what_validation_liked_best(tmp_path, monkeypatch):
    asked = []

    def run(setting, arena, method, seed, name):
        asked.append((name, seed))
        liked = {"pda-0.05": 0.3, "dice-3": 0.3, "dice-40.0000001": 0.4}.get(name, 0.1)
        return [{"valid": liked, "arm": name, "seed": seed}]

    class Said:
        def __init__(self, rows, *_):
            self.rows = rows

        def values(self):
            return {}

        def sentences(self, values):
            return []

        def tables(self, values):
            return [[(row["arm"], row["seed"]) for row in self.rows]]

        def charts(self, name):
            return ()

    monkeypatch.setattr(frontier, "run_of", run)
    monkeypatch.setattr(frontier, "Curves", Said)
    monkeypatch.setattr(
        frontier.Arena, "of", lambda *_, **__: types.SimpleNamespace(powers=(0.1,), references=dict)
    )
    setting = Setting(fastpop.testing.small_log(), "log", False, 2, None, False, {})
    answer = Frontier().run(setting)
    assert answer.values == {"pda.chosen": 0.05, "resn.chosen": 1e-4, "ips.chosen": 0.5, "dice.chosen": 3.0}
    kept = answer.tables[0]
    assert [row for row in kept if row[0].startswith(("pda", "dice"))] == [
        ("pda-0.05", 0), ("pda-0.05", 1), ("dice-3", 0), ("dice-3", 1)
    ]  # fmt: skip
    assert ("dice-40", 0) in asked
    assert ("dice-40", 1) not in asked
    asked.clear()  # two that print alike in six digits have a folder each, and the sentence says which
    answer = Frontier(dice=(40.0, 40.0000001), ips=(1e-7,)).run(setting)
    named = [name for name, seed in asked if seed == 0]
    assert len(named) == len(set(named))
    assert {"dice-40", "dice-40.0000001", "ips-1e-07"} <= set(named)
    assert "DICE's margin 40.0000001." in answer.sentences[-1]


@pytest.mark.parametrize("name", ["resn", "ips", "pda", "dice"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.5, -1.0), r"a finite number >= 0; got -1\.0"),
        ((float("nan"),), "a finite number; got nan"),
        ((float("inf"), 1.0), "a finite number; got inf"),
        ((1e39,), r"a number that float32 can hold; got 1e\+39"),
        ((1e-46,), "a number that float32 can hold; got 1e-46"),
        ((0.5, 0.25, 0.5), r"values that differ; got \(0\.5, 0\.25, 0\.5\)"),
        ((), r"at least one number; got \(\)"),
        (("a",), "a finite number; got str"),
        (0.5, "a tuple; got float"),
    ],
)
def test_values_to_try_are_numbers_that_differ_under_the_name_that_was_typed(name, values, said):
    with pytest.raises((ValueError, TypeError), match=rf"^frontier\.{name}: expected {said}$"):
        Frontier(**{name: values})
