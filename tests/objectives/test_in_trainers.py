"""The losses inside what other trainers do: compile, checkpoint, save, load, pickle, run in parallel."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint

from fastpop import ops, popularity
from fastpop.nn import Decoder, FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.ops.draw import seed_of

V, B, D = 50, 12, 6
COUNTS = np.arange(1, V + 1)
PRIOR = popularity.PopularityPrior.from_counts(COUNTS)
PROPOSAL = popularity.power(COUNTS, 0.75)


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(B, D, generator=generator),
        torch.randn(V, D, generator=generator),
        torch.randint(V, (B,), generator=generator),
    )


def sampled(prior=PRIOR, **options):
    return SampledSoftmaxLoss(prior, PROPOSAL, num_negatives=16, **options)


HEADS = {
    "shared": sampled,
    "groups": lambda **more: sampled(group_size=4, **more),
    "in batch": lambda **more: SampledSoftmaxLoss(PRIOR, popularity.InBatch.from_counts(COUNTS), **more),
    "in batch and draws": lambda **more: SampledSoftmaxLoss(
        PRIOR, popularity.InBatch.from_counts(COUNTS), extra=PROPOSAL, num_negatives=16, **more
    ),
}
DRAWING = [name for name in HEADS if name != "in batch"]


# ---- torch.compile

STEPS = {"int": int, "tensor": torch.tensor, "from 0": lambda step: step - 7}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("head", HEADS)
def test_any_step_without_compiling_again(head, kind):
    torch._dynamo.reset()
    draws = head != "in batch"
    head, given, counter = HEADS[head](), tensors(), CompileCounter()
    compiled = torch.compile(lambda step: head(*given, step=step), fullgraph=True, backend=counter)
    for step in range(7, 19):
        step = STEPS[kind](step)
        assert torch.equal(compiled(step), head(*given, step=step))
    # torch takes the first int for a constant, and the second for any.
    assert counter.frame_count == (2 if draws and kind != "tensor" else 1)


def test_ints_compile_once_where_torch_is_told_that_sizes_vary():
    torch._dynamo.reset()
    head, given, counter = sampled(), tensors(), CompileCounter()
    compiled = torch.compile(
        lambda step: head(*given, step=step), fullgraph=True, dynamic=True, backend=counter
    )
    for step in (3, 4, 5, 2**40):
        assert torch.equal(compiled(step), head(*given, step=step))
    assert counter.frame_count == 1


@pytest.mark.parametrize("head", HEADS)
def test_the_own_count_goes_on_in_a_compiled_module(head):
    torch._dynamo.reset()
    draws = head != "in batch"
    one, other, given, counter = HEADS[head](), HEADS[head](), tensors(), CompileCounter()
    compiled = torch.compile(one, fullgraph=True, backend=counter)
    for mode in (True, False, True):
        one.train(mode)
        other.train(mode)
        for _ in range(3):
            assert torch.equal(compiled(*given), other(*given))
    assert one.num_steps == other.num_steps == (6 if draws else 0)
    assert counter.frame_count == (2 if draws else 1)  # one for training, one for evaluation


def test_gradients_of_a_compiled_module_with_its_own_count():
    torch._dynamo.reset()
    one, other, (query, items, pos_id) = sampled(), sampled(), tensors()
    compiled = torch.compile(one, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        grads = []
        for head in (compiled, other):
            leaf = items.clone().requires_grad_()
            head(query, leaf, pos_id).backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("step", [-1, 2**64, 1.5, "3", True, torch.tensor([1, 2]), torch.tensor(1.0)])
def test_what_is_no_step_is_refused(step):
    with pytest.raises((ValueError, TypeError), match=r"^step: expected"):
        sampled()(*tensors(), step=step)


# ---- gradient checkpointing

WANTS_STEP = r"^step: expected the number of the draw where forward runs within backward"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("head", DRAWING)
def test_the_own_count_is_refused_where_checkpointing_draws_again(head, reentrant):
    head, (query, items, pos_id) = HEADS[head](), tensors()
    query.requires_grad_()
    loss = checkpoint(lambda rows: head(2 * rows, items, pos_id), query, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=WANTS_STEP):
        loss.backward()
    head.eval()
    loss = checkpoint(lambda rows: head(2 * rows, items, pos_id), query, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=WANTS_STEP):
        loss.backward()
    assert head.num_steps == 1


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_checkpointing_with_a_step_has_the_same_gradient(head, reentrant):
    draws, head, (query, items, pos_id) = head != "in batch", HEADS[head](), tensors()
    step = {"step": 5} if draws else {}  # without draws there is nothing to number
    plain, again = (query.clone().requires_grad_() for _ in range(2))
    head(2 * plain, items, pos_id, **step).backward()
    checkpoint(lambda rows: head(2 * rows, items, pos_id, **step), again, use_reentrant=reentrant).backward()
    assert torch.equal(plain.grad, again.grad)


def test_a_loss_made_in_a_hook_of_backward_wants_a_step():
    head, (query, items, pos_id) = sampled(), tensors()
    query.requires_grad_()
    query.register_hook(lambda grad: head(grad, items, pos_id) * 0 + grad)
    with pytest.raises(RuntimeError, match=WANTS_STEP):
        head(query, items, pos_id).backward()


# ---- state dicts


def test_log_p_is_in_the_state_dict_and_comes_back():
    for head, other in (
        (sampled(), sampled(np.full(V, -3.0))),
        (FullSoftmaxLoss(PRIOR), FullSoftmaxLoss(np.full(V, -3.0))),
    ):
        state = head.state_dict()
        assert torch.equal(state["log_prior_V"], head.log_prior_V)
        assert "log_proposal_V" not in state  # it is the proposal's
        assert not torch.equal(other(*tensors()), head(*tensors()))
        other.load_state_dict(state)
        if "num_steps" in state:
            head.num_steps.zero_()
            other.num_steps.zero_()
        assert torch.equal(other(*tensors()), head(*tensors()))


def old(head):
    """A state dict of before log p was kept, and its metadata."""
    state = head.state_dict()
    del state["log_prior_V"]
    state._metadata[""]["version"] = 1
    return state


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("make", [sampled, FullSoftmaxLoss], ids=["sampled", "full"])
def test_an_old_state_dict_leaves_log_p_as_it_is(make, strict):
    head, wrapped = make(PRIOR), torch.nn.Sequential(make(PRIOR))
    head.load_state_dict(old(head), strict=strict)
    state = {f"0.{name}": value for name, value in old(head).items()}  # bare, as safetensors has it
    wrapped.load_state_dict(state, strict=strict)
    for one in (head, wrapped[0]):
        np.testing.assert_array_equal(one.log_prior_V, PRIOR.log_prior_V.astype(np.float32))


@pytest.mark.parametrize("make", [sampled, FullSoftmaxLoss], ids=["sampled", "full"])
def test_strict_loading(make):
    head, without = make(PRIOR), make(None)
    state = head.state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*log_prior_V"):
        without.load_state_dict(state)
    without.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match=r"Missing key.*log_prior_V"):
        head.load_state_dict(without.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for log_prior_V"):
        head.load_state_dict(state | {"log_prior_V": torch.zeros(V + 1)})


@pytest.mark.parametrize("make", [sampled, FullSoftmaxLoss], ids=["sampled", "full"])
def test_fresh_memory_is_refused_until_a_state_dict_is_loaded(make):
    head = make(PRIOR)
    expected = head(*tensors())
    if "num_steps" in (state := head.state_dict()):
        state["num_steps"] = torch.tensor(0)
    empty = head.to("meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match=r"log_prior: expected numbers below \+inf, none NaN"):
        empty(*tensors())
    with pytest.raises(RuntimeError, match=r"Missing key.*log_prior_V"):
        empty.load_state_dict(old(make(PRIOR)))
    empty.load_state_dict(state)
    assert torch.equal(empty(*tensors()), expected)
    on_meta = make(PRIOR).to("meta")
    on_meta.load_state_dict(state, assign=True)
    assert torch.equal(on_meta.log_prior_V, state["log_prior_V"])


def test_a_loss_without_a_prior_needs_no_state():
    head = sampled(None)
    expected = head(*tensors(), step=0)
    assert torch.equal(head.to("meta").to_empty(device="cpu")(*tensors()), expected)


def test_a_decoder_on_fresh_memory_is_refused_too():
    decoder = Decoder(PRIOR.log_prior_V, D, prior="frozen").to("meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match="scale: expected a finite number > 0; got nan"):
        FullSoftmaxLoss()(*tensors(), **decoder.training_terms())
    assert decoder.log_prior_V.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("assign", [False, True])
def test_distributions_stay_float32_where_a_cast_state_dict_is_loaded(dtype, assign):
    for module in (sampled(), FullSoftmaxLoss(PRIOR), Decoder(PRIOR.log_prior_V, D)):
        state = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in module.state_dict().items()
        }
        module.load_state_dict(state, assign=assign)
        vectors = [vector for vector in module.buffers() if vector.is_floating_point()]
        assert vectors
        assert all(vector.dtype == torch.float32 for vector in vectors)
        assert torch.equal(module.log_prior_V, state["log_prior_V"].float())


# ---- copies


def as_once_pickled(head):
    """As a module without what was added since: the count of evaluations, rank, padding_idx."""
    state = head.__dict__ | {
        "_buffers": copy.deepcopy(head._buffers) | {"log_proposal_V": head.log_proposal_V.clone()},
        "_non_persistent_buffers_set": {"log_prior_V", "log_proposal_V"},
    }
    for name in ("rank", "padding_idx"):
        del state[name]
    del state["_buffers"]["num_eval_steps"]
    made = SampledSoftmaxLoss.__new__(SampledSoftmaxLoss)
    made.__setstate__(state)
    return made


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda head: pickle.loads(pickle.dumps(head)),
        as_once_pickled,
        lambda head: (
            file := io.BytesIO(),
            torch.save(head, file),
            file.seek(0),
            torch.load(file, weights_only=False),
        )[-1],
    ],
    ids=["deepcopy", "pickle", "of an earlier version", "torch.save"],
)
def test_a_copy_goes_on_as_the_module_would(copied):
    head = sampled()
    head(*tensors())
    other = copied(head)
    for mode in (True, False, True):
        head.train(mode)
        other.train(mode)
        assert torch.equal(head(*tensors()), other(*tensors()))
    assert other.state_dict().keys() == head.state_dict().keys()


# ---- several processes


def losses_of_rank(monkeypatch, rank, head):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: rank is not None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group=None: rank)
    return [head(*tensors(), step=step).item() for step in range(3)]


@pytest.mark.parametrize("head", DRAWING)
def test_processes_draw_negatives_of_their_own_unless_told(head, monkeypatch):
    alone, *ranks = (losses_of_rank(monkeypatch, rank, HEADS[head]()) for rank in (None, 0, 1, 2))
    assert ranks[0] == alone
    assert len({loss for losses in ranks for loss in losses}) == 9
    assert losses_of_rank(monkeypatch, 2, HEADS[head](rank=0)) == alone
    assert losses_of_rank(monkeypatch, None, HEADS[head](rank=2)) == ranks[2]


def test_in_batch_negatives_depend_on_no_rank(monkeypatch):
    assert losses_of_rank(monkeypatch, 3, HEADS["in batch"]()) == losses_of_rank(
        monkeypatch, 0, HEADS["in batch"]()
    )


def test_seeds_and_ranks_side_by_side_meet_nowhere():
    made = {seed_of(seed, rank) for seed in range(100) for rank in range(100)}
    assert len(made) == 100 * 100
    assert [seed_of(seed, 0) for seed in (0, 5, 2**63 - 1)] == [0, 5, 2**63 - 1]
    assert all(0 <= seed_of(2**63 - 1, rank) < 2**64 for rank in range(1000))
    counts = np.bincount(PROPOSAL.sample(seed_of(0, 1), 0, 20_000), minlength=V) / 20_000
    np.testing.assert_allclose(counts, np.exp(PROPOSAL.log_proposal_V), atol=0.01)
    with pytest.raises(ValueError, match="rank: expected an integer >= 0"):
        sampled(rank=-1)


def test_processes_that_torch_distributed_knows():
    code = """
