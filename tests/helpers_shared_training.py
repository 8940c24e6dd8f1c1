"""What a process of test_shared_training.py does: python ... RANK WORLD STORE FOLDER EPOCHS NAME ..."""

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from helpers_ranks import join

import fastpop
from fastpop.encoders import Bag, BERT4Rec, Factor, LightGCN, SASRec
from fastpop.item_towers import Linear
from fastpop.objectives import BPR, DICE, GBCE, BPRMax, ImportanceSampling, RelMf, TOP1Max
from fastpop.priors import ByPeriod
from fastpop.regularizers import Alignment, CosReg, ReSN, SimGCL, Uniformity

COMMON = {"dim": 8, "batch_size": 64, "progress": False, "evaluate_every": 1, "seed": 3}
RUNS = {
    "factor": {"encoder": Factor(dropout=0.0), "loss": "full_softmax", "prior": "frozen", "clip_norm": 0.5},
    "sasrec": {"encoder": SASRec(dropout=0.0), "num_negatives": 40, "prior": "learned", "accumulate": 2},
    "bag": {"encoder": Bag(dropout=0.0), "num_negatives": 40, "learn_temperature": True, "patience": 2},
    "bert4rec": {"encoder": BERT4Rec(dropout=0.0), "num_negatives": 40, "prior": "frozen"},
}
FACTOR = {"encoder": Factor(dropout=0.0)}
SASREC = {"encoder": SASRec(dropout=0.0)}
IN_BACKWARD = {
    "stepped factor": FACTOR | {"update_in_backward": True, "prior": "learned", "num_negatives": 40},
    "stepped bag": {"encoder": Bag(dropout=0.0), "update_in_backward": True, "loss": "bpr"},
}
# Losses whose rows name few items, and a log p for each period.
LOSSES = {
    "bpr": FACTOR | {"loss": BPR(negatives=3), "prior": "learned"},
    "bce": SASREC | {"loss": "bce", "accumulate": 2, "clip_norm": 0.5},
    "gbce": FACTOR | {"loss": GBCE(negatives=20), "learn_temperature": True},
    "dice": SASREC | {"loss": DICE(margin=5.0)},
    "pda": FACTOR | {"loss": "pda", "prior": ByPeriod(periods=3)},
    "top1_max": SASREC | {"loss": TOP1Max(negatives=30), "clip_norm": 0.5},
    "bpr_max": FACTOR | {"loss": BPRMax(negatives=0), "prior": "learned"},
    "bce in batch": FACTOR | {"loss": "bce", "proposal": "in_batch", "prior": "none"},
    "in batch": SASREC | {"proposal": "in_batch", "prior": "learned"},
    "in batch and more": FACTOR | {"proposal": "in_batch", "extra_negatives": 20, "logq": "corrected"},
    "directau": FACTOR | {"loss": "directau", "prior": "none"},
    "partitioned": SASREC | {"loss": "partitioned_softmax", "prior": "learned"},
    "entmax": SASREC | {"loss": "entmax", "prior": "learned", "accumulate": 2, "learn_temperature": True},
    "entmax by-period": FACTOR | {"loss": "entmax", "prior": ByPeriod(periods=4)},
    "importance": FACTOR
    | {"loss": ImportanceSampling(block=8, most=60, effective=9.0, rate=0.1), "prior": "learned"},
    "importance in parts": SASREC
    | {"loss": ImportanceSampling(block=16, most=64, effective=12.0), "accumulate": 2, "clip_norm": 0.5},
    "relmf": SASREC | {"loss": RelMf(negatives=7), "prior": "none"},
    "by-period": FACTOR | {"prior": ByPeriod(periods=4), "num_negatives": 40},
    "by-period-full": SASREC | {"prior": ByPeriod(periods=4), "loss": "full_softmax", "accumulate": 2},
}

# Without random numbers, or those of one process: SimGCL's noise is drawn alike everywhere.
REGULARIZERS = {
    "of rows": SASREC | {"regularizers": ("l2", Alignment(weight=0.3)), "num_negatives": 40, "accumulate": 2},
    "of a batch": FACTOR | {"regularizers": (Uniformity(weight=0.3), "l2"), "loss": "full_softmax"},
    "with noise": SASREC | {"regularizers": (SimGCL(weight=0.3),), "num_negatives": 40, "clip_norm": 0.5},
    "in a loss": FACTOR | {"regularizers": (Alignment(weight=0.3), Uniformity(of="items")), "loss": "bpr"},
}
# What all items are made of, or all read.
WHOLE_TABLES = {
    "of all items": FACTOR
    | {"regularizers": (CosReg(weight=0.5), ReSN(weight=0.1), "l2"), "num_negatives": 40, "accumulate": 2},
    "of all squares": SASREC | {"regularizers": CosReg(weight=0.5, squared=True), "loss": "bpr"},
    "linear": SASREC
    | {"item_tower": Linear(depth=2), "regularizers": ("l2", CosReg(weight=0.5)), "clip_norm": 0.5},
    "linear and bpr": FACTOR | {"item_tower": "linear", "loss": "bpr", "prior": "learned"},
    "lightgcn": {"encoder": LightGCN(layers=2), "loss": "full_softmax", "regularizers": "l2"},
    "lightgcn and bpr": {"encoder": LightGCN(layers=3), "loss": "bpr", "accumulate": 2, "clip_norm": 0.5},
    "lightgcn of none": {"encoder": LightGCN(layers=0), "num_negatives": 40},
}

DRAWN_APART = {"duorec": {"encoder": SASRec(dropout=0.2), "regularizers": "duorec", "num_negatives": 40}}


def log():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 40, 600))
    item = (rng.integers(0, 31, 600) * rng.random(600)).astype(int)
    return fastpop.Interactions.from_arrays(user, item, time=np.arange(600))


def run(name, out, epochs, **options):
    return fastpop.train(
        log(),
        out=out,
        epochs=epochs,
        **COMMON,
        **(RUNS | LOSSES | REGULARIZERS | IN_BACKWARD | WHOLE_TABLES | DRAWN_APART)[name],
        **options,
    )


def check_files(folder, model):
    """The finished model is the file that one process would write of it, and where the tables of all lie."""
    file = folder / "model.safetensors"
    assert safetensors.torch.save(model.state_dict()) == file.read_bytes()
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in safetensors.torch.load_file(file).items())
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if line.rstrip().endswith(str(file.resolve()))]
    table = model.decoder.item_embedding.data_ptr()
    places = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert any(first <= table < last for first, last in places)


def main():
    """The runs of these names, each to so many epochs, in folders of their names."""
    join(sys.argv)
    folder, epochs, *names = sys.argv[4:]
    found = {}
    for name in names:
        out = Path(folder) / name
        result = run(name, out, int(epochs), resume=out.exists())
        check_files(out / "model", result.model)
        if name == "factor":  # without a folder each process has the same, in memory
            alone = run(name, None, int(epochs)).model.state_dict()
            assert all(torch.equal(value, alone[key]) for key, value in result.model.state_dict().items())
        history = [dict(row) for row in result.history]
        found[name] = {"history": history, "metrics": dict(result.metrics)}
    print(json.dumps(found, default=float))
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main()
