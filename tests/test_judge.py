"""evaluate, audit and recommend of anybody's model: what is the same model gives the same numbers."""

import warnings

import numpy as np
import pytest
import torch

import fastpop
from fastpop.data import Cases
from fastpop.evaluation import DotScores, evaluate, popularity_scorer

V, U, D, C = 23, 12, 4, 9


class Model(torch.nn.Module):
    """score = 2 <q, e> + b; a dropout that must be off."""

    def __init__(self, query, items, bias):
        super().__init__()
        self.query, self.table, self.added = (
            torch.nn.Parameter(torch.tensor(one)) for one in (query, items, bias)
        )
        self.dropout = torch.nn.Dropout(0.9)

    def queries(self, cases):
        return self.dropout(self.query[torch.tensor(cases.user)])

    def items(self):
        return self.table

    def item_bias(self):
        return self.added

    def scale(self):
        return 2.0


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return rng.standard_normal((U, D)), rng.standard_normal((V, D)), rng.standard_normal(V)


@pytest.fixture
def counts():
    return np.random.default_rng(1).zipf(1.5, V).clip(max=99).astype(float)


@pytest.fixture
def cases():
    rng = np.random.default_rng(2)
    order = [rng.permutation(V) for _ in range(9)]
    return Cases.of(
        [one[:3].tolist() for one in order], [one[3:5].tolist() for one in order], V, user=np.arange(9) + 2
    )


def models(tables):
    """The same scores in every form."""
    query, items, bias = tables
    return {
        "tables": (2 * query, items, bias),
        "object": Model(*tables),
        "function": lambda cases: 2 * query[cases.user] @ items.T + bias,
        "torch": lambda cases: torch.tensor(2 * query[cases.user] @ items.T + bias),
    }


