"""What is refused: before a log is read where it can be, and nothing half-written stays of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import fastpop
from fastpop import cli, testing
from fastpop.encoders import EncoderOptions
from fastpop.item_towers import ItemTowerOptions
from fastpop.objectives import Objective
from fastpop.objectives.options import FullSoftmax
from fastpop.regularizers import RegularizerOptions
from fastpop.studies import Study
from fastpop.testing.training import QUICK
from fastpop.training import ranks

NO_VIEWS = "with the regularizer 'duorec', which compares two views that differ in dropout; got"


@dataclass(frozen=True)
class Refuses(FullSoftmax):
    """A full softmax that raises in step number `step`."""

    name: ClassVar[str] = "refuses"
    step: int = 0

    def build(self, given):
        module, own, steps = super().build(given), self.step, iter(range(10**9))

        def refuse(*_):
            if next(steps) == own:
                raise ValueError("rows: expected others; got these")

        module.register_forward_pre_hook(refuse)
        return module


@pytest.fixture
def refuses():
    with testing.registered("loss", Refuses):
        yield


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_refused_first_command_leaves_the_folder_to_the_corrected_one(tmp_path, capsys):
    log, out = tmp_path / "log", tmp_path / "run"
    testing.small_log().save(log)
    words = ["train", str(log), "--out", str(out), "--recipe", "dice", "--epochs", "1", "--permutations", "0"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--dim", "7"])
    assert "dim: expected an even number with loss='dice', which halves vectors; got 7" in (
        capsys.readouterr().err
    )
    assert not out.exists()
    cli.main([*words, "--dim", "8"])
    assert fastpop.load(out).config.dim == 8


def test_an_error_in_the_first_step_leaves_an_empty_folder(refuses, tmp_path):
    log, out = testing.small_log(), tmp_path / "run"
    for loss in (Refuses(), Refuses(step=3)):
        with pytest.raises(ValueError, match="rows: expected others"):
            fastpop.train(log, loss=loss, out=out, **QUICK)
        assert files_in(out) == []
    assert fastpop.train(log, out=out, **QUICK).metrics == fastpop.load(out).metrics


@dataclass(frozen=True)
class RefusesBesideNotes(FullSoftmax):
    """A full softmax whose first step finds that somebody left a file in the folder."""

    name: ClassVar[str] = "refuses-beside-notes"
    folder: str = ""

    def build(self, given):
        module = super().build(given)

        def refuse(*_):
            (Path(self.folder) / "notes.txt").write_text("mine")
            raise ValueError("rows: expected others; got these")

        module.register_forward_pre_hook(refuse)
        return module


def test_an_error_in_the_first_step_takes_nobody_else_s_file_along(tmp_path):
    log, out = testing.small_log(), tmp_path / "run"
    with (
        testing.registered("loss", RefusesBesideNotes),
        pytest.raises(ValueError, match="rows: expected others"),
    ):
        fastpop.train(log, loss=RefusesBesideNotes(folder=str(out)), out=out, **QUICK)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_error_after_a_checkpoint_leaves_the_run(refuses, tmp_path):
    log, out = testing.small_log(), tmp_path / "run"
    steps = -(-fastpop.train(log, loss="full_softmax", **QUICK).facts["training_rows"] // QUICK["batch_size"])
    options = QUICK | {"epochs": 2}
    with pytest.raises(ValueError, match="rows: expected others"):
        fastpop.train(log, loss=Refuses(step=steps), out=out, **options)
    assert "config.json" in files_in(out)
    with pytest.raises(ValueError, match=r"loss: expected .*as in the run in"):
        fastpop.train(log, loss="full_softmax", out=out, **options)


def test_a_comparison_that_is_refused_leaves_its_folder_to_another(refuses, tmp_path):
    log, out = testing.small_log(), tmp_path / "comparison"
    options = QUICK | {"seeds": 1, "arms": ["frozen"], "permutations": 10, "references": [], "out": out}
    with pytest.raises(ValueError, match="rows: expected others"):
        fastpop.compare(log, loss=Refuses(), **options)
    assert files_in(out) == []
    assert fastpop.compare(log, loss="full_softmax", **options).table()


@dataclass(frozen=True)
class Picky(Study):
    """Trains, or raises."""

    name: ClassVar[str] = "picky"
    question: ClassVar[str] = "Does it train?"
    trains: bool = False

    def run(self, setting):
        if self.trains:
            fastpop.train(setting.log, out=setting.part("model"), **QUICK)
        raise ValueError("setting: expected another; got this one")


def test_an_experiment_that_is_refused_leaves_its_folder_to_another(tmp_path):
    log, out = testing.small_log(), tmp_path / "answer"
    with pytest.raises(ValueError, match="setting: expected another"):
        fastpop.experiment(Picky(), log, out=out)
    assert not out.exists()
    with pytest.raises(ValueError, match="setting: expected another"):
        fastpop.experiment(Picky(trains=True), log, out=out)
    assert files_in(out)  # a model stands there: another question is another folder's
    with pytest.raises(ValueError, match=r"^picky.trains: expected True, as in the .*; got False$"):
        fastpop.experiment(Picky(), log, out=out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "sasrec", "dropout": 0.0}, rf"dropout: expected a number above 0 {NO_VIEWS} 0"),
        ({"encoder": "factor", "dropout": 0.0}, rf"dropout: expected a number above 0 {NO_VIEWS} 0"),
        ({"encoder": "gru4rec"}, rf"input_dropout or state_dropout: expected a number above 0 {NO_VIEWS} 0"),
        ({"encoder": "lightgcn"}, rf"encoder: expected one with dropout {NO_VIEWS} LightGCN\("),
    ],
)
def test_two_views_want_an_encoder_that_has_two(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fastpop.TrainConfig(regularizers=("duorec",), **options)
    fastpop.TrainConfig(regularizers=(fastpop.regularizers.DuoRec(weight=0.0),), **options)  # left out


def test_an_encoder_with_a_dropout_of_its_own_has_two_views():
    given = fastpop.encoders.gru4rec.GRU4Rec(state_dropout=0.1)
    assert fastpop.TrainConfig(encoder=given, regularizers=("duorec",)).encoder_part.varies


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "partitioned_softmax"},
        {"loss": "directau", "prior": "none"},
        {"loss": fastpop.objectives.BPRMax(negatives=0)},
        {"loss": fastpop.objectives.TOP1(negatives=0)},
        {"loss": fastpop.objectives.TOP1Max(negatives=0)},
        *({"loss": loss, "proposal": "in_batch"} for loss in ("bpr", "bce", "gbce", "bpr_max")),
        {"loss": "sampled_softmax", "proposal": "in_batch"},
        {"regularizers": ("simgcl",)},
        {"regularizers": ("duorec",)},
        {"regularizers": ("uniformity",)},
    ],
    ids=str,
)
def test_what_compares_rows_wants_two_of_them(options):
    """Otherwise the loss would be 0, and nothing learned, in silence."""
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 2 rows in a batch.*; got 1$"):
        fastpop.TrainConfig(batch_size=1, **options)
    fastpop.TrainConfig(batch_size=2, **options)


def test_a_part_of_a_batch_is_a_batch_to_what_compares_rows():
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 2 rows .*'uniformity'.*; got 1$"):
        fastpop.TrainConfig(batch_size=8, accumulate=8, regularizers=("uniformity",))
    fastpop.TrainConfig(batch_size=8, accumulate=4, regularizers=("uniformity",))


@pytest.mark.parametrize(
    "options",
    [
        {"loss": fastpop.objectives.BPRMax(negatives=4)},
        {"loss": "bpr"},
        {"loss": "sampled_softmax", "proposal": "in_batch", "extra_negatives": 4},
        {"regularizers": ("l2",)},
        {"regularizers": (fastpop.regularizers.Uniformity(weight=0.0),)},
    ],
    ids=str,
)
def test_one_row_is_enough_for_what_has_draws(options):
    fastpop.TrainConfig(batch_size=1, **options)


def test_checks_are_asked_of_parts_from_outside():
    @dataclass(frozen=True)
    class Wide(Objective):
        name: ClassVar[str] = "wide"

        def check(self, dim, rows, proposal):
            if dim < 8:
                raise ValueError(f"dim: expected at least 8; got {dim}")

        def build(self, given):
            raise NotImplementedError

    @dataclass(frozen=True)
    class Pairs(RegularizerOptions):
        name: ClassVar[str] = "pairs"
        compares_rows: ClassVar[bool] = True

        def build(self, given):
            raise NotImplementedError

    with pytest.raises(ValueError, match="dim: expected at least 8; got 4"):
        fastpop.TrainConfig(loss=Wide(), dim=4)
    with pytest.raises(ValueError, match=r"batch_size: expected at least 2 rows .*'pairs'"):
        fastpop.TrainConfig(regularizers=(Pairs(),), batch_size=1)


@dataclass(frozen=True)
class WholeLoss(Objective):
    name: ClassVar[str] = "of-the-whole"

    def build(self, given):
        raise NotImplementedError


@dataclass(frozen=True)
class WholeRegularizer(RegularizerOptions):
    name: ClassVar[str] = "reads-all"

    def build(self, given):
        raise NotImplementedError


@dataclass(frozen=True)
class WholeTower(ItemTowerOptions):
    name: ClassVar[str] = "of-neighbours"

    def build(self, sizes):
        raise NotImplementedError


@dataclass(frozen=True)
class WholeEncoder(EncoderOptions):
    name: ClassVar[str] = "with-a-tower"
    own_tower: ClassVar[bool] = True

    def build(self, sizes):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("part", "field", "ours", "message"),
    [
        (WholeLoss(), "loss", "entmax", r"one of items that lie in parts \(bce, .* got 'of-the-whole'$"),
        (WholeRegularizer(), "regularizers", "cosreg", "none that read vectors .* got 'reads-all'$"),
        (WholeTower(), "item_tower", "linear", "one that makes each item of its own .* 'of-neighbours'$"),
        (WholeEncoder(), "encoder", "lightgcn", "one whose item tower, .* got 'with-a-tower'$"),
    ],
)
def test_what_processes_cannot_share_is_refused_by_its_name(part, field, ours, message):
    ranks.check(fastpop.TrainConfig(**{field: ours}))
    with testing.registered(part.kind, type(part)):
        config = fastpop.TrainConfig(**{field: part})
        with pytest.raises(ValueError, match=f"^{field}: expected {message}"):
            ranks.check(config)
