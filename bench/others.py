"""Trainers of others with their own loss and with ours, as docs/embedding.md puts it in.

    .venv-others/bin/python bench/others.py                       # after make test-others; three seeds
    .venv-others/bin/python bench/others.py --trainers rectools-sasrec --seeds 1 --epochs 2 --length 20
    .venv-others/bin/python bench/others.py --read bench/records/others.json

The bundled log of 100,000 events, leave-last-out; the trainer's own recommendations (or, of RePlay, its
own scores) for every user that has a test event, seen items left out. NDCG@10 with one target a user; the
language model has the NLL of held-out users' items instead. Losses: the trainer's own, ours without log p,
ours with log p outside and served, its own with sampled negatives, ours with sampled negatives and log p.

Each run is a process of its own, so that its peak of resident memory is its own. Seconds an epoch are those
of the whole fit over its epochs, by the clock and of the cores: beside other work, those of the cores count.
Each run keeps the load average of the minute that it ended in.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"dim": 64, "blocks": 2, "heads": 2, "batch": 128}
TEMPERATURE = 0.05  # of HSTU's cosines
NEGATIVES = {"own": 128, "ours": 1024}  # RecTools has a set for each place, the others one a batch
LOSSES = ("own", "full", "log p", "own sampled", "sampled, log p")
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
QUIET |= {"enable_checkpointing": False, "accelerator": "cpu"}
PACKAGES = (
    "torch",
    "numpy",
    "rectools",
    "replay-rec",
    "lightning",
    "pytorch-lightning",
    "recbole",
    "transformers",
)
RECBOLE = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full"},
    "train_neg_sample_args": None,
    "use_gpu": False,
}


def adapters(package: str) -> dict[str, Any]:
    """What the page's adapters of a package define."""
    from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

    names: dict[str, Any] = {
        "__name__": "adapters",
        "FullSoftmaxLoss": FullSoftmaxLoss,
        "SampledSoftmaxLoss": SampledSoftmaxLoss,
    }
    page = (ROOT / "docs" / "embedding.md").read_text()
    for text in re.findall(rf"^```python {package} adapter\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(text, names)
    return names


def head_of(loss: str, counts: Any, **options: Any) -> Any:
    from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

    if loss == "sampled, log p":
        return SampledSoftmaxLoss.from_counts(counts, num_negatives=NEGATIVES["ours"], **options)
    return FullSoftmaxLoss.from_counts(counts, prior_weight=float(loss == "log p"), **options)


class Timed:
    """Seconds of what stands under it, by the clock and of the cores."""

    def __enter__(self) -> "Timed":
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *rest: Any) -> None:
        self.clock, self.cores = time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def ndcg(shown: list[list[int]], targets: list[int]) -> float:
    """Mean of 1 / log2(1 + rank) where the one target is among ten, else 0."""
    gains = [
        1 / math.log2(2 + row.index(target)) if target in row else 0.0
        for row, target in zip(shown, targets, strict=True)
    ]
    return statistics.fmean(gains)


# ---- trainers: each answers (quality, Timed)


