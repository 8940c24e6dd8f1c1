"""The table of a part is read one way, from TOML, a dict or the command line's file."""

import pytest

from fastpop import TrainConfig
from fastpop.cli import parts, toml
from fastpop.training.config import name_and_options


def test_a_table_is_a_name_and_options():
    assert name_and_options("encoder", {"name": "sasrec", "num-layers": 3}) == ("sasrec", {"num_layers": 3})
    assert name_and_options("encoder", {"hidden": 8}) == (None, {"hidden": 8})


@pytest.mark.parametrize("table", ['{name = "sasrec", num-layers = 3}', '{name = "sasrec", num_layers = 3}'])
def test_both_readers_of_a_file_give_the_same_part(table, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(f'log = "log.csv"\nout = "run"\nencoder = {table}\n')
    options = toml.read_toml(path)
    config = TrainConfig.from_dict({"encoder": options["encoder"]})
    from fastpop.cli.train import Train

    train, of_parts, given = toml.defaults(Train, path, None)
    assert parts.filled(train.training, of_parts, given).num_layers == config.num_layers == 3


def test_a_name_that_is_no_string_is_named_by_both(tmp_path):
    from fastpop.cli.train import Train

    with pytest.raises(TypeError, match=r"^encoder\.name: expected a string; got int"):
        TrainConfig.from_dict({"encoder": {"name": 3}})
    path = tmp_path / "run.toml"
    path.write_text("encoder = {name = 3}\n")
    with pytest.raises(TypeError, match=r"run\.toml: encoder\.name: expected a string; got int"):
        toml.defaults(Train, path, None)
