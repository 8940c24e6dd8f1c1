"""Cases of sampled softmax with a set of negatives for each row or for a few: test_sampled_softmax.py adds
them to its own, so that one set of cases is for every implementation, here and on a GPU."""

from functools import partial

import torch

import fastpop


def each_with_a_set_for_each_row(cases):
    """The cases again, shared negatives rolled by a place a row."""
    return {
        f"{name}; a set for each row": partial(for_each_row, case)
        for name, case in cases.items()
        if not name.startswith("in-batch") and "a set for each row" not in name
    }


def for_each_row(case):
    inputs = case()
    neg_id, rows = inputs["neg_id"], len(inputs["query"])
    group_size = inputs.pop("group_size", None)
    if isinstance(neg_id, fastpop.Draw):
        neg_id = fastpop.Draw(neg_id.proposal, 3, 7, neg_id.num_negatives, 1)
    elif group_size is not None:
        neg_id = neg_id[torch.arange(rows) // group_size]
    elif neg_id.ndim == 1:
        neg_id = torch.stack([neg_id.roll(b) for b in range(rows)]) if rows else neg_id.expand(0, -1)
    return inputs | {"neg_id": neg_id}


def more(make, with_hits, with_draw):
    """Few rows share a set; rows of many lengths, as lanes of a warp read them; segments of the row sum."""

    def in_groups(size, **options):
        """Groups of `size` rows, the last one ragged; the first row of each finds its positive in it."""
        inputs = make(rows=8 * size + 1, shape="rows", **options)
        inputs["neg_id"] = inputs["neg_id"][:9].contiguous()
        inputs["neg_id"][:, 0] = inputs["pos_id"][::size]
        return inputs | {"group_size": size}

    def in_batch():
        inputs = make(rows=8)
        neg_id = torch.cat([inputs["pos_id"], inputs["neg_id"]])
        return inputs | {"neg_id": neg_id, "exclude_diagonal": True}

    def of_one_popular_item(**options):
        """Most entries name item 3: its segment spans many chunks of the row sum."""
        inputs = make(shape="rows", rows=90, negatives=70, **options)
        inputs["neg_id"][:, ::2] = 3
        inputs["pos_id"][::4] = 3
        return inputs

    return {
        "groups of 3, dropped": lambda: in_groups(3, accidental_hits="drop"),
        "groups of 8, corrected": lambda: in_groups(8, logq="corrected"),
        "drawn inside, groups of 8": lambda: with_draw(8),
        "in-batch, 8 rows": in_batch,
        "in-batch, 8 rows, corrected": lambda: in_batch() | {"logq": "corrected"},
        "8 lanes, 16-byte loads, D 64": lambda: with_hits(shape="rows", dim=64, accidental_hits="drop"),
        "8 lanes, 16-byte loads, D 96": lambda: with_hits(shape="rows", dim=96, logq="corrected"),
        "8 lanes, 16-byte loads, D 256": lambda: make(shape="rows", dim=256, spread=0.2),
        "32 lanes, 16-byte loads, D 264": lambda: make(shape="rows", dim=264, spread=0.2),
        "32 lanes, 16-byte loads, D 1024": lambda: make(shape="rows", dim=1024, spread=0.1, negatives=3),
        "32 lanes, number by number, D 301": lambda: make(shape="rows", dim=301, spread=0.2),
        "fewer negatives than a team has lanes": lambda: make(shape="rows", negatives=5),
        "negatives that end within 32": lambda: make(shape="rows", negatives=97),
        "a popular item": of_one_popular_item,
        "a popular item, D 1": lambda: of_one_popular_item(dim=1),
        "a popular item, D 256": lambda: of_one_popular_item(dim=256, spread=0.2),
    }