def rectools(kind: str, loss: str, seed: int, epochs: int, length: int) -> tuple[float, Timed]:
    import pandas as pd
    import torch
    from rectools import models
    from rectools.dataset import Dataset

    import fastpop

    torch.manual_seed(seed)
    split = fastpop.data.split(fastpop.data.bundled_log(), "leave-last-out")

    def dataset_of(log: Any) -> tuple[Any, Any]:
        columns = {"user_id": log.user_ids[log.user], "item_id": log.item_ids[log.item], "weight": 1.0}
        events = pd.DataFrame({**columns, "datetime": pd.to_datetime(log.time, unit="s")})
        return Dataset.construct(events), events

    dataset, events = dataset_of(split.train)
    sizes = {"n_factors": SIZES["dim"], "n_blocks": SIZES["blocks"], "n_heads": SIZES["heads"]}
    sizes |= {"session_max_len": length, "batch_size": SIZES["batch"], "epochs": epochs}
    is_cosine = kind == "HSTUModel"  # over a temperature
    module: dict[str, Any] = {"logits_t": TEMPERATURE} if is_cosine else {}
    if loss.startswith("own"):
        own = {"loss": "sampled_softmax", "n_negatives": NEGATIVES["own"]} if "sampled" in loss else {}
        model = getattr(models, kind)(lightning_module_kwargs=module, **sizes, **own)
    else:
        names = adapters("rectools")

        class Head:  # what the adapter takes from its namespace, with the loss that is asked for
            @staticmethod
            def from_counts(counts: Any, **options: Any) -> Any:
                return (
                    head_of(loss, counts, seed=seed, **options)
                    if "sampled" in loss
                    else head_of(loss, counts, **options)
                )

        names["FullSoftmaxLoss"] = Head
        seen = events["item_id"].astype(str).value_counts().to_dict()
        model = getattr(models, kind)(
            loss="log p outside",
            lightning_module_type=names["CosineWithLogP" if is_cosine else "LogPOutside"],
            lightning_module_kwargs={"seen": seen, **module},
            similarity_module_kwargs={"distance": "dot"},
            **sizes,
        )
    with Timed() as timed:
        model.fit(dataset)
    known, _ = dataset_of(split.known)
    cases = split.test.with_targets()
    users = split.known.user_ids[cases.user]
    options: dict[str, Any] = {"k": 10, "filter_viewed": True, "on_unsupported_targets": "ignore"}
    if is_cosine:  # reads times, and is asked at that of the test event
        asked = pd.DataFrame({"user_id": users, "datetime": pd.to_datetime(cases.time, unit="s")})
        options["context"] = asked.assign(weight=1.0)
    # Of users whose history the trainer knows nothing of it says so, and recommends nothing: no hits.
    shown = model.recommend(users, known, **options)
    best = {user: list(rows) for user, rows in shown.sort_values("rank").groupby("user_id")["item_id"]}
    targets = split.known.item_ids[cases.target_item]
    return ndcg([best.get(user, []) for user in users], list(targets)), timed


def replay(loss: str, seed: int, epochs: int, length: int) -> tuple[float, Timed]:
    import lightning
    import numpy as np
    import torch
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.nn.lightning import LightningModule
    from replay.nn.loss import CESampled
    from replay.nn.sequential import SasRec
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import DataLoader

    import fastpop

    torch.manual_seed(seed)
    split = fastpop.data.split(fastpop.data.bundled_log(), "leave-last-out")
    train, num_items = split.train, split.train.num_items
    item = TensorFeatureInfo(
        "item_id",
        FeatureType.CATEGORICAL,
        is_seq=True,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        cardinality=num_items,
        embedding_dim=SIZES["dim"],
        padding_value=num_items,
    )
    kind = SasRec if loss.startswith("own") else adapters("replay")["LogPOutside"]
    model = kind.from_params(
        TensorSchema(item),
        embedding_dim=SIZES["dim"],
        num_heads=SIZES["heads"],
        num_blocks=SIZES["blocks"],
        max_sequence_length=length,
    )
    if loss == "own sampled":
        model.loss = CESampled()
        model.loss.logits_callback = model.get_logits
    elif loss != "own":
        model.loss = head_of(loss, train.item_counts(), **({"seed": seed} if "sampled" in loss else {}))

    def padded(rows: list[Any]) -> Any:
        tensors = [torch.as_tensor(np.array(row)).long() for row in rows]
        return pad_sequence(tensors, batch_first=True, padding_value=num_items, padding_side="left")

    generator = torch.Generator().manual_seed(seed)

    def batch(rows: list[Any]) -> dict[str, Any]:
        row_BL = padded(rows)
        is_there_BL = row_BL != num_items
        negative_K = torch.randperm(num_items, generator=generator)[: NEGATIVES["ours"]]
        return {
            "feature_tensors": {"item_id": row_BL[:, :-1]},
            "padding_mask": is_there_BL[:, :-1],
            "positive_labels": row_BL[:, 1:, None],
            "target_padding_mask": (is_there_BL[:, 1:] & is_there_BL[:, :-1])[..., None],
            "negative_labels": negative_K,
        }

    histories = [train.history(user)[-length - 1 :] for user in range(train.num_users)]
    loader = DataLoader(
        [row for row in histories if len(row) > 1], SIZES["batch"], shuffle=True, collate_fn=batch
    )
    trainer = lightning.Trainer(max_epochs=epochs, **QUIET)
    with Timed() as timed:
        trainer.fit(LightningModule(model), loader)
    model.eval()
    cases, shown = split.test.with_targets(), []
    with torch.no_grad():
        for start in range(0, len(cases), 512):
            some = range(start, min(start + 512, len(cases)))
            row_BL = padded([cases.history(case)[-length:] for case in some])
            found = model(feature_tensors={"item_id": row_BL}, padding_mask=row_BL != num_items)["logits"]
            for row, case in zip(found, some, strict=True):
                row[torch.as_tensor(np.array(cases.history(case)))] = -torch.inf
            shown += found.topk(10).indices.tolist()
    return ndcg(shown, cases.target_item.tolist()), timed


