"""A step of a trainer, compiled whole and under AMP: losses of plain steps, and nothing compiled twice."""

import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fastpop import optim
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

V, D, STEPS = 60, 8, 6
HEADS = {
    "sampled": lambda counts: SampledSoftmaxLoss.from_counts(counts, num_negatives=16),
    "full": FullSoftmaxLoss.from_counts,
}
AMP = {"float32": None, "bfloat16": torch.bfloat16, "float16, scaled": torch.float16}
MAKERS = {
    "RowAdam": lambda params: optim.RowAdam(params, lr=0.01),
    "RowAdagrad": lambda params: optim.RowAdagrad(params, lr=0.1),
    "in backward": lambda params: optim.RowSGD(params, lr=0.1, update_in_backward=True),
}


class Mixed(torch.nn.Module):
    """Tied items, and a product that autocast makes in half precision."""

    def __init__(self, head):
        super().__init__()
        self.items, self.mix, self.head = torch.nn.Embedding(V, D), torch.nn.Linear(D, D), head

    def forward(self, history, target):
        return self.head(self.mix(self.items(history).mean(1)), self.items.weight, target)


def trained(head, amp, make, compiled):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Mixed(HEADS[head](torch.arange(1, V + 1).numpy()))
    tables, dense = MAKERS[make]([model.items.weight]), torch.optim.SGD(model.mix.parameters(), lr=0.1)
    # A step that is made in backward has no gradient to unscale.
    scaler = torch.amp.GradScaler("cpu", enabled=amp == torch.float16 and make != "in backward")

    def step(history, target):
        with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
            loss = model(history, target)
        scaler.scale(loss).backward()
        for optimizer in (tables, dense):
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
        return loss.detach()

    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(step, backend=counter) if compiled else step
    losses, frames = [], []
    for rows in torch.randint(V, (STEPS, 32, 5), generator=torch.Generator().manual_seed(1)):
        losses.append(run(rows[:, :-1], rows[:, -1]).item())  # targets are a column: not contiguous
        frames.append(counter.frame_count)
    return losses, model.items.weight.detach().clone(), frames


OFTEN = {
    ("sampled", "float32", "RowAdam"),
    ("sampled", "float16, scaled", "RowAdagrad"),
    ("full", "bfloat16", "in backward"),
}
CASES = [
    pytest.param(*case, marks=() if case in OFTEN else pytest.mark.slow)
    for case in itertools.product(HEADS, AMP, MAKERS)
]


@pytest.mark.filterwarnings("error:.*non-contiguous", "error:.*lru_cache")
@pytest.mark.filterwarnings("ignore:.*not a leaf")  # torch's own
@pytest.mark.parametrize(("head", "amp", "make"), CASES)
def test_compiled_steps_are_plain_steps(head, amp, make):
    plain, plain_items, _ = trained(head, AMP[amp], make, compiled=False)
    losses, items, frames = trained(head, AMP[amp], make, compiled=True)
    assert len(set(plain)) == STEPS
    torch.testing.assert_close(losses, plain, rtol=2e-6, atol=0)
    torch.testing.assert_close(items, plain_items, rtol=1e-5, atol=1e-6)
    # The second step may be compiled anew, where a count that was 0 has become any number.
    assert frames[0] >= 1
    assert frames[-1] == frames[1] <= 3
