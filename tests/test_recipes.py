"""Recipes: each trains from the command line and comes back; files and words say what they say."""

import pytest

import fastpop
from fastpop import cli, objectives, recipes, registry, testing
from fastpop.cli.parse import parse
from fastpop.recipes import Recipe

NAMES = fastpop.available("recipes")
SMALL = {"dim": 8, "max_length": 8, "epochs": 1, "batch_size": 1024}
MINE = Recipe(
    "mine",
    "a test's own",
    "this file",
    {"encoder": {"name": "sasrec", "hidden": 12, "num_layers": 3}, "prior": "none", "regularizers": ["l2"]},
)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_keep_their_contract(name):
    testing.check_recipe(name, in_a_run=False)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The bundled log's users and items of many events, as a prepared folder."""
    place = tmp_path_factory.mktemp("core") / "log"
    fastpop.data.bundled_log().k_core(10, 30).save(place)
    return place


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_from_the_command_line_and_comes_back(name, core, tmp_path, one_thread):
    out = tmp_path / "run"
    words = [f"--{option.replace('_', '-')}={value}" for option, value in SMALL.items()]
    cli.main(["train", str(core), "--recipe", name, "--out", str(out), "--permutations", "10", *words])
    found = fastpop.load(out)
    assert found.config == fastpop.TrainConfig.from_dict({"recipe": name, **SMALL})
    assert dict(found.evaluate().metrics) == dict(found.metrics)


def test_what_is_given_wins():
    assert fastpop.TrainConfig.from_dict({"recipe": "sasrec"}).num_heads == 1
    result = fastpop.train(
        testing.small_log(), recipe="factor", prior="frozen", base=True, dim=4, epochs=1, progress=False
    )
    assert (str(result.config.prior), result.config.base, result.config.dim) == ("frozen", True, 4)
    assert result.config.loss == "full_softmax"
    with pytest.raises(ValueError, match=r"recipe: expected none beside config="):
        fastpop.train(testing.small_log(), recipe="factor", config=fastpop.TrainConfig())
    with pytest.raises(ValueError, match=r"recipe: expected one of 'factor'.*did you mean 'sasrec'"):
        fastpop.train(testing.small_log(), recipe="sasrek")


def test_a_loss_by_name_has_its_own_number_of_negatives():
    """Not that of the sampled softmax, whatever that is."""
    for name, part in registry.all_of("loss").items():
        for given in ({}, {"num_negatives": 7}):
            config = fastpop.TrainConfig.from_dict({"loss": name, "prior": "none", **given})
            own = getattr(part(), "negatives", None)
            assert getattr(config.loss_part, "negatives", None) == own, name
    with pytest.warns(DeprecationWarning, match="num_negatives: expected its new name, negatives"):
        assert objectives.Pda(num_negatives=3).negatives == 3


def test_a_recipe_of_ones_own(tmp_path):
    with testing.registered("recipe", MINE):
        testing.check_recipe("mine")
        given = fastpop.TrainConfig.from_dict({"recipe": "mine", "num_layers": 1})
        assert (given.encoder_part.hidden, given.encoder_part.num_layers) == (12, 1)
        path = tmp_path / "run.toml"
        path.write_text('recipe = "mine"\n[train]\nepochs = 3\nnum_layers = 4\n')
        config = fastpop.TrainConfig.from_toml(path)
        assert (config.epochs, config.encoder_part.num_layers, config.encoder_part.hidden) == (3, 4, 12)
        words = ["train", "bundled", "--out", "x"]
        of_file = parse([*words, "--config", str(path)]).training.checked()
        assert of_file == config
        plain = parse([*words, "--recipe", "mine"]).training.checked()
        assert plain == fastpop.TrainConfig.from_dict(dict(MINE.options))
        over = parse([*words, "--config", str(path), "--num-layers", "2", "--prior", "frozen"])
        assert over.training.checked() == config.replace(num_layers=2, prior="frozen")
        inner = parse([*words, "--recipe", "mine", "--encoder.hidden", "16"]).training.checked()
        assert inner.encoder_part.hidden == 16
        assert inner.encoder_part.num_layers == 3
        path.write_text('recipe = "mine"\nencoder = "bag"\n')
        other = parse([*words, "--config", str(path)]).training.checked()
        assert other.encoder == fastpop.TrainConfig.from_toml(path).encoder == "bag"
        path.write_text('recipe = "mine"\n[encoder]\nhidden = 20\n')
        wider = parse([*words, "--config", str(path)]).training.checked().encoder_part
        assert (wider.hidden, wider.num_layers) == (20, 3)
    with pytest.raises(ValueError, match="recipe: expected one of"):
        recipes.find("mine")