def recbole(loss: str, seed: int, epochs: int, length: int) -> tuple[float, Timed]:
    """Its rows are the places of every history, each by itself, at batches of its own size."""
    import numpy as np
    import pandas as pd
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import init_seed
    from torch.nn.utils.rnn import pad_sequence

    import fastpop

    split = fastpop.data.split(fastpop.data.bundled_log(), "leave-last-out")
    known, options = split.known, dict(RECBOLE)
    options |= {"seed": seed, "epochs": epochs, "MAX_ITEM_LIST_LENGTH": length}
    options |= {"hidden_size": SIZES["dim"], "n_layers": SIZES["blocks"], "n_heads": SIZES["heads"]}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes where it stands
        (Path(folder) / "log").mkdir()
        columns = {"user_id:token": known.user_ids[known.user], "item_id:token": known.item_ids[known.item]}
        events = pd.DataFrame({**columns, "timestamp:float": known.time})
        events.to_csv(f"{folder}/log/log.inter", sep="\t", index=False)
        options |= {"data_path": folder, "checkpoint_dir": folder}
        config = Config(model="SASRec", dataset="log", config_dict=options)
        dataset = create_dataset(config)
        train_data, _, _ = data_preparation(config, dataset)  # each user's last known event is held out
        init_seed(seed, True)
        names = adapters("recbole")
        model = names["SASRec" if loss == "own" else "LogPOutside"](config, train_data.dataset)
        tokens = dataset.field2id_token["item_id"]
        if loss != "own":
            counts = zip(split.train.item_ids, split.train.item_counts(), strict=True)
            sampled = {"seed": seed} if "sampled" in loss else {}
            by_id = {str(item): int(count) for item, count in counts}
            model.head = head_of(loss, by_id, item_ids=tokens, **sampled)
        with Timed() as timed:
            Trainer(config, model).fit(train_data, None, verbose=False, saved=False)
    row_of = {token: row for row, token in enumerate(tokens)}
    # An item that nobody had before the test has no row: no hit.
    rows_V = np.array([row_of.get(str(item), -1) for item in known.item_ids])
    cases, shown = split.test.with_targets(), []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(cases), 512):
            some = range(start, min(start + 512, len(cases)))
            histories = [torch.from_numpy(rows_V[np.array(cases.history(case))]) for case in some]
            lengths = torch.tensor([min(len(row), length) for row in histories])
            padded = pad_sequence([row[-length:] for row in histories], batch_first=True)
            padded = torch.nn.functional.pad(padded, (0, length - padded.shape[1]))
            found = model.full_sort_predict({model.ITEM_SEQ: padded, model.ITEM_SEQ_LEN: lengths})
            found[:, 0] = -torch.inf  # padding
            for row, history in zip(found, histories, strict=True):
                row[history] = -torch.inf
            shown += found.topk(10).indices.tolist()
    return ndcg(shown, rows_V[cases.target_item].tolist()), timed


