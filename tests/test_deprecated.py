"""Old names: each one warns and gives what the new one gives; both at once are one clear error."""

import dataclasses
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import deprecated, ops, popularity, priors, registry, synthetic
from fastpop.objectives import SampledSoftmaxLoss
from fastpop.objectives.options import SampledSoftmax
from fastpop.training import TrainConfig, loop, sealed

SAVED = Path(__file__).parent / "training" / "config_with_hits.json"  # as version 0.1.0 wrote it
QUICK = {"epochs": 1, "dim": 4, "batch_size": 64, "num_negatives": 8, "progress": False}


def old(name):
    return pytest.warns(DeprecationWarning, match=rf"{name}: expected its new name, .*works for one release")


def tensors():
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, 4, generator=generator) for n in (6, 9))
    return query, items, torch.arange(6), torch.arange(9).repeat(2)


def test_hits_of_the_sampled_softmax():
    given = {"logq": "none", "reduction": "none"}
    expected = ops.sampled_softmax(*tensors(), accidental_hits="drop", **given)
    with old("hits"):
        found = ops.sampled_softmax(*tensors(), hits="drop", **given)
    assert torch.equal(found, expected)
    assert not torch.equal(found, ops.sampled_softmax(*tensors(), **given))
    with pytest.raises(ValueError, match=r"accidental_hits: expected one value, .* or as hits; got both"):
        ops.sampled_softmax(*tensors(), hits="drop", accidental_hits="drop", **given)


def test_exclude_own_slot():
    expected = ops.sampled_softmax(*tensors(), exclude_diagonal=True, logq="none")
    with old("exclude_own_slot"):
        found = ops.sampled_softmax(*tensors(), exclude_own_slot=True, logq="none")
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match=r"exclude_diagonal: expected one value, .* got both"):
        ops.sampled_softmax(*tensors(), exclude_own_slot=True, exclude_diagonal=True, logq="none")


def test_the_warning_names_the_line_that_uses_the_old_name():
    with pytest.warns(DeprecationWarning, match="hits") as caught:  # noqa: PT031 (one list of four warnings)
        ops.sampled_softmax(*tensors(), hits="drop", logq="none")
        SampledSoftmax(hits="drop")
        TrainConfig().replace(hits="drop")
        _ = TrainConfig().hits
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name] * 4


def test_old_names_in_a_compiled_function():
    call = torch.compile(
        lambda *given: ops.sampled_softmax(*given, hits="drop", logq="none"), fullgraph=True, backend="eager"
    )
    with old("hits"):
        found = call(*tensors())
    assert torch.equal(found, ops.sampled_softmax(*tensors(), accidental_hits="drop", logq="none"))


def test_hits_of_the_gathered_softmax():
    query, items, pos_id, neg_id = tensors()
    given = (query, items[pos_id], items[neg_id])
    ids = {"pos_id": pos_id, "neg_id": neg_id, "logq": "none"}
    expected = ops.gathered_softmax(*given, **ids, accidental_hits="drop")
    with old("hits"):
        assert torch.equal(ops.gathered_softmax(*given, **ids, hits="drop"), expected)
    with pytest.raises(ValueError, match="accidental_hits: expected one value"):
        ops.gathered_softmax(*given, **ids, hits="drop", accidental_hits="drop")


def test_hits_of_the_loss_module_and_of_one_that_was_pickled():
    proposal = popularity.uniform(9)
    new = SampledSoftmaxLoss(None, proposal, num_negatives=30, accidental_hits="drop")
    with old("hits"):
        before = SampledSoftmaxLoss(None, proposal, num_negatives=30, hits="drop")
    assert torch.equal(before(*tensors()[:3], step=0), new(*tensors()[:3], step=0))
    with old("SampledSoftmaxLoss.hits"):
        assert before.hits == "drop"
    state = dict(new.__dict__)
    state["hits"] = state.pop("accidental_hits")
    pickled = SampledSoftmaxLoss.__new__(SampledSoftmaxLoss)
    pickled.__setstate__(state)
    assert pickled.accidental_hits == "drop"
    with pytest.raises(ValueError, match="accidental_hits: expected one value"):
        SampledSoftmaxLoss(None, proposal, hits="drop", accidental_hits="drop")