import sys, numpy as np, torch, torch.distributed as dist
from fastpop import popularity
from fastpop.nn import SampledSoftmaxLoss
rank = int(sys.argv[1])
head = SampledSoftmaxLoss(None, popularity.uniform(1000), num_negatives=16)  # before there are processes
from torch.testing._internal.distributed.fake_pg import FakeStore
dist.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
torch.manual_seed(0)
print(head(torch.randn(3, 4), torch.randn(1000, 4), torch.arange(3)).item())
"""
    said = [
        subprocess.run([sys.executable, "-c", code, str(rank)], capture_output=True, text=True)
        for rank in (0, 3)
    ]
    assert [one.returncode for one in said] == [0, 0], said
    assert float(said[0].stdout) != float(said[1].stdout)


def test_training_in_inference_mode_first():
    """What a validation keeps must serve the training after it."""
    proposal = popularity.power(COUNTS, 0.5)
    head, (query, items, pos_id) = SampledSoftmaxLoss(None, proposal, num_negatives=8), tensors()
    with torch.inference_mode():
        head.eval()
        head(query, items, pos_id)
    head.train()
    query.requires_grad_()
    for reduction in ("mean", "none"):
        head(query, items, pos_id, reduction=reduction).sum().backward()


def test_warnings_are_errors_in_none_of_this():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = sampled()
        head(*tensors()).item()
        ops.full_softmax(*tensors()).sum().item()