def transformers(loss: str, seed: int, epochs: int, length: int) -> tuple[float, Timed]:
    """A GPT-2-like model over items; NLL of the next item for every tenth user, whom it has not seen."""
    import numpy as np
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    import fastpop

    torch.manual_seed(seed)
    log = fastpop.data.bundled_log()
    rows = [torch.as_tensor(np.array(log.history(user)[-length:])).long() for user in range(log.num_users)]
    rows = [row for row in rows if len(row) > 1]
    label_UL = pad_sequence(rows, batch_first=True, padding_value=-100)
    data = [{"input_ids": row.clamp(min=0), "labels": row} for row in label_UL]
    held_out, train = data[::10], [row for place, row in enumerate(data) if place % 10]
    seen = torch.cat([row["labels"][row["labels"] >= 0] for row in train])
    counts = torch.bincount(seen, minlength=log.num_items).numpy()
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=log.num_items,
            n_positions=length,
            n_embd=SIZES["dim"],
            n_layer=SIZES["blocks"],
            n_head=SIZES["heads"],
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    kind: Any = Trainer
    if loss != "own":
        names = adapters("transformers")
        kind = names["LogPOutside"]
        names["head"] = head_of(loss, counts, **({"seed": seed} if "sampled" in loss else {}))
        if "log p" in loss:
            model.lm_head.bias = torch.nn.Parameter(names["head"].served_bias(), requires_grad=False)
    arguments = TrainingArguments(
        os.environ.get("TMPDIR", "/tmp") + "/others-transformers",
        num_train_epochs=epochs,
        per_device_train_batch_size=SIZES["batch"],
        learning_rate=1e-3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        seed=seed,
    )
    trainer = kind(model, arguments, train_dataset=train)
    with Timed() as timed:
        trainer.train()
    model.eval()
    total = tokens = 0.0
    with torch.no_grad():
        for start in range(0, len(held_out), 64):
            part = held_out[start : start + 64]
            input_ids, labels = (torch.stack([row[name] for row in part]) for name in ("input_ids", "labels"))
            logits, target = model(input_ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            total += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
            tokens += float((target >= 0).sum())
    return total / tokens, timed


TRAINERS: dict[str, tuple[str, Callable[[str, int, int, int], tuple[float, Timed]], tuple[str, ...]]] = {
    "rectools-sasrec": ("NDCG@10", lambda *given: rectools("SASRecModel", *given), LOSSES),
    "rectools-bert4rec": ("NDCG@10", lambda *given: rectools("BERT4RecModel", *given), LOSSES),
    "rectools-hstu": ("NDCG@10", lambda *given: rectools("HSTUModel", *given), LOSSES),
    "replay-sasrec": ("NDCG@10", replay, LOSSES),
    "recbole-sasrec": ("NDCG@10", recbole, tuple(one for one in LOSSES if one != "own sampled")),
    "transformers-gpt2": ("NLL", transformers, tuple(one for one in LOSSES if one != "own sampled")),
}


NAMES = {
    "rectools-sasrec": "RecTools SASRec",
    "rectools-bert4rec": "RecTools BERT4Rec",
    "rectools-hstu": "RecTools HSTU",
    "replay-sasrec": "RePlay SasRec",
    "recbole-sasrec": "RecBole SASRec",
    "transformers-gpt2": "Hugging Face Trainer, a small GPT-2",
}


def worker(trainer: str, loss: str, seed: int, epochs: int, length: int) -> None:
    quality, timed = TRAINERS[trainer][1](loss, seed, epochs, length)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        "RESULT "
        + json.dumps(
            {
                "trainer": trainer,
                "loss": loss,
                "seed": seed,
                "epochs": epochs,
                "length": length,
                "quality": quality,
                "clock": timed.clock / epochs,
                "cores": timed.cores / epochs,
                "peak_mib": peak,
                "load": os.getloadavg()[0],
            }
        )
    )