def test_hits_of_the_loss_to_choose_from_and_of_its_record():
    with old("hits"):
        part = SampledSoftmax(hits="drop")
    assert part == SampledSoftmax(accidental_hits="drop")
    with old("SampledSoftmax.hits"):
        assert part.hits == "drop"
    record = registry.record(part)
    record["options"] = {"hits": record["options"].pop("accidental_hits"), **record["options"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.restored(record) == part
    with old("loss.hits"):
        assert registry.with_options(SampledSoftmax, {"hits": "drop"}, "loss") == part
    with pytest.raises(ValueError, match=r"loss.accidental_hits: expected one value"):
        registry.with_options(SampledSoftmax, {"hits": "drop", "accidental_hits": "drop"}, "loss")


def test_hits_of_a_configuration(tmp_path):
    expected = TrainConfig(accidental_hits="drop")
    with old("hits"):
        assert TrainConfig(hits="drop") == expected
    with old("hits"):
        assert TrainConfig().replace(hits="drop") == expected
    with old("hits"):
        assert TrainConfig.from_dict({"hits": "drop"}) == expected
    with old("TrainConfig.hits"):
        assert expected.hits == "drop"
    for text in ('hits = "drop"\n', '[loss]\nname = "sampled_softmax"\nhits = "drop"\n'):
        (tmp_path / "run.toml").write_text(text)
        with old("hits"):
            assert TrainConfig.from_toml(tmp_path / "run.toml") == expected
    for give in (TrainConfig, TrainConfig().replace):
        with pytest.raises(ValueError, match="accidental_hits: expected one value"):
            give(hits="drop", accidental_hits="drop")


def test_a_run_of_before_loads_and_goes_on(tmp_path):
    """Its config.json was written by version 0.1.0, its checkpoint counts looks."""
    out = tmp_path / "run"
    made = fastpop.train(small_log(), out=out, **QUICK, accidental_hits="drop")
    document = sealed.read(out / "config.json")
    before = sealed.read(SAVED) | {"log_sha256": document["log_sha256"]}
    assert set(before) - set(document) == {"hits"}
    assert "accidental_hits" in set(document) - set(before)  # and options that are newer
    sealed.write(out / "config.json", before)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        loaded = fastpop.load(out)
        longer = fastpop.train(
            small_log(), out=out, resume=True, **QUICK | {"epochs": 2}, accidental_hits="drop"
        )
    assert loaded.config == made.config
    assert len(longer.history) == 2
    with pytest.raises(ValueError, match="accidental_hits: expected 'drop', as in"):
        fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 3})


def test_a_checkpoint_of_before_counts_on():
    state = vars(loop.Progress(validations_since_best=3))
    state = {"looks_since_best" if name == "validations_since_best" else name: state[name] for name in state}
    assert loop.Progress.restored(state).validations_since_best == 3


def shown_config(*words):
    from fastpop.cli.parse import parse

    return parse(["train", "log.csv", "--out", "run", *words]).training.checked()


@pytest.mark.parametrize(
    "words", [["--hits", "drop"], ["--hits=drop"], ["--loss.hits", "drop"], ["--loss.hits=drop"]]
)
def test_hits_on_the_command_line(words):
    with old(".*hits"):
        assert shown_config(*words) == shown_config("--accidental-hits", "drop")


@pytest.mark.parametrize(
    "words",
    [
        ["--hits", "drop", "--accidental-hits", "drop"],
        ["--accidental-hits=drop", "--hits=drop"],
        ["--loss.hits", "drop", "--loss.accidental-hits", "drop"],
        ["--loss.hits", "drop", "--accidental-hits", "drop"],
        ["--loss.hits", "drop", "--hits", "drop"],
    ],
)
def test_both_names_on_the_command_line(words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ValueError, match=r"hits: expected (one value|nothing beside --accidental-hits)"):
            shown_config(*words)


