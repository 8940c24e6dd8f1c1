"""Anybody's model as scores of cases: two tables, an object with queries and items, or a function."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.evaluation.dot_scores import DotScores
from fastpop.types import DotModel

KINDS = (
    "a run or its folder, (user table, item table), an object with queries(cases) and items(), or a "
    "function of Cases"
)


@dataclass(frozen=True, eq=False)
class CaseScores:
    """Scores of the cases that they were made for: called with a slice of their numbers, gives [b, V]."""

    of: Callable[[slice], Any]

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
        return self.query[cases.user]

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
    if model is None or isinstance(model, (str, bytes, dict, int, float)):
        raise checks.wrong_type("model", KINDS, model)
    return model


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
        return DotScores(query, items, bias, scale)
    if callable(model) and not isinstance(model, (DotScores, CaseScores)):
        return CaseScores(lambda rows: _asked_with(model, cases.take(rows)))
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
    own = getattr(model, "scale", None)
    return float(own()) if callable(own) else 1.0


def _asked_with(function: Callable[[Any], Any], cases: Cases) -> Any:
    with asked(function):
        return function(cases)


@contextlib.contextmanager
def asked(model: Any) -> Iterator[None]:
    """Without gradients; a torch module in evaluation mode, and back after."""
    import torch

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
