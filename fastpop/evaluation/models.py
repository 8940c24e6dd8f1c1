"""Anybody's model as scores of cases: two tables, an object with queries and items, or a function."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.evaluation.dot_scores import DotScores
from fastpop.model import ServedModel
from fastpop.types import DotModel

KINDS = (
    "a run or its folder, (user table, item table), an object with queries(cases) and items(), or a "
    "function of Cases"
)


@dataclass(frozen=True, eq=False)
class CaseScores:
    """Scores of the cases that they were made for: called with a slice of their numbers, gives [b, V].
    argument: what an error about them is to name."""

    of: Callable[[slice], Any]
    argument: str = "score(slice)"

    def __call__(self, rows: slice) -> Any:
        return self.of(rows)


@dataclass(frozen=True, eq=False)
class Tables:
    """score(u, i) = <query[u], table[i]> + bias[i], from two arrays: a `DotModel`.

    query: [U, D], a row a user; cases.user says which. table: [V, D]. bias: [V] nats, or None.
    """

    query: Any
    table: Any
    bias: Any = None

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        for name, ndim in (("query", 2), ("table", 2), ("bias", 1)):
            value = getattr(self, name)
            if value is not None:
                value = checks.array_like(f"model.{name}", value)
                checks.shape(f"model.{name}", value, ("U" if name == "query" else "V", "D")[:ndim])
                object.__setattr__(self, name, value)

    def queries(self, cases: Cases) -> Any:
        """Raises ValueError for a user without a row."""
        checks.ids_in_range("cases.user", cases.user, len(self.query))
        # torch warns of a read-only array as an index
        user = torch.tensor(cases.user) if isinstance(self.query, torch.Tensor) else cases.user
        return self.query[user]

    def items(self) -> Any:
        return self.table

    def item_bias(self) -> Any:
        return self.bias


def as_model(model: Any) -> Any:
    """The model as it is, but for (query, items) or (query, items, bias), which become `Tables`."""
    if isinstance(model, tuple):
        if len(model) not in (2, 3):
            raise checks.wrong(
                "model", "(query, items) or (query, items, bias)", text=f"{len(model)} of them"
            )
        return Tables(*model)
    if isinstance(model, type):
        raise checks.wrong_type(
            "model", KINDS, text=f"the class {model.__name__}; make one: {model.__name__}(...)"
        )
    if isinstance(model, list) and any(np.ndim(part) == 2 for part in model if part is not None):
        raise checks.wrong_type(
            "model", "a tuple, (query, items) or (query, items, bias)", text=f"a list of {len(model)}"
        )
    if model is None or isinstance(model, (str, bytes, dict, int, float)):
        raise checks.wrong_type("model", KINDS, model)
    # A module may score cases by forward, and have layers called so.
    is_method = inspect.ismethod if callable(model) else callable
    there = [name for name in ("queries", "items") if is_method(getattr(model, name, None))]
    if len(there) == 1 and not isinstance(model, DotModel):
        missing = "items()" if there == ["queries"] else "queries(cases)"
        raise checks.wrong_type(
            "model",
            "an object with both queries(cases) and items() (fastpop.types.DotModel)",
            text=f"{type(model).__name__}, which has no method {missing}",
        )
    return model


def is_model(value: Any) -> bool:
    """Whether this can be nothing but a model: no array, and no chunks of one."""
    if hasattr(value, "dtype") or isinstance(value, type):
        return isinstance(value, type)
    return isinstance(value, DotModel) or callable(value) or isinstance(value, tuple)


def num_items_of(model: Any) -> int:
    """V, of a model with an item table. Raises TypeError for another."""
    if not isinstance(model, DotModel):
        raise checks.wrong_type("cases", "Cases, which know the catalogue, for a function of them", None)
    return len(model.items())


def scores_of(model: Any, cases: Cases) -> Any:
    """What `evaluation.evaluate` ranks: DotScores of a `DotModel`, else scores a chunk of cases at a time.

    model: what `as_model` gave; DotScores, CaseScores and a [C, V] matrix are of these cases.
    """
    if isinstance(model, DotModel):
        with asked(model):
            query, items = model.queries(cases), model.items()
            bias, scale = item_bias_of(model), scale_of(model)
        _check_answers(query, items, bias, cases)
        return DotScores(query, items, bias, scale)
    if callable(model) and not isinstance(model, (DotScores, CaseScores)):
        return CaseScores(lambda rows: _asked_with(model, cases.take(rows)), "model(cases)")
    return model if callable(model) else of_matrix(model, cases.num_cases, cases.num_items)


def of_matrix(score: Any, num_cases: int, num_items: int) -> CaseScores:
    """Scores that stand in a [C, V] matrix."""
    matrix_CV = checks.array_like("score", score)
    checks.real_array("score", matrix_CV)
    checks.shape("score", matrix_CV, (num_cases, num_items))
    return CaseScores(lambda rows: matrix_CV[rows])


def item_bias_of(model: DotModel) -> Any:
    own = getattr(model, "item_bias", None)
    return own() if callable(own) else None


def scale_of(model: DotModel) -> float:
    """Raises TypeError, ValueError for what is no number; above 0, but of a run, where λ = 0 serves
    popularity alone."""
    own = getattr(model, "scale", None)
    if not callable(own):
        return 1.0
    found = own()
    if hasattr(found, "detach"):  # of a tensor that has a gradient torch would warn
        found = found.detach()
    if hasattr(found, "item") and getattr(found, "shape", ()) in ((), (1,)):
        found = found.item()
    checks.number("model.scale()", found, gt=None if isinstance(model, ServedModel) else 0)
    return float(found)


def _check_answers(query: Any, items: Any, bias: Any, cases: Cases) -> None:
    """Shapes of what a `DotModel` gave, under the names that its author knows."""
    query_CD = checks.array_like("model.queries(cases)", query)
    checks.shape("model.queries(cases)", query_CD, (cases.num_cases, "D"))
    item_VD = checks.array_like("model.items()", items)
    checks.shape("model.items()", item_VD, (cases.num_items, "D"))
    checks.shape("model.items()", item_VD, ("V", query_CD.shape[1]))
    if bias is not None:
        checks.shape("model.item_bias()", checks.array_like("model.item_bias()", bias), (cases.num_items,))


def _asked_with(function: Callable[[Any], Any], cases: Cases) -> Any:
    with asked(function):
        return function(cases)


@contextlib.contextmanager
def asked(model: Any) -> Iterator[None]:
    """Without gradients; a torch module in evaluation mode, and back after."""
    module = model if isinstance(model, torch.nn.Module) else None
    was_training = module is not None and module.training
    with torch.no_grad():
        if module is not None and was_training:
            module.eval()
        try:
            yield
        finally:
            if module is not None and was_training:
                module.train()