def popularity() -> float:
    """NDCG@10 of ranking by training events."""
    import numpy as np

    import fastpop

    split = fastpop.data.split(fastpop.data.bundled_log(), "leave-last-out")
    order, cases = np.argsort(-split.train.item_counts(), kind="stable"), split.test.with_targets()
    shown = []
    for case in range(len(cases)):
        history = set(cases.history(case).tolist())
        best = (item for item in order.tolist() if item not in history)
        shown.append([next(best) for _ in range(10)])
    return ndcg(shown, cases.target_item.tolist())


def reach(values: list[float]) -> float:
    """The half width of the 95 % t interval of a mean over seeds; infinite for fewer than three."""
    if len(values) < 3:
        return math.inf
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def interval(values: list[float]) -> str:
    """Mean and, of three seeds and more, `reach`; "-" of none."""
    if not values:
        return "-"
    half = reach(values)
    return f"{statistics.fmean(values):.4f}" + (f" ± {half:.4f}" if math.isfinite(half) else "")


def is_better(measure: str, values: list[float], own: list[float]) -> bool:
    """Whether the whole interval is on the better side of the whole of another."""
    if not values or not own:
        return False
    gain = statistics.fmean(values) - statistics.fmean(own)
    return (-gain if measure == "NLL" else gain) > reach(values) + reach(own)


