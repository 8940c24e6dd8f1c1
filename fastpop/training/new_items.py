"""Items that came after training, where the item tower makes vectors of what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.data import ids as edge
from fastpop.evaluation.recommendations import Recommendations
from fastpop.item_towers import ItemTower
from fastpop.model import ServedModel

if TYPE_CHECKING:
    from fastpop.training.result import TrainResult


@dataclass(frozen=True, eq=False)
class NewItems:
    """Items that the log does not have.

    ids: [n]. vector_nD: of the item tower. log_p_n: what β multiplies.
    """

    ids: list[Any]
    vector_nD: Tensor
    log_p_n: Tensor

    @classmethod
    def of(cls, result: "TrainResult", new_items: Any, log_p: Any) -> "NewItems":
        """new_items: features by id. log_p: a number, or one an item; None: the least of the catalogue."""
        if not isinstance(new_items, Mapping) or not new_items:
            raise checks.wrong_type("new_items", "a dict from id to what the item tower reads", new_items)
        ids = edge.id_array("new_items", list(new_items))
        known = edge.find(result.log.item_ids, ids) >= 0
        if known.any() or ids.dtype.kind != result.log.item_ids.dtype.kind:
            kind = "strings" if result.log.item_ids.dtype.kind == "O" else "whole numbers"
            first = ids[known][0] if known.any() else ids[0]
            raise checks.wrong("new_items", f"ids that the log does not have, {kind} as its own", first)
        decoder = result.model.decoder
        tower = ItemTower() if decoder.tower is None else decoder.tower
        with torch.no_grad():
            vector_nD = tower.new_items(list(new_items.values()))
        checks.shape(f"{type(tower).__name__}.new_items", vector_nD, (len(ids), decoder.dim))
        term_V = decoder.popularity_term().detach()
        given = float(term_V.min()) if log_p is None else log_p
        log_p_n = np.broadcast_to(np.asarray(given, np.float32), len(ids))
        checks.float_array("new_log_p", log_p_n, 1)
        return cls(ids.tolist(), vector_nD.detach().float().to(term_V.device), torch.tensor(log_p_n))

    def scores(
        self, result: "TrainResult", served: ServedModel, query: Tensor | None, rows: int
    ) -> np.ndarray:
        """[rows, n] by the rule of the catalogue's. query: [rows, D]; None: of histories without an item."""
        if query is None:
            return np.broadcast_to((served.popularity_weight * self.log_p_n).numpy(), (rows, len(self.ids)))
        weight = served.popularity_weight - result.model.decoder.prior.offset
        return (
            query.float() @ self.vector_nD.T * served.scale()
        ).cpu().numpy() + weight * self.log_p_n.numpy()

    def may_show(
        self, num_cases: int, candidates: Any, allow: Any, deny: Any, histories: list[Any]
    ) -> np.ndarray:
        """[C, n] by the ids in these; a mask of the catalogue says nothing of them."""
        shown_n = np.ones(len(self.ids), bool)
        for given, keeps in ((allow, True), (deny, False)):
            if given is not None and not str(getattr(given, "dtype", "")).endswith("bool"):
                listed = set(np.asarray(given, dtype=object).tolist())
                shown_n &= np.array([(one in listed) == keeps for one in self.ids])
        shown_Cn = np.tile(shown_n, (num_cases, 1))
        for lists, keeps in ((candidates, True), (histories, False)):
            for case, row in enumerate(() if lists is None else lists):
                listed = set(row.tolist() if hasattr(row, "tolist") else row)
                shown_Cn[case] &= np.array([(one in listed) == keeps for one in self.ids])
        return shown_Cn

    def among(self, found: Recommendations, score_Cn: np.ndarray) -> Recommendations:
        """The lists with the new items where they belong; an equal one of the catalogue stands before."""
        k = found.item.shape[1]
        score = np.concatenate([found.score, score_Cn.astype(np.float32)], 1)
        item = np.concatenate([found.item, np.full(score_Cn.shape, None, dtype=object)], 1)
        item[:, k:] = self.ids
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        item, score = (np.take_along_axis(one, order, 1) for one in (item, score))
        item[score == -np.inf] = None
        return replace(found, item=item, score=score)
