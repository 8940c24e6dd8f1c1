"""What an approximate index of item vectors finds at each popularity weight."""

import numpy as np
import torch

from fastpop.studies.study import Table
from fastpop.training import TrainResult

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
K = 10
PROBED = 0.1  # of the lists


def recall_of_indexes(result: TrainResult, *, quick: bool = False) -> tuple[dict[str, float], Table]:
    """Recall of the exact top 10 by lists of similar items, a tenth of them probed.

    One index: vectors [e_i, log p(i)], asked with [h_c, beta] at every beta, built once. One index a beta:
    vectors [e_i, beta log p(i)]. Both are inverted lists over the vectors made equally long (Neyshabur &
    Srebro 2015), sqrt(V) lists, and look at a tenth of them.
    """
    decoder = result.model.decoder
    cases = result.split.test if result.split.test is not None else result.split.valid
    assert cases is not None
    cases = cases.take(np.arange(min(cases.num_cases, 100 if quick else 1000)))
    query_CD = result.model.encode(cases).detach().double().cpu().numpy() * float(decoder.scale.detach())
    item_VD = decoder.item_vectors().detach().double().cpu().numpy()
    log_prior_V = result.prior.log_prior_V
    once = Lists(np.column_stack([item_VD, log_prior_V]))
    rows = []
    found: dict[str, list[float]] = {"one_column": [], "one_each": []}
    for beta in BETAS:
        exact_CK = _top(query_CD @ item_VD.T + beta * log_prior_V)
        asked_CD = np.column_stack([query_CD, np.full(len(query_CD), beta)])
        each = Lists(np.column_stack([item_VD, beta * log_prior_V]))
        one = _recall(once.search(asked_CD), exact_CK)
        other = _recall(each.search(np.column_stack([query_CD, np.ones(len(query_CD))])), exact_CK)
        found["one_column"].append(one)
        found["one_each"].append(other)
        rows.append((f"{beta:g}", one, other))
    values = {f"index.{name}": float(np.mean(each)) for name, each in found.items()}
    return values, Table(
        "Recall of the exact top 10, a tenth of the lists probed",
        ("beta", "one index", "one a beta"),
        tuple(rows),
    )


class Lists:
    """Inverted lists for inner products: k-means over vectors with one coordinate more, which makes them
    equally long, so that the nearest are those of the largest product."""

    def __init__(self, item_VD: np.ndarray, *, seed: int = 0, rounds: int = 8) -> None:
        norm_V = np.linalg.norm(item_VD, axis=1)
        self.item_VD = item_VD
        long_VD = np.column_stack([item_VD, np.sqrt(np.maximum(norm_V.max() ** 2 - norm_V**2, 0))])
        rng = np.random.default_rng(seed)
        size = max(1, int(np.sqrt(len(item_VD))))
        centre_LD = long_VD[rng.choice(len(long_VD), size, replace=False)]
        for _ in range(rounds):
            list_V = _nearest(long_VD, centre_LD)
            count_L = np.bincount(list_V, minlength=size)
            sums_LD = np.zeros_like(centre_LD)
            np.add.at(sums_LD, list_V, long_VD)
            kept_L = count_L > 0
            centre_LD[kept_L] = sums_LD[kept_L] / count_L[kept_L, None]
        self.list_V = _nearest(long_VD, centre_LD)
        self.centre_LD = centre_LD[:, :-1]  # a query's own last coordinate is 0

    def search(self, query_CD: np.ndarray) -> np.ndarray:
        """[C, K] items of the largest product in the lists probed."""
        product_CL = query_CD @ self.centre_LD.T
        probed = max(1, round(PROBED * len(self.centre_LD)))
        chosen_CP = np.argpartition(-product_CL, probed - 1, axis=1)[:, :probed]
        open_CL = np.zeros(product_CL.shape, bool)
        np.put_along_axis(open_CL, chosen_CP, True, axis=1)
        return _top(np.where(open_CL[:, self.list_V], query_CD @ self.item_VD.T, -np.inf))


def _nearest(row_VD: np.ndarray, centre_LD: np.ndarray) -> np.ndarray:
    return np.argmin((centre_LD**2).sum(1) - 2 * row_VD @ centre_LD.T, axis=1)


def _top(score_CV: np.ndarray) -> np.ndarray:
    return torch.from_numpy(score_CV).topk(min(K, score_CV.shape[1])).indices.numpy()


def _recall(found_CK: np.ndarray, exact_CK: np.ndarray) -> float:
    return float(np.mean([np.isin(exact, found).mean() for found, exact in zip(found_CK, exact_CK)]))
