"""Several models, one direction, one stream of permutations: paired tests of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from fastpop import checks, registry
from fastpop.bars import progress_bar
from fastpop.blas import one_thread
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.diagnostics.null import Null
from fastpop.diagnostics.significance import Form, PermutationTest, permutation_test
from fastpop.frozen import freeze
from fastpop.ops.energies import ScoreEnergy
from fastpop.stats import popularity_direction

BLOCK = 250  # permutations between two updates of the progress bar
MOST_BYTES = 2 << 30  # of float64 rows that are permuted over at once


@dataclass(frozen=True)
class PairedTest:
    """Signed differences first - second; p is one-sided: does `first` carry more energy?

    The test of a matched intervention. A relative reduction is a ratio of two small squares and
    large by chance often; it describes, and is never tested.
    """

    first: str
    second: str
    direction: PermutationTest
    shared: PermutationTest

    def to_dict(self, samples: bool = False) -> dict:
        """JSON-able."""
        return {
            "first": self.first,
            "second": self.second,
            "direction": self.direction.to_dict(samples),
            "shared": self.shared.to_dict(samples),
        }


@dataclass(frozen=True)
class ManyAudits:
    """Energies and tests by model name, and the paired tests asked for."""

    energy: dict[str, ScoreEnergy]
    direction: dict[str, PermutationTest]
    shared: dict[str, PermutationTest]
    pairs: dict[tuple[str, str], PairedTest]

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "energy", "direction", "shared", "pairs")


@one_thread
def audit_many(
    models: Mapping[str, ScoreMoments],
    log_prior: Any,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    permutations: int = 2000,
    seed: int = 0,
    null: str | Null = "label",
    strata: Any = None,
    threads: int | None = None,
) -> ManyAudits:
    """Energies, p-values and paired differences of several models over the same permutations.

    Args:
        models: name -> ScoreMoments, all of the same V items. The score served at another
            popularity weight is one more model: moments.with_popularity(weight, log_prior).
        log_prior: [V] nats: the one direction for all.
        pairs: (first, second) names whose difference is tested; by default the first model
            against every other.
        permutations: P; 0 gives energies and exact null moments without p-values.
        null: a name (`fastpop.available("nulls")`) or a Null.
        seed, strata, threads: as in `fastpop.ops.permutation`.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got.
    Cost: per model one pass of P permutations (2*m*R FLOPs each), of float64 rows: of all columns at once
        where these are at most 2 GiB, otherwise of as many as are, and the permutations are drawn once for
        each part.
    """
    if not isinstance(models, Mapping) or not all(isinstance(m, ScoreMoments) for m in models.values()):
        raise checks.wrong_type("models", "a dict of name to ScoreMoments", models)
    if not models:
        raise checks.wrong("models", "at least one model", text="none")
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    for name, moments in models.items():
        if moments.num_items != len(log_prior_V):
            raise checks.wrong(
                f"models[{name!r}]",
                f"{len(log_prior_V)} items, as log_prior",
                text=f"{moments.num_items} items",
            )
    checks.number("permutations", permutations, ge=0, integer=True)
    names = list(models)
    pairs = [(names[0], name) for name in names[1:]] if pairs is None else list(pairs)
    for name in chain.from_iterable(pairs):
        checks.one_of("pairs", name, names)
    label_V, _ = popularity_direction(log_prior_V)

    chosen: Null = registry.made("null", null)
    stratum_V = None if strata is None else checks.int_array("strata", strata)
    if chosen.strata != (strata is not None):
        name = str(chosen) if chosen.strata else "stratified"
        raise checks.wrong("strata", f"integers [V] with null={name!r}, and only there", strata)
    if stratum_V is not None:
        checks.shape("strata", stratum_V, (len(log_prior_V),))
    energy, direction, shared, drawn = {}, {}, {}, {}
    for name, moments in models.items():
        proj_PR = _projections(chosen, label_V, moments, permutations, seed, stratum_V, threads)
        energy[name] = moments.energy(log_prior_V)
        forms = Form.direction(moments), Form.shared(moments)
        drawn[name] = tuple(form.at(proj_PR) for form in forms)
        direction[name], shared[name] = (
            permutation_test(
                f"energy_{kind}",
                getattr(energy[name], kind),
                null_P,
                null_mean=mean,
                null_variance=variance,
                kind=str(chosen),
            )
            for kind, form, null_P in zip(("direction", "shared"), forms, drawn[name])
            for mean, variance in [chosen.moments(label_V, form, None, stratum_V) or (None, None)]
        )

    paired = {}
    for first, second in pairs:
        tests = []
        for n, (kind, form) in enumerate((("direction", Form.direction), ("shared", Form.shared))):
            one, two = form(models[first]), form(models[second])
            mean, variance = chosen.moments(label_V, one, two, stratum_V) or (None, None)
            a, b = getattr(energy[first], kind), getattr(energy[second], kind)
            a_P, b_P = drawn[first][n], drawn[second][n]
            size = a + b + float(np.mean(a_P) + np.mean(b_P)) if len(a_P) else None
            tests.append(
                permutation_test(
                    f"energy_{kind} {first} - {second}",
                    a - b,
                    a_P - b_P,
                    null_mean=mean,
                    null_variance=variance,
                    scale=size,
                    kind=str(chosen),
                )
            )
        paired[first, second] = PairedTest(first, second, *tests)
    return ManyAudits(energy, direction, shared, paired)


def _projections(
    null: Null,
    label_V: np.ndarray,
    moments: ScoreMoments,
    num_permutations: int,
    seed: int,
    stratum_V: np.ndarray | None,
    threads: int | None,
) -> np.ndarray:
    """`Null.project` of the rows in blocks of the one stream, with a bar where it takes over 5 seconds.

    A projection is linear in the rows, column by column, and draws hang on no row: so parts of the columns,
    made one after the other, are the whole."""
    width = max(8, MOST_BYTES // (8 * moments.num_items) // 8 * 8)
    columns = [slice(low, low + width) for low in range(0, moments.num_columns, width)]
    starts = range(0, num_permutations, BLOCK) if num_permutations else range(1)
    found_PR = np.empty((num_permutations, moments.num_columns))
    with progress_bar(len(columns) * (num_permutations or 1), "permutations", delay=5) as bar:
        for at in columns:
            item_VR = moments.rows(at)
            for first in starts:
                count = min(BLOCK, num_permutations - first)
                found_PR[first : first + count, at] = null.project(
                    label_V, item_VR, count, seed=seed, first=first, stratum_V=stratum_V, threads=threads
                )
                bar.update(count)
    return found_PR
