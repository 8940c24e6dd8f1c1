"""Popularity's direction in a finished model's vectors, corrected by two numbers a user."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from fastpop import checks
from fastpop.data.interactions import Interactions
from fastpop.data.prepare import as_log
from fastpop.evaluation.models import Tables

FEWEST = 10  # items in each of the two sets that the direction is told from


def ddc(
    query: Any,
    items: Any,
    log: Any,
    *,
    share: float = 0.3,
    weight: float = 1e-4,
    learning_rate: float = 0.01,
    epochs: int = 100,
    seed: int = 0,
) -> Tables:
    """Directional decomposition and correction: q'_u = q_u + |q_u| (alpha_u pop + beta_u own_u).

    pop is the unit first axis of differences, frequent less rare item, pointing at frequent ones; own_u the
    unit mean direction of those of u's items that the model itself scores highest. alpha and beta, from 0 by
    Adam, minimise over events (u, i), with an item j drawn uniformly for each in every epoch, the mean of
    -log sigmoid(<q_u + |q_u| beta_u own_u, e_i> - <q_u + |q_u| alpha_u pop, e_j>)
    + weight (alpha_u^2 + beta_u^2): positives ask for preference alone, negatives for popularity alone.

    Args:
        query: [U, D], a row a user, of a model that is trained.
        items: [V, D], V >= 40.
        log: training events of these users and items.
        share: of a user's items that make own_u, in (0, 1]; at least one does.
        weight: of the squares, >= 0.
        learning_rate: of Adam, > 0.
        epochs: passes over the events, >= 1.
        seed: of pairs and negatives, whatever the number of threads.
    Returns:
        Tables: corrected queries beside the same items, for `evaluate`, `recommend` and `audit`.
    Raises: ValueError, TypeError.
    Cost: 2 N D FLOPs an epoch for N events; some N (3 D + 10) float32.
    Source: Liu et al., KDD 2026 (arXiv 2512.10688), and its code for share and weight. There counts chosen by
    log part frequent items from rare ones, here the quarters with the most and the fewest events; differences
    are centred there, which takes their mean out of pop and leaves its sign open, and are not here.
    """
    checks.number("share", share, gt=0, le=1)
    checks.number("weight", weight, ge=0)
    checks.number("learning_rate", learning_rate, gt=0, le=1e6)
    checks.number("epochs", epochs, ge=1, integer=True)
    checks.number("seed", seed, ge=0, le=2**63 - 1, integer=True)
    log = as_log(log)
    query_UD = _vectors("query", query, log.num_users)
    item_VD = _vectors("items", items, log.num_items)
    if query_UD.shape[1] != item_VD.shape[1]:
        raise checks.wrong("query", f"{item_VD.shape[1]} dimensions, as items", text=f"{query_UD.shape[1]}")
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        moved_UD = query_UD + _correction(query_UD, item_VD, log, share, weight, learning_rate, epochs, seed)
    if not moved_UD.isfinite().all():
        raise checks.wrong("query", "vectors whose products with items are finite in float32", text="others")
    return Tables(moved_UD, item_VD)


def _vectors(argument: str, value: Any, rows: int) -> Tensor:
    array = checks.float_array(argument, value, 2, np.float32)
    if len(array) != rows:
        raise checks.wrong(argument, f"{rows} rows, as the log has", text=f"{len(array)}")
    return torch.from_numpy(array.copy())


def _correction(
    query_UD: Tensor,
    item_VD: Tensor,
    log: Interactions,
    share: float,
    weight: float,
    learning_rate: float,
    epochs: int,
    seed: int,
) -> Tensor:
    """[U, D] |q_u| (alpha_u pop + beta_u own_u)."""
    user_N, item_N = (torch.tensor(one).long() for one in (log.user, log.item))
    random = torch.Generator().manual_seed(seed)
    popular_D = popular_direction(item_VD, torch.tensor(log.item_counts()), random)
    score_N = (query_UD[user_N] * item_VD[item_N]).sum(1)
    own_UD = own_directions(item_VD, user_N, item_N, score_N, len(query_UD), share)
    length_U = query_UD.norm(dim=1)
    own_N = length_U[user_N] * (own_UD[user_N] * item_VD[item_N]).sum(1)
    popular_V = item_VD @ popular_D
    both_2U = torch.zeros(2, len(query_UD), dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam([both_2U], lr=learning_rate)
    for _ in range(epochs):
        other_N = torch.randint(len(item_VD), item_N.shape, generator=random)
        behind_N = score_N - (query_UD[user_N] * item_VD[other_N]).sum(1)
        popular_N = length_U[user_N] * popular_V[other_N]
        with torch.enable_grad():
            alpha_N, beta_N = both_2U[:, user_N]
            ahead_N = behind_N + beta_N * own_N - alpha_N * popular_N
            loss = (weight * (alpha_N**2 + beta_N**2) - logsigmoid(ahead_N)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    alpha_U, beta_U = both_2U.detach()
    return length_U[:, None] * (alpha_U[:, None] * popular_D + beta_U[:, None] * own_UD)


def popular_direction(item_VD: Tensor, count_V: Tensor, random: torch.Generator) -> Tensor:
    """[D] the unit first axis of the differences of random pairs, a frequent item less a rare one."""
    order = count_V.argsort(stable=True)
    size = len(order) // 4
    if size < FEWEST:
        raise checks.wrong("items", f"at least {4 * FEWEST} items", text=f"{len(order)}")
    rare, frequent = (each[torch.randperm(size, generator=random)] for each in (order[:size], order[-size:]))
    apart_PD = item_VD[frequent] - item_VD[rare]
    axis_D = torch.linalg.svd(apart_PD.double(), full_matrices=False).Vh[0].float()
    return axis_D * torch.sign(axis_D @ apart_PD.mean(0))


def own_directions(
    item_VD: Tensor, user_N: Tensor, item_N: Tensor, score_N: Tensor, num_users: int, share: float
) -> Tensor:
    """[U, D] unit means of the directions of the best-scored share of each user's items; 0 without events."""
    order = score_N.argsort(descending=True, stable=True)
    order = order[user_N[order].argsort(stable=True)]  # by user, best first
    count_U = torch.bincount(user_N, minlength=num_users)
    place_N = torch.arange(len(order)) - (count_U.cumsum(0) - count_U)[user_N[order]]
    kept = order[place_N < (count_U * share).long().clamp(min=1)[user_N[order]]]
    total_UD = item_VD.new_zeros(num_users, item_VD.shape[1])
    total_UD.index_add_(0, user_N[kept], normalize(item_VD[item_N[kept]], dim=1))
    return normalize(total_UD, dim=1)