@pytest.mark.parametrize("text", ['[train]\nhits = "drop"\n', '[loss]\nhits = "drop"\n'])
def test_hits_in_a_file_of_the_command_line(tmp_path, text):
    (tmp_path / "run.toml").write_text(text)
    with old(".*hits"):
        found = shown_config("--config", str(tmp_path / "run.toml"))
    assert found == shown_config("--accidental-hits", "drop")
    (tmp_path / "run.toml").write_text('[train]\naccidental_hits = "drop"\n' + text.replace("[train]\n", ""))
    with pytest.raises(
        (ValueError, TypeError), match=r"accidental_hits: expected (one value|an option once)"
    ):
        shown_config("--config", str(tmp_path / "run.toml"))


def test_the_command_line_shows_the_warning(monkeypatch, capsys, tmp_path):
    from fastpop import cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["train", "no-such-log.csv", "--out", "run", "--hits", "drop"])
    assert "--hits: expected its new name, --accidental-hits" in capsys.readouterr().err


def test_tau_of_a_prior_and_of_one_that_overrides_it():
    with old("Frozen.tau"):
        assert priors.Frozen(weight=0.5).tau == 0.5
    with old("Frozen.served_as_trained"):
        assert priors.Frozen(weight=0.5).served_as_trained == 0.5
    with old("Mine.tau"):

        @dataclasses.dataclass(frozen=True)
        class Mine(priors.Prior):
            name = "mine"

            @property
            def tau(self):
                return 0.25

    assert Mine().prior_weight == Mine().trained_popularity_weight == 0.25


def test_knobs_of_a_result():
    result = fastpop.train(small_log(), **QUICK)
    with old("TrainResult.knobs"):
        assert result.knobs(0.5) == result.serving_weights(0.5) == (0.5, 1.0)


def test_level_law():
    block = synthetic.paper_headline()
    with old("TwinBlock.level_law_L"):
        assert np.array_equal(block.level_law_L, block.level_probability_L)


def test_slot_law():
    with old("fastpop.popularity.slot_law"):
        assert popularity.slot_law is popularity.slot_log_proposal
    with old("fastpop.popularity.proposal.slot_law"):
        assert popularity.proposal.slot_law is popularity.slot_log_proposal
    with pytest.raises(AttributeError, match="has no attribute 'slot_laws'"):
        _ = popularity.slot_laws


def test_pickles_of_proposals_name_modules_of_before():
    from fastpop.ops.proposal_tensors import ProposalTensors

    arrays = {"log_proposal_V": np.zeros(3)}
    kept = pickle.dumps(ProposalTensors(arrays), protocol=0).decode()
    assert "fastpop.ops.proposal_tensors" in kept
    for module in ("fastpop.ops.law_tensors", "fastpop.popularity.law_tensors"):
        before = kept.replace("fastpop.ops.proposal_tensors", module).replace("ProposalTensors", "LawTensors")
        with old(f"{module}.LawTensors"):
            found = pickle.loads(before.encode())
        assert type(found) is ProposalTensors
        assert np.array_equal(found.arrays["log_proposal_V"], np.zeros(3))


def test_options_that_are_current_stay_as_they_are():
    given = json.loads('{"accidental_hits": "drop"}')
    assert deprecated.current(given, TrainConfig.RENAMED) == given


def test_the_warning_names_the_line_that_has_the_old_name(recwarn):
    fastpop.train(fastpop.testing.small_log(), hits="keep", encoder="factor", dim=4, epochs=1, progress=False)
    fastpop.TrainConfig(hits="keep")
    warned = [one for one in recwarn if one.category is DeprecationWarning]
    assert len(warned) == 2
    assert all(one.filename == __file__ for one in warned)
