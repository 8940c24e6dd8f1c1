"""What a process of test_memory.py does beside others: python ... RANK WORLD STORE FOLDER OPTIONS."""

import json
import sys

import numpy as np
import torch.distributed as dist
from helpers_ranks import join

import fastpop
from fastpop.training import TrainConfig, memory


def status(name):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(name))


def main():
    """Trains, and prints [bytes that were taken, bytes that were counted]."""
    _, world = join(sys.argv)
    folder, asked = sys.argv[4], json.loads(sys.argv[5])
    num_items, num_users, num_events = (asked.pop(name) for name in ("items", "users", "events"))
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, num_users, num_events))
    item = (num_items * rng.random(num_events) ** 3).astype(np.int64)
    ids = {"user_ids": np.arange(num_users), "item_ids": np.arange(num_items)}
    log = fastpop.Interactions.from_arrays(user, item, np.arange(num_events), **ids)
    few = fastpop.Interactions.from_arrays(user[:100], item[:100] % 50, np.arange(100))
    options = {"epochs": 1, "split": "none", "num_negatives": 256, "progress": False, **asked}
    out = None if folder == "none" else folder
    fastpop.train(few, out=out and f"{out}/few", **{**options, "dim": 8})  # what is loaded and compiled once
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:  # the high-water mark starts anew
        file.write("5")
    fastpop.train(log, out=out and f"{out}/run", **options)
    took = status("VmHWM") - before
    config = TrainConfig(**{key: value for key, value in options.items() if key != "progress"})
    counted = memory.needed(config, log, kept_in_memory=out is None, processes=world)
    print(json.dumps([took, counted.total]), counted.words())
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main()
