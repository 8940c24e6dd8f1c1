"""Is the best score PMI + log p + an offset, how large is the shared part, and what does a tilt do to it?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastpop import diagnostics
from fastpop.diagnostics import ScoreMoments
from fastpop.diagnostics.geometry import Spectrum
from fastpop.studies.models import model_options, trained
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, of_seeds, told
from fastpop.synthetic import TwinBlock, paper_headline
from fastpop.training.result import moments_of

TILTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Decomposition(Study):
    """The identity, the spectrum with its bounds, and the spectrum under a tilt of popularity."""

    name: ClassVar[str] = "decomposition"
    sets: ClassVar[tuple[str, ...]] = ("prior",)
    question: ClassVar[str] = "How much of the best score is popularity, in theory and in trained models?"

    def run(self, setting: Setting) -> Answer:
        generator = paper_headline()
        values, spectrum = exact_spectrum(generator)
        tilted = [tilt(generator, power) for power in TILTS]
        more, trained_table = self._of_log(setting)
        values |= more
        return Answer(values, tuple(_sentences(values)), (spectrum, trained_table), (_chart(tilted),))

    def _of_log(self, setting: Setting) -> tuple[dict[str, float], Table]:
        values: dict[str, float] = {}
        rows = []
        for prior in ("none", "frozen"):
            found: dict[str, list[float]] = {}
            for seed in range(setting.seeds):
                result = trained(setting, f"{prior}-{seed}", seed=seed, prior=prior, **model_options(setting))
                moments = moments_of(result.model, result.split.train)
                for name, value in shape_of(moments, result.prior.log_prior_V).items():
                    found.setdefault(name, []).append(value)
            for name, each in found.items():
                values |= of_seeds(f"{prior}.{name}", each)
            rows.append((prior, *(float(np.mean(found[name])) for name in SHAPE)))
        return values, Table(
            f"Learned scores of trained models, {setting.log_name}, means of {setting.seeds} seeds",
            ("log p beside", *SHAPE.values()),
            tuple(rows),
        )


SHAPE = {
    "r1": "R1",
    "effective_rank": "effective rank",
    "pc1": "|corr(v1, log p)|",
    "sine_bound": "Wedin's bound",
}


def _sentences(values: dict[str, float]) -> list[str]:
    bound = values["none.sine_bound"]
    says = "says nothing there" if bound >= 1 else f"puts it within sine {bound:.2f}"
    return [
        f"On the generator S H = PMI H + 1 f~ holds to {values['identity_error']:.0e} nats (an identity), "
        f"the first singular vector is at sine {values['sine']:.3f} of f~ (Wedin's bound "
        f"{values['sine_bound']:.3f}), and separation removes {values['reduction']:.5f} of the shared "
        "energy.",
        "Trained without log p beside the product: |corr(first direction of the scores, log p)| "
        f"{told(values, 'none.pc1')}; the bound {says}. With it: {told(values, 'frozen.pc1')}.",
    ]


def exact_spectrum(generator: TwinBlock) -> tuple[dict[str, float], Table]:
    """The identity and the spectrum of the best scores, with the gap and Wedin's bound on the angle.

    S H = 1 f~ + N with N = PMI H: sigma_1 >= sqrt(C) ||f~|| - ||N||, sigma_2 <= ||N||, and by Wedin (1972)
    sin(v_1, f~) <= ||N|| / sigma_1, since 1 f~ has no second singular value.
    """
    centred_CV = generator.scores() - generator.scores().mean(axis=1, keepdims=True)
    noise_CV = generator.pmi() - generator.pmi().mean(axis=1, keepdims=True)
    f_V = generator.log_prior_V - generator.log_prior_V.mean()
    _, sigma, right = np.linalg.svd(centred_CV, full_matrices=False)
    noise = float(np.linalg.svd(noise_CV, compute_uv=False)[0])
    shared = float(np.sqrt(generator.num_contexts) * np.linalg.norm(f_V))
    cosine = min(1.0, float(abs(right[0] @ f_V) / np.linalg.norm(f_V)))
    values = {
        "identity_error": float(np.abs(centred_CV - noise_CV - f_V).max()),
        "sigma_1": float(sigma[0]),
        "sigma_1_bound": shared - noise,
        "sigma_2": float(sigma[1]),
        "sigma_2_bound": noise,
        "sine": float(np.sqrt(1 - cosine**2)),
        "sine_bound": noise / float(sigma[0]),
        "reduction": generator.reduction,
    }
    return values, Table(
        "Best scores of the generator whose reduction is the paper's",
        ("quantity", "value", "bound"),
        (
            ("first singular value", values["sigma_1"], f">= {values['sigma_1_bound']:.4g}"),
            ("second singular value", values["sigma_2"], f"<= {values['sigma_2_bound']:.4g}"),
            ("sine of the angle to f~", values["sine"], f"<= {values['sine_bound']:.4g}"),
        ),
    )


def tilt(generator: TwinBlock, power: float) -> dict[str, float]:
    """Shape of the best scores where contexts draw by p(i|c) ~ pi(i)^power exp(kappa_l c(k - g)).

    pi is the generator's popularity, by which contexts are tilted; the association is not normalised by item,
    so that the marginal is another, pi^power exp(A_l): what a count finds and what was put in are told apart.
    """
    scores_CV = generator.pmi() + generator.divergence_V + power * generator.log_prior_V
    shape = Spectrum.of(np.linalg.svd(_centred(scores_CV), compute_uv=False) ** 2)
    _, _, right = np.linalg.svd(_centred(scores_CV), full_matrices=False)
    top_C1 = scores_CV.max(axis=1, keepdims=True)
    chance_CV = np.exp(scores_CV - top_C1)
    marginal_V = (chance_CV / chance_CV.sum(axis=1, keepdims=True)).mean(axis=0)
    return {
        "power": power,
        "r1": shape.r1,
        "effective_rank": shape.effective_rank,
        "corr_log_pi": _correlation(right[0], generator.log_prior_V),
        "corr_log_marginal": _correlation(right[0], np.log(marginal_V)),
    }


def shape_of(moments: ScoreMoments, log_prior_V: np.ndarray) -> dict[str, float]:
    """R1, effective rank, |corr(v1, log p)| of the centred scores, and Wedin's bound on the sine of v1's
    angle to log p: the norm of what is left without slope * log p over the first singular value."""
    shape = diagnostics.geometry(moments, log_prior_V).scores
    rest = moments.with_popularity(-moments.energy(log_prior_V).slope_mean, log_prior_V)
    return {
        "r1": shape.r1,
        "effective_rank": shape.effective_rank,
        "pc1": diagnostics.score_pc1_correlation(moments, log_prior_V),
        "sine_bound": float(rest.spectrum().max() / moments.spectrum().max()),
    }


def _centred(scores_CV: np.ndarray) -> np.ndarray:
    return scores_CV - scores_CV.mean(axis=1, keepdims=True)


def _correlation(x_V: np.ndarray, y_V: np.ndarray) -> float:
    return abs(float(np.corrcoef(x_V, y_V)[0, 1])) if np.ptp(y_V) > 1e-12 else float("nan")


def _chart(tilted: list[dict[str, float]]) -> Chart:
    power = tuple(one["power"] for one in tilted)

    def line(name: str, key: str) -> Series:
        return Series(name, power, tuple(one[key] for one in tilted))

    return Chart(
        "tilt",
        "Best scores of the generator under a tilt of popularity",
        "power of pi(i)",
        "share, correlation",
        (
            line("R1 of the scores", "r1"),
            line("|corr(v1, log pi)|", "corr_log_pi"),
            line("|corr(v1, log of the marginal)|", "corr_log_marginal"),
        ),
    )