def grouped(record: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Runs by trainer and loss, trainers in the order of `TRAINERS`."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in sorted(record["runs"], key=lambda run: list(TRAINERS).index(run["trainer"])):
        groups.setdefault(run["trainer"], {}).setdefault(run["loss"], []).append(run)
    return groups


def merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Records of one machine, of other trainers each, as one."""
    first = records[0]
    for other in records[1:]:
        had, got = first["machine"]["versions"], other["machine"]["versions"]
        for name in ("processor", "cores", "threads"):
            check_same(name, first["machine"][name], other["machine"][name])
        for name in had.keys() & got.keys():
            check_same(f"the version of {name}", had[name], got[name])
    for record in records:  # of the time when all runs of a record had the same
        length = record["sizes"].pop("length", None)
        for run in record["runs"]:
            run.setdefault("length", length)
    machine = {
        **first["machine"],
        "load": max(one["machine"]["load"] for one in records),
        "versions": {name: text for one in records for name, text in one["machine"]["versions"].items()},
    }
    return {**first, "machine": machine, "runs": [run for one in records for run in one["runs"]]}


def check_same(name: str, first: Any, other: Any) -> None:
    if first != other:
        raise SystemExit(
            f"records of one machine are merged; {name} is {first} of the first, {other} of another"
        )


def summary(record: dict[str, Any]) -> str:
    """A markdown table with a line for each trainer; bold: the whole interval is better than the whole of the
    trainer's own loss, sampled beside sampled."""
    lines = [
        "| trainer, model | epochs, events | measure | its own loss | ours | ours, log p outside | "
        "its own, sampled | ours, sampled, log p outside | s an epoch, own → ours | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for trainer, by_loss in grouped(record).items():
        measure = TRAINERS[trainer][0]
        quality = {loss: [run["quality"] for run in by_loss.get(loss, [])] for loss in LOSSES}
        cells = [interval(quality[loss]) for loss in LOSSES]
        for loss, beside in (("log p", "own"), ("sampled, log p", "own sampled")):
            if is_better(measure, quality[loss], quality[beside]):
                cells[LOSSES.index(loss)] = f"**{interval(quality[loss])}**"
        own, ours = (
            [statistics.median(run[name] for run in by_loss[loss]) for name in ("cores", "peak_mib")]
            for loss in ("own", "log p")
        )
        run = by_loss["own"][0]
        lines.append(
            f"| {NAMES[trainer]} | {run['epochs']}, {run['length']} | {measure} | {' | '.join(cells)} "
            f"| {own[0]:.1f} → {ours[0]:.1f} | {own[1]:,.0f} → {ours[1]:,.0f} |"
        )
    return "\n".join(lines)


def render(record: dict[str, Any]) -> str:
    """A markdown table: a line for each trainer and loss."""
    lines = [
        f"Popularity alone: NDCG@10 {record['popularity']:.4f}.",
        "",
        "| trainer | loss | seeds, epochs, events | quality | s an epoch, clock | of the cores | load | "
        "peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = [(trainer, loss, runs) for trainer, by in grouped(record).items() for loss, runs in by.items()]
    for trainer, loss, runs in groups:
        middle = {
            name: statistics.median(run[name] for run in runs) for name in ("clock", "cores", "peak_mib")
        }
        loads = [run["load"] for run in runs if "load" in run]
        lines.append(
            f"| {trainer} | {loss} | {len(runs)}, {runs[0]['epochs']}, {runs[0]['length']} "
            f"| {TRAINERS[trainer][0]} {interval([run['quality'] for run in runs])} "
            f"| {middle['clock']:.1f} | {middle['cores']:.1f} "
            f"| {f'{statistics.median(loads):.1f}' if loads else '-'} | {middle['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    from importlib import metadata

    import neighbours

    return {
        "processor": neighbours.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many"),
        "python": platform.python_version(),
        "load": list(os.getloadavg()),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trainers", default=",".join(TRAINERS), help="names, by commas")
    parser.add_argument("--losses", default=";".join(LOSSES), help="names, by semicolons")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--length", type=int, default=50, help="the most events of a history")
    parser.add_argument("--record", type=Path, default=ROOT / "bench" / "records" / "others.json")
    parser.add_argument("--go-on", action="store_true", help="runs that are in --record are not made again")
    parser.add_argument("--read", type=Path, nargs="+", help="prints records as a table")
    parser.add_argument("--merge", type=Path, nargs="+", help="writes records of one machine as --record")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        trainer, loss, *numbers = given.worker
        return worker(trainer, loss, *map(int, numbers))
    if given.read:
        record = merged([json.loads(path.read_text()) for path in given.read])
        return print(f"{render(record)}\n\n{summary(record)}")
    if given.merge:
        record = merged([json.loads(path.read_text()) for path in given.merge])
        given.record.write_text(json.dumps(record, indent=1) + "\n")
        return None
    record: dict[str, Any] = {
        "machine": machine(),
        "sizes": SIZES,
        "negatives": NEGATIVES,
        "popularity": popularity(),
        "runs": [],
    }
    if given.go_on:
        record = merged([json.loads(given.record.read_text()), record])
    done = {(run["trainer"], run["loss"], run["seed"]) for run in record["runs"]}
    for trainer in given.trainers.split(","):
        for seed in range(given.seeds):
            for loss in (one for one in given.losses.split(";") if one in TRAINERS[trainer][2]):
                if (trainer, loss, seed) not in done:
                    record["runs"].append(run_of(trainer, loss, seed, given.epochs, given.length))
                    given.record.write_text(json.dumps(record, indent=1) + "\n")
    print(render(record))


def run_of(trainer: str, loss: str, *numbers: int) -> dict[str, Any]:
    """One run, in a process of its own."""
    words = [trainer, loss, *map(str, numbers)]
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--worker", *words], capture_output=True, text=True
    )
    found = re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"{words}: {done.stderr[-2000:]}")
    print(found[0], flush=True)
    return json.loads(found[0])


if __name__ == "__main__":
    main()