def test_a_file_that_fills_in_a_part_keeps_the_rest_of_the_recipe():
    with testing.registered("recipe", MINE):
        options = {"recipe": "mine", "encoder": {"hidden": 20}}
        given = fastpop.TrainConfig.from_dict(options)
        beside = fastpop.TrainConfig.from_dict(options | {"num_layers": 1})
    assert (given.encoder_part.hidden, given.encoder_part.num_layers) == (20, 3)
    assert (beside.encoder_part.hidden, beside.encoder_part.num_layers) == (20, 1)


def test_a_comparison_leaves_the_priors_to_its_arms():
    parsed = parse(["compare", "bundled", "--out", "x", "--recipe", "sasrec"])
    assert parsed.training.checked().prior == fastpop.TrainConfig().prior
    assert parsed.training.checked().num_heads == 1
    result = fastpop.compare(
        testing.small_log(),
        recipe="factor",
        arms=["standard", "frozen"],
        seeds=1,
        permutations=10,
        epochs=1,
        dim=4,
        progress=False,
    )
    assert "frozen" in result.table()


def test_the_printed_file_runs_equally(tmp_path, capsys):
    cli.main(["recipe", "sasrec"])
    path = tmp_path / "sasrec.toml"
    path.write_text(capsys.readouterr().out)
    words = ["train", "bundled", "--out", "x"]
    assert parse([*words, "--config", str(path)]).training == parse([*words, "--recipe", "sasrec"]).training
    cli.main(["recipe"])
    shown = capsys.readouterr().out
    assert all(f"{name}: " in shown for name in NAMES)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": 3}, TypeError, r"recipe\.name: expected text"),
        ({"about": "a\nb"}, ValueError, r"recipe\.about: expected one line"),
        ({"source": ""}, ValueError, r"recipe\.source: expected one line"),
        ({"options": ["sasrec"]}, TypeError, r"recipe\.options: expected a dict"),
        ({"options": {"dim": None}}, TypeError, r"recipe\.options\['dim'\]: expected a number"),
        ({"options": {"a b": 1}}, ValueError, r"recipe\.options: expected names of options"),
    ],
)
def test_what_is_no_recipe_is_refused(change, error, message):
    good = {"name": "mine", "about": "one", "source": "here", "options": {}}
    with pytest.raises(error, match=message):
        Recipe(**good | change)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_layer": 3}, TypeError, r"^num_layer: expected an option of TrainConfig.*num_layers"),
        ({"dim": 7, "loss": "dice"}, ValueError, r"^dim: expected an even number"),
        ({"encoder": "sasrek"}, ValueError, r"^encoder: expected one of .*did you mean 'sasrec'"),
    ],
)
def test_errors_in_a_recipe_are_told_in_the_words_of_its_options_where_it_is_registered(
    options, error, message
):
    wrong = Recipe("wrong", "one", "here", options)
    for asked in (
        lambda: testing.check_recipe(wrong),
        lambda: fastpop.register("recipe", wrong),
        lambda: fastpop.train(testing.small_log(), recipe=wrong),
    ):
        with pytest.raises(error, match=message):
            asked()
    assert "wrong" not in fastpop.available("recipes")


def test_a_recipe_is_taken_as_an_object_too():
    """Registered or not, as every part is."""
    options = {"dim": 4, "epochs": 1, "progress": False}
    mine = Recipe("unregistered", "one", "here", {"prior": "none", "loss": "full_softmax"})
    for given in (mine, recipes.find("factor")):
        config = fastpop.train(testing.small_log(), recipe=given, **options).config
        assert (str(config.prior), str(config.loss)) == ("none", "full_softmax")
    found = fastpop.compare(
        testing.small_log(), recipe=mine, arms=["frozen"], seeds=1, permutations=10, **options
    )
    assert found.comparison["made_by"]["config"]["loss"] == "full_softmax"
    with pytest.raises(TypeError, match=r"^recipe: expected a name or a Recipe; got int$"):
        fastpop.train(testing.small_log(), recipe=3)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if recipes.find(name).options.get("encoder") == "factor"]
)
def test_a_vector_a_user_has_no_base_that_all_users_share_and_no_dropout(name):
    """The first would be an item bias, and none of these works has either."""
    part = fastpop.TrainConfig.from_dict({"recipe": name}).encoder_part
    assert (part.base, part.dropout) == (False, 0.0)


def test_a_file_and_a_command_name_one_recipe(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text('recipe = "sasrec"\n[train]\nepochs = 3\n')
    words = ["train", "bundled", "--out", "x", "--config", str(path)]
    assert parse([*words, "--recipe", "sasrec"]).training == parse(words).training
    with pytest.raises(SystemExit):
        cli.main([*words, "--recipe", "gsasrec"])
    assert (
        capsys.readouterr().err.strip()
        == f"fastpop: recipe: expected 'sasrec', which {path} names, or none beside it; got 'gsasrec'"
    )
