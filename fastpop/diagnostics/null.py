"""Nulls of an audit: the distributions of a direction over items that has nothing to do with the scores."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks
from fastpop.components import Component
from fastpop.diagnostics.significance import Form, null_moments
from fastpop.ops.permutation import permutation


@dataclass(frozen=True)
class Null(Component):
    """What log p is compared with. One of your own needs `draw` and words: an audit draws the directions one
    by one, which takes a pass over the item table in numpy each.

    words: what is drawn, after "Null: " in tables. note: what a small p does not say; "" for nothing. strata:
    whether it is drawn within audit(strata=), which is then needed, and otherwise refused.
    """

    kind: ClassVar[str] = "null"
    words: ClassVar[str] = ""
    note: ClassVar[str] = ""
    strata: ClassVar[bool] = False

    def draw(self, label_V: np.ndarray, rng: np.random.Generator, stratum_V: np.ndarray | None) -> np.ndarray:
        """One direction [V], of unit length as label_V is: centred log p (sum 0, sum of squares 1).

        rng: of this draw alone, a function of the seed and of its number. stratum_V: [V] integers, or None.
        """
        raise NotImplementedError

    def project(
        self,
        label_V: np.ndarray,
        item_VR: np.ndarray,
        num_draws: int,
        *,
        seed: int = 0,
        first: int = 0,
        stratum_V: np.ndarray | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """[P, R] float64: yᵀZ for the draws y numbered first .. first + P - 1; statistics are made of it.

        Replace it where a kernel does without the directions. Raises ValueError for a direction that is none.
        """
        proj_PR = np.empty((num_draws, item_VR.shape[1]))
        label_V = label_V.view()
        label_V.flags.writeable = False  # what is drawn next is drawn of the same
        for number in range(num_draws):
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, first + number], np.uint64)))
            drawn_V = np.asarray(self.draw(label_V, rng, stratum_V), float)
            if drawn_V.shape != label_V.shape or not abs(float(drawn_V @ drawn_V) - 1) < 1e-6:
                raise checks.wrong(
                    f"draw of the null {str(self)!r}",
                    f"[{len(label_V)}] numbers whose squares sum to 1",
                    drawn_V,
                )
            proj_PR[number] = drawn_V @ item_VR
        return proj_PR

    def moments(
        self, label_V: np.ndarray, plus: Form, minus: Form | None, stratum_V: np.ndarray | None
    ) -> tuple[float, float] | None:
        """Exact mean and variance of plus(y) - minus(y); None where they are not known."""
        return None


class OursNull(Null):
    """One whose projections the compiled kernels make, and whose moments are known."""

    def project(
        self,
        label_V: np.ndarray,
        item_VR: np.ndarray,
        num_draws: int,
        *,
        seed: int = 0,
        first: int = 0,
        stratum_V: np.ndarray | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        null: Any = self.name
        return permutation(
            label_V, item_VR, num_draws, seed=seed, null=null, strata=stratum_V, first=first, threads=threads
        )

    def moments(
        self, label_V: np.ndarray, plus: Form, minus: Form | None, stratum_V: np.ndarray | None
    ) -> tuple[float, float] | None:
        return null_moments(label_V, plus, minus, self.name, stratum_V)


class Label(OursNull):
    name = "label"
    words = "log p shuffled over all items"
    note = (
        "A small p says that the scores are associated with log p beyond relabelling; item norms tied to "
        'popularity are enough for that (see null="sign").'
    )

    def draw(self, label_V: np.ndarray, rng: np.random.Generator, stratum_V: np.ndarray | None) -> np.ndarray:
        return rng.permutation(label_V)


class Stratified(OursNull):
    name = "stratified"
    words = "log p shuffled within the strata given"
    strata = True

    def draw(self, label_V: np.ndarray, rng: np.random.Generator, stratum_V: np.ndarray | None) -> np.ndarray:
        drawn_V = label_V.copy()
        assert stratum_V is not None
        for stratum in np.unique(stratum_V):
            place = np.flatnonzero(stratum_V == stratum)
            drawn_V[place] = rng.permutation(label_V[place])
        return drawn_V


class Sign(OursNull):
    name = "sign"
    words = "random signs of centred log p"

    def draw(self, label_V: np.ndarray, rng: np.random.Generator, stratum_V: np.ndarray | None) -> np.ndarray:
        return label_V * rng.choice((-1.0, 1.0), len(label_V))


OURS = (Label, Stratified, Sign)
