"""Metrics of where the targets stand, of all of them or of a part."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fastpop.evaluation import popularity_bias
from fastpop.evaluation.metric import Known, Metric, ratio

Some = Literal["head", "mid", "tail", "repeat", "new"]
OF_ITEMS: tuple[Some, ...] = ("head", "mid", "tail")  # popularity_bias.GROUPS
OF_HISTORY: tuple[Some, ...] = ("repeat", "new")
OF_PART = {
    "head": "among the most popular items that hold the first 20 % of training events",
    "mid": "among the items that hold the next 60 % of training events",
    "tail": "among the items with the last 20 % of training events, unseen ones included",
    "repeat": "that are in the history",
    "new": "that are not in the history",
}


class HitRate(Metric):
    name = "hr"
    label = "Hit rate"
    definition = "Share of cases with at least one target among the first k."
    formula = "1 if any target is hit"
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        targets = known.targets[""]
        return np.where(targets.size_C == 0, np.nan, targets.hits(k) > 0)


@dataclass(frozen=True)
class OfPart(Metric):
    """part: "" for all targets; "head", "mid" or "tail" of the items (by training counts), or those that
    "repeat" the history or are "new": the case's other targets are left out of the list."""

    section: ClassVar[str] = "accuracy"
    part: Literal["", "head", "mid", "tail", "repeat", "new"] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part:
            label = f"{self.part.capitalize()} {self.label if self.label.isupper() else self.label.lower()}"
            if self.part in OF_HISTORY:
                label = f"{self.label}, {'repeats' if self.part == 'repeat' else 'new'}"
            for name, value in {
                "name": f"{self.name}_{self.part}",
                "label": label,
                "section": self.part,
                "definition": f"{self.label} counting only targets {OF_PART[self.part]}.",
                "formula": "",
                "source": "",
                "needs": (*self.needs, "counts" if self.part in OF_ITEMS else "unmasked"),
            }.items():
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Recall(OfPart):
    name: ClassVar[str] = "recall"
    label: ClassVar[str] = "Recall"
    definition: ClassVar[str] = "Share of a case's targets among the first k."
    formula: ClassVar[str] = r"hits / \|T\|"

    def value(self, known: Known, k: int) -> Any:
        targets = known.targets[self.part]
        return ratio(targets.hits(k), targets.size_C)


class Precision(Metric):
    name = "precision"
    label = "Precision"
    definition = "Targets among the first k, divided by k."
    formula = "hits / k"
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        targets = known.targets[""]
        return np.where(targets.size_C == 0, np.nan, targets.hits(k) / k)


@dataclass(frozen=True)
class Ndcg(OfPart):
    name: ClassVar[str] = "ndcg"
    label: ClassVar[str] = "NDCG"
    definition: ClassVar[str] = (
        "Gain 1/log2(1 + position) of the targets among the first k, divided by the best possible."
    )
    formula: ClassVar[str] = r"Σ over hits 1/log2(1 + position) ÷ Σ_{j ≤ min(\|T\|, k)} 1/log2(1 + j)"
    source: ClassVar[str] = "Järvelin & Kekäläinen, ACM TOIS 20(4), 2002; binary gain"

    def value(self, known: Known, k: int) -> Any:
        targets = known.targets[self.part]
        gain = targets.total(1 / np.log2(1 + targets.position), k)
        largest = targets.size_C.max(initial=0)
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(largest)))])
        return ratio(gain, ideal[np.minimum(targets.size_C, k)])


class ReciprocalRank(Metric):
    name = "mrr"
    label = "MRR"
    definition = "1/position of the best target when among the first k, else 0."
    formula = "1/position of the best target if it is a hit, else 0"
    source = "Voorhees, TREC-8, 1999"
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        best_C = known.targets[""].best_C
        return np.where(np.isnan(best_C), np.nan, np.where(best_C < k + 1, 1 / best_C, 0.0))


class AveragePrecision(Metric):
    name = "map"
    label = "MAP"
    definition = "Precision at each target among the first k, averaged over min(targets, k)."
    formula = r"Σ over hits j/position_j ÷ min(\|T\|, k)"
    source = "Manning et al. 2008, ch. 8"
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        targets = known.targets[""]
        return ratio(targets.total(targets.nth / targets.position, k), np.minimum(targets.size_C, k))