FORMS = ("tables", "object", "function", "torch")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_judged_alike(form, tables, cases, counts):
    model = models(tables)[form]
    score_CV = 2 * tables[0][cases.user] @ tables[1].T + tables[2]
    want = evaluate(score_CV, cases, counts=counts, ks=[1, 5])
    got = fastpop.evaluate(model, cases, counts=counts, ks=[1, 5])
    assert got.metrics.keys() == want.metrics.keys()
    for name, value in want.metrics.items():
        assert got.metrics[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_every_form_recommends_the_best_items(form, tables, cases, exclude_seen):
    score_CV = 2 * tables[0][cases.user] @ tables[1].T + tables[2]
    found = fastpop.recommend(models(tables)[form], cases, k=4, exclude_seen=exclude_seen)
    assert found.user.tolist() == cases.user.tolist()
    for c, items in enumerate(found.item.tolist()):
        left = [i for i in np.argsort(-score_CV[c]) if not (exclude_seen and i in cases.history(c))]
        assert items == left[:4]
        assert found.score[c] == pytest.approx(score_CV[c, items], rel=1e-6)
    assert found.table().splitlines()[0] == "top 4 items"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_audited_alike(form, tables, cases, counts):
    query, items, bias = tables
    want = fastpop.audit(2 * query[cases.user], items, counts, bias=bias, permutations=50)
    got = fastpop.audit(models(tables)[form], counts=counts, cases=cases, permutations=50)
    assert got.energy_total == pytest.approx(want.energy_total, rel=1e-9)
    assert got.fraction_shared == pytest.approx(want.fraction_shared, rel=1e-9)
    assert got.p_value_shared == want.p_value_shared
    assert got.lists.mean_count == pytest.approx(want.lists.mean_count)


def test_scores_of_more_cases_than_items_are_factored_by_items(tables, counts):
    query, items, bias = tables
    many = Cases.of([[]] * 40, [[]] * 40, V, user=np.arange(40) % U)
    got = fastpop.audit(models(tables)["function"], counts=counts, cases=many, permutations=0)
    want = fastpop.audit(2 * query[many.user], items, counts, bias=bias, permutations=0)
    assert got.dim == V
    assert got.energy_shared == pytest.approx(want.energy_shared, rel=1e-9)


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was(tables, cases):
    model = Model(*tables).train()
    first = fastpop.recommend(model, cases, k=3).item
    assert model.training
    np.testing.assert_array_equal(first, fastpop.recommend(model, cases, k=3).item)
    model.eval()
    fastpop.evaluate(model, cases)
    assert not model.training


def test_tables_without_cases(tables, counts):
    query, items, _ = tables
    assert (
        fastpop.audit((query, items), counts=counts, permutations=20).to_dict()
        == fastpop.audit(query, items, counts, permutations=20).to_dict()
    )
    found = fastpop.recommend((query, items), [3, 0], k=2)
    assert found.item.tolist() == np.argsort(-(query[[3, 0]] @ items.T), 1)[:, :2].tolist()


def test_a_log_gives_ids_and_histories(tables):
    log = fastpop.data.Interactions.from_arrays(["b", "a", "a"], ["x", "y", "z"], ordered=False)
    query, items = np.ones((2, 1)), np.array([[3.0], [2.0], [1.0]])
    found = fastpop.recommend((query, items), ["b", "a"], k=3, log=log)
    assert found.item.tolist() == [["y", "z", None], ["x", None, None]]
    assert found.user.tolist() == ["b", "a"]
    assert fastpop.recommend((query, items), "a", k=1, log=log, exclude_seen=False).item.tolist() == [["x"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(3)
    log = fastpop.data.Interactions.from_arrays(
        np.repeat(np.arange(40), 8), np.concatenate([rng.permutation(30)[:8] for _ in range(40)])
    )
    place = tmp_path_factory.mktemp("judge") / "run"
    return fastpop.train(log, encoder="factor", dim=4, epochs=1, prior="frozen", out=place), place


def test_a_run_and_its_folder_are_what_their_methods_say(run):
    result, place = run
    assert result.evaluate().metrics == result.metrics
    users = result.log.user_ids[:4]
    for model in (result, place, str(place)):
        assert fastpop.evaluate(model).metrics == result.metrics
        assert fastpop.evaluate(model, "valid", popularity_weight=0.0).metrics == pytest.approx(
            result.evaluate("valid", popularity_weight=0.0).metrics, nan_ok=True
        )
        top = fastpop.recommend(model, users, k=3, popularity_weight=0.5)
        want = result.recommend(users, k=3, popularity_weight=0.5)
        np.testing.assert_array_equal(top.item, want.item)
        np.testing.assert_array_equal(top.score, want.score)
        assert top.table() == want.table()
        with pytest.warns(UserWarning, match="audit: log p has no direction here"):
            audits = fastpop.audit(model, permutations=20), result.audit(permutations=20)
        assert audits[0].to_dict() == audits[1].to_dict()


def test_a_recommender_is_a_model_served_as_trained(run):
    result, _ = run
    test = result.split.test
    got = fastpop.evaluate(result.model, test, counts=result.split.train.item_counts())
    assert got.metrics == result.metrics
    assert fastpop.evaluate(result, test).metrics == result.metrics
    again = fastpop.evaluate(result.served(0.0), test, counts=result.split.train.item_counts())
    assert again.metrics == result.evaluate(popularity_weight=0.0).metrics
    assert fastpop.evaluate(result, test, mask_seen=False).rule != result.evaluate().rule


def test_what_is_of_the_cases_already_is_taken_as_it_is(tables, cases, counts):
    query, items, bias = tables
    dots = DotScores(query[cases.user], items, bias)
    want = fastpop.evaluate((query, items, bias), cases).metrics
    assert fastpop.evaluate(dots, cases).metrics == want
    dense = fastpop.evaluate(query[cases.user] @ items.T + bias, cases).metrics
    assert dense["ndcg@10"] == pytest.approx(want["ndcg@10"])
    popular = fastpop.evaluate(popularity_scorer(counts), cases)
    assert popular.metrics == evaluate(popularity_scorer(counts), cases).metrics
    np.testing.assert_array_equal(
        fastpop.recommend(popularity_scorer(counts), cases, k=1, exclude_seen=False).item[:, 0],
        counts.argmax(),
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda q, e, c, n: fastpop.evaluate((q, e), "test"), "cases: expected fastpop.data.Cases"),
        (lambda q, e, c, n: fastpop.evaluate((q,), c), r"model: expected \(query, items\)"),
        (lambda q, e, c, n: fastpop.evaluate((q[:3], e), c), r"cases.user: expected ids in \[0, 3\)"),
        (lambda q, e, c, n: fastpop.evaluate((q[0], e), c), r"model.query: expected shape \[U, D\]"),
        (lambda q, e, c, n: fastpop.evaluate((q, e, e), c), r"model.bias: expected shape \[V\]"),
        (lambda q, e, c, n: fastpop.evaluate(None, c), "model: expected a run or its folder"),
        (
            lambda q, e, c, n: fastpop.recommend((q, e[:, :2]), c),
            r"model\.items\(\): expected shape \[V, 4\]",
        ),
        (lambda q, e, c, n: fastpop.recommend((q, e), c, popularity_weight=1.0), "popularity_weight: exp"),
        (lambda q, e, c, n: fastpop.recommend(lambda cases: q, [1]), "cases: expected Cases"),
        (lambda q, e, c, n: fastpop.audit((q, e)), "counts: expected"),
        (lambda q, e, c, n: fastpop.audit(lambda cases: q, counts=n), "cases: expected fastpop.data.Cases"),
        (lambda q, e, c, n: fastpop.audit(q, e, n, cases=c), "cases: expected None beside vectors"),
        (lambda q, e, c, n: fastpop.audit(q), r"items: expected \[V, D\] beside vectors"),
    ],
)
def test_an_error_names_what_is_wrong(call, words, tables, cases, counts):
    with pytest.raises((TypeError, ValueError), match=words):
        call(*tables[:2], cases, counts)


class Queries:
    """Half of a `DotModel`."""

    def __init__(self, query, items):
        self.query, self.table = query, items

    def queries(self, cases):
        return self.query[cases.user.copy()]  # torch warns of a read-only index


class Whole(Queries):
    factor: object = 2.0

    def items(self):
        return self.table

    def scale(self):
        return self.factor


class Items(torch.nn.Module):
    def items(self):
        return np.eye(3)

    def forward(self, x):
        return x


class Scaled(Whole):
    def __init__(self, query, items, factor):
        super().__init__(query, items)
        self.factor = factor


class OneQuery(Whole):
    def queries(self, cases):
        return self.query[0]


HALF = r"model: expected an object with both queries\(cases\) and items\(\) .*; got"
VERBS = {
    "evaluate": lambda model, cases, counts: fastpop.evaluate(model, cases),
    "recommend": lambda model, cases, counts: fastpop.recommend(model, cases),
    "audit": lambda model, cases, counts: fastpop.audit(model, counts=counts, cases=cases, permutations=0),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda q, e: Queries(q, e), rf"{HALF} Queries, which has no method items\(\)$"),
        (lambda q, e: Items(), rf"{HALF} Items, which has no method queries\(cases\)$"),
        (lambda q, e: [q, e], r"model: expected a tuple, \(query, items\) or .*; got a list of 2$"),
        (
            lambda q, e: Whole,
            r"model: expected a run or its folder, .*; got the class Whole; make one: Whole\(",
        ),
        (lambda q, e: Scaled(q, e, -1.0), r"model\.scale\(\): expected a finite number > 0; got -1\.0$"),
        (lambda q, e: Scaled(q, e, 0.0), r"model\.scale\(\): expected a finite number > 0; got 0\.0$"),
        (lambda q, e: Scaled(q, e, "a"), r"model\.scale\(\): expected a finite number; got str$"),
        (lambda q, e: OneQuery(q, e), rf"model\.queries\(cases\): expected shape \[{C}, D\]; got float64 "),
        (lambda q, e: Whole(q, e[:3]), rf"model\.items\(\): expected shape \[{V}, D\]; got float64 "),
        (lambda q, e: Whole(q, e[:, :2]), r"model\.items\(\): expected shape \[V, \d\]; got float64 "),
        (lambda q, e: lambda cases: q, rf"model\(cases\): expected shape \[{C}, {V}\]; got float64 "),
        (lambda q, e: lambda cases: None, r"model\(cases\): expected a torch tensor or numpy array; got"),
    ],
)
def test_a_model_that_is_none_is_told_in_the_words_of_its_author(verb, model, words, tables, cases, counts):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        VERBS[verb](model(*tables[:2]), cases, counts)


