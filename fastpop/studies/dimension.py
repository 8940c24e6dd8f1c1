"""What does a dot product of few dimensions lose by having to hold popularity, too?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop.studies.index import recall_of_indexes
from fastpop.studies.models import model_options, trained
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, of_seeds, told
from fastpop.synthetic import TwinBlock, low_rank_fit, paper_headline

GENERATORS = {
    "G=10 L=12 kappa=1": TwinBlock(10, 12, 1, 1),
    "G=10 L=12 kappa=.5": TwinBlock(10, 12, 1, 0.5),
    "paper headline": paper_headline(),
}
NAMES = {"none": "standard", "frozen": "log p outside"}
DIMS, QUICK_DIMS = (1, 2, 4, 8, 16, 32, 64), (2, 8)
RANKS, QUICK_RANKS = (1, 2, 3, 4), (2,)  # of the exact fits


@dataclass(frozen=True)
class Dimension(Study):
    """Fit by dimension, with and without log p outside: exact on the generator, trained on a log; and what an
    index of item vectors with log p as one more column finds."""

    name: ClassVar[str] = "dimension"
    sets: ClassVar[tuple[str, ...]] = ("prior", "dim", "patience", "evaluate_every")
    question: ClassVar[str] = "What does a dot product of few dimensions lose by having to hold popularity?"
    default_seeds: ClassVar[int] = 3

    def run(self, setting: Setting) -> Answer:
        generators = dict(list(GENERATORS.items())[:1]) if setting.quick else GENERATORS
        ranks, starts = (QUICK_RANKS, 1) if setting.quick else (RANKS, 4)
        values, exact = exact_fits(generators, ranks, starts)
        dims = QUICK_DIMS if setting.quick else DIMS
        more, chart, best = self._of_log(setting, dims)
        found, recall = recall_of_indexes(best, quick=setting.quick)
        values |= more | found
        sentences = (
            _exact_words(values),
            _log_words(values, dims, setting.log_name),
            f"An index built once with log p as one more column finds {found['index.one_column']:.3f} of "
            f"the exact top 10 over the betas, one index a beta {found['index.one_each']:.3f}, with as many "
            "lists probed.",
        )
        return Answer(values, sentences, (exact, recall), (chart,))

    def _of_log(self, setting: Setting, dims: tuple[int, ...]) -> tuple[dict[str, float], Chart, Any]:
        values: dict[str, float] = {}
        best: Any = None
        for dim in dims:
            nll: dict[str, list[float]] = {}
            for prior in ("none", "frozen"):
                for seed in range(setting.seeds):
                    options = {**model_options(setting), "dim": dim, "patience": 3, "evaluate_every": 1}
                    options["epochs"] *= 3  # each to its own best epoch
                    if options["encoder"] == "sasrec":
                        options["num_heads"] = 1
                    result = trained(setting, f"{prior}-d{dim}-{seed}", prior=prior, seed=seed, **options)
                    nll.setdefault(prior, []).append(result.metrics["nll"])
                    best = result if prior == "frozen" and seed == 0 else best
            for prior, each in nll.items():
                values |= of_seeds(f"nll.{prior}.d{dim}", each)
            values |= of_seeds(f"gain.d{dim}", np.subtract(nll["none"], nll["frozen"]).tolist())
        lines = [_line(values, prior, name, dims) for prior, name in NAMES.items()]
        title = f"Test NLL at each model's best epoch, {setting.log_name}"
        return values, Chart("dimension", title, "dimensions", "NLL, nats", tuple(lines), log_x=True), best


def _line(values: dict[str, float], prior: str, name: str, dims: tuple[int, ...]) -> Series:
    names = [f"nll.{prior}.d{dim}" for dim in dims]
    mean, low, high = (
        tuple(values[key + end] for key in names if key + end in values) for end in ("", ".low", ".high")
    )
    return Series(name, tuple(map(float, dims)), mean, low, high)


def exact_fits(
    generators: dict[str, TwinBlock], dims: tuple[int, ...], starts: int
) -> tuple[dict[str, float], Table]:
    """KL of the best scores of rank d to the generator's distribution, log p beside them or not."""
    values: dict[str, float] = {}
    rows = []
    for name, generator in generators.items():
        for dim in dims:
            for prior, weight in (("none", 0.0), ("frozen", 1.0)):
                values[f"kl.{prior}.{name}.d{dim}"] = low_rank_fit(generator, dim, weight, starts=starts).kl
            rows.append((f"{name}, d={dim}", *(values[f"kl.{p}.{name}.d{dim}"] for p in ("none", "frozen"))))
    return values, Table(
        "KL of the best scores of rank d, nats", ("generator", "standard", "log p outside"), tuple(rows)
    )


def _exact_words(values: dict[str, float]) -> str:
    first, outside = (values[f"kl.{prior}.G=10 L=12 kappa=1.d2"] for prior in ("none", "frozen"))
    return (
        f"On the generator with one pair of personal directions, two dimensions leave {first:.4f} nats where "
        f"they have to hold popularity, too, and {outside:.0e} where log p stands outside."
    )


def _log_words(values: dict[str, float], dims: tuple[int, ...], log_name: str) -> str:
    won, lost = ([dim for dim in dims if excludes(values, f"gain.d{dim}") == sign] for sign in (1, -1))
    if excludes(values, f"gain.d{dims[0]}") is None:
        verdict = "Too few runs to say more."
    else:
        verdict = (
            f"It fits better at {_listed(won)}, worse at {_listed(lost)}; else they cannot be told apart."
        )
    said = ", ".join(f"d={dim}: {told(values, f'gain.d{dim}')}" for dim in dims)
    return f"{log_name}: NLL that log p outside saves by dimension: {said}. {verdict}"


def _listed(dims: list[int]) -> str:
    return "d = " + ", ".join(map(str, dims)) if dims else "no dimension"