class Rank(Metric):
    name = "rank"
    label = "Rank"
    definition = "Position of the best target, mean over cases; ties by halves."
    formula = "position of the best target"
    direction = "smaller"
    bounds = (0.0, math.inf)
    at_k = False
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        return known.targets[""].best_C


class Auc(Metric):
    name = "auc"
    label = "AUC"
    definition = "Chance that a target scores above an item that is none, ties by halves; mean over cases."
    formula = "P(target scores above an item of N) + P(equal)/2"
    source = "Rendle et al., UAI 2009"
    at_k = False
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        with np.errstate(invalid="ignore", divide="ignore"):
            missed = np.bincount(known.pair_case, known.ahead, known.num_cases)
            missed = missed / known.targets[""].size_C  # a mean
            return np.where(known.others_C > 0, 1 - missed / known.others_C, np.nan)


@dataclass(frozen=True)
class Nll(OfPart):
    name: ClassVar[str] = "nll"
    label: ClassVar[str] = "NLL"
    definition: ClassVar[str] = (
        "Mean -log probability of the target events under the softmax over the whole, unmasked catalogue, "
        "nats. Lower is better."
    )
    formula: ClassVar[str] = (
        "mean over target events of −log softmax(score)[target], nats, **unmasked** catalogue"
    )
    direction: ClassVar[Literal["larger", "smaller", ""]] = "smaller"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    at_k: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("logits",)

    def value(self, known: Known, k: int) -> Any:
        mine = known.targets[self.part].events
        assert known.event_nll is not None
        return ratio(
            np.bincount(known.event_case[mine], known.event_nll[mine], known.num_cases), self.size(known)
        )

    def size(self, known: Known) -> np.ndarray:
        return np.bincount(known.event_case[known.targets[self.part].events], minlength=known.num_cases)


class Perplexity(Metric):
    name = "perplexity"
    label = "Perplexity"
    definition = "exp(NLL)."
    formula = "exp(`nll`)"
    direction = "smaller"
    bounds = (0.0, math.inf)
    at_k = False
    per_case = False
    needs = ("logits",)
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        nll = known.mean(Nll())
        return math.exp(nll) if nll < 709 else math.inf


class PooledAuc(Metric):
    name = "pooled_auc"
    label = "Pooled AUC"
    definition = (
        "Chance that a target scores above a candidate that is none, over the pairs of all cases "
        "together; ties by halves."
    )
    formula = "AUC over all (case, item) pairs together"
    at_k = False
    per_case = False
    needs = ("candidates",)
    section = "accuracy"

    def value(self, known: Known, k: int) -> Any:
        assert known.pool is not None
        score, relevant = known.pool
        good, bad = int(relevant.sum()), int((~relevant).sum())
        if good == 0 or bad == 0:
            return math.nan
        rank = popularity_bias.mid_rank(score)
        return float((rank[relevant].sum() - good * (good + 1) / 2) / (good * bad))


@dataclass(frozen=True)
class TargetShare(Metric):
    """part: as in OfPart."""

    name: ClassVar[str] = "target_share"
    direction: ClassVar[Literal["larger", "smaller", ""]] = ""
    at_k: ClassVar[bool] = False
    per_case: ClassVar[bool] = False
    section: ClassVar[str] = "targets"
    part: Some = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in {
            "name": f"target_share_{self.part}",
            "label": f"Targets, {self.part}",
            "definition": f"Share of the target events whose items are those {OF_PART[self.part]}.".replace(
                "those among", "among"
            ),
            "needs": ("counts" if self.part in OF_ITEMS else "unmasked",),
        }.items():
            object.__setattr__(self, name, value)

    def value(self, known: Known, k: int) -> Any:
        weight = known.case_weight_C[known.event_case]
        return float((weight * known.targets[self.part].events).sum() / weight.sum())


ACCURACY: tuple[Metric, ...] = (
    HitRate(),
    Recall(),
    Precision(),
    Ndcg(),
    ReciprocalRank(),
    AveragePrecision(),
    Rank(),
    Auc(),
    Nll(),
    Perplexity(),
    PooledAuc(),
    *(metric for part in OF_ITEMS for metric in (Recall(part), Ndcg(part))),
    *(metric for part in OF_HISTORY for metric in (Recall(part), Ndcg(part), Nll(part))),
)
SHARES: tuple[Metric, ...] = tuple(TargetShare(part) for part in (*OF_ITEMS, *OF_HISTORY))