@pytest.mark.parametrize("model", [lambda q, e: Whole(q, e), lambda q, e: (q, e), lambda q, e: "run"])
def test_counts_in_the_place_of_items_are_refused(model, tables, counts):
    with pytest.raises(TypeError, match=r"^items: expected None beside a model; counts= .*; got float64 \["):
        fastpop.audit(model(*tables[:2]), counts)


@pytest.mark.parametrize("verb", VERBS)
def test_what_has_a_gradient_is_judged_without_a_warning(verb, tables, cases, counts):
    query, items = (torch.nn.Parameter(torch.tensor(one)) for one in tables[:2])
    plain = VERBS[verb](Whole(*tables[:2]), cases, counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Scaled(query, items, torch.nn.Parameter(torch.tensor(2.0)))
        found = VERBS[verb](model, cases, counts)
        VERBS[verb]((query, items), cases, counts)
    figures = {"evaluate": "metrics", "recommend": "item", "audit": "energy_shared"}
    np.testing.assert_equal(getattr(found, figures[verb]), getattr(plain, figures[verb]))


def test_a_module_of_layers_with_such_names_scores_by_forward(tables, cases):
    class Scorer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.items = torch.nn.Embedding(V, 2)

        def forward(self, cases):
            return torch.ones(cases.num_cases, V)

    assert fastpop.evaluate(Scorer(), cases).metrics
