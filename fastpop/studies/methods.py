"""Ways of the field to train and to serve, on one log under one rule, each read at two epochs."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks, evaluation, propensity
from fastpop.data.interactions import Interactions
from fastpop.evaluation import DotScores
from fastpop.evaluation.ranking import Score
from fastpop.experiments.arms import STANDARD
from fastpop.experiments.one_arm import Judged, some_cases, valid_cases
from fastpop.experiments.references import asked_for, reference_rows
from fastpop.experiments.served import Served, families
from fastpop.experiments.shown import Shown, judge_scores, readable_shown
from fastpop.experiments.twice import fit_twice
from fastpop.model import Recommender
from fastpop.studies.models import model_options
from fastpop.studies.study import Setting
from fastpop.training import TrainConfig, build, memory, sealed
from fastpop.training.recommending import readable_cases
from fastpop.training.result import evaluate_model
from fastpop.training.run import make_split

K = 10
BETAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)
POWERS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)  # of popularity beside PDA's score; .1 is trained
QUICK_BETAS, QUICK_POWERS = (0.0, 0.5, 1.0, 2.0), (0.0, 0.1, 1.0)
MOST_CASES, MOST_EPOCHS, PATIENCE = 3000, 3, 3  # epochs: times those of equal training
CLIP = 0.1  # propensities below it are raised to it
REFERENCES = ("popularity", "recency", "markov")
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Family:
    """One curve of served scores. score: of queries at a weight. trained: the weight of the score as trained.
    weights: that are judged."""

    name: str
    score: Callable[[Tensor, float], Score]
    weights: tuple[float, ...]
    trained: float = 1.0

    __repr__ = checks.brief


Serve = Callable[[Recommender, Judged], list[Family]]


@dataclass(frozen=True, eq=False)
class Method:
    """A way to train, and the curves that are served from it.

    options: of TrainConfig. power: events weigh 1/p, p = (count / largest count)^power; 0: all alike.
    judge: the curve whose score as trained validation judges, where that is not the model's own. config: in
    place of the arena's.
    """

    name: str
    options: Mapping[str, Any]
    serve: Serve
    power: float = 0.0
    judge: Serve | None = None
    config: TrainConfig | None = None

    __repr__ = checks.brief


@dataclass(frozen=True, eq=False)
class Arena:
    """What all methods of an experiment meet. config: of all, before a method's own options. judged: the
    parts of the log, with log p of the training events."""

    log: Interactions
    config: TrainConfig
    judged: Judged
    betas: tuple[float, ...] = BETAS
    powers: tuple[float, ...] = POWERS
    rated: Interactions | None = None

    __repr__ = checks.brief

    @classmethod
    def of(cls, setting: Setting, **options: Any) -> "Arena":
        """The split of the setting's log, or its own test part, once for all methods and seeds."""
        log, shown = setting.log, None
        config = TrainConfig().replace(**{**model_options(setting), **options})
        if setting.shown is not None:
            log, shown = Shown.of(log, setting.test, setting.shown)
        parts = make_split(log, setting.test, config)
        prior = build.target_prior(parts.train, config.encoder_part, config.smoothing)
        judged = Judged(
            parts.train,
            parts.train,
            parts.known,
            parts.valid,
            some_cases(parts.test, 200 if setting.quick else MOST_CASES, 0),
            shown,
            parts.train.item_counts(),
            prior.log_prior_V,
            (1.0,),
        )
        betas, powers = (QUICK_BETAS, QUICK_POWERS) if setting.quick else (BETAS, POWERS)
        return cls(log, config, judged, betas, powers, setting.rated)

    def references(self, names: tuple[str, ...] = REFERENCES) -> dict[str, dict[str, float]]:
        """Numbers of the rows that no model needs, by name; those that the log has no times or no order for
        are left out. They count all that is known when a test case is asked."""
        judged = replace(self.judged, train=self.judged.known)
        rows, _ = reference_rows(
            asked_for(names, self.config), judged, judged.test, judged.shown, self.rated, self.config
        )
        return rows


def run_of(setting: Setting, arena: Arena, method: Method, seed: int, name: str = "") -> list[Row]:
    """Rows (arm, seed, epochs, popularity_weight, trained, valid, values) of a method's curves at both
    readings; valid: what validation found at the best epoch.

    Epochs are those of the configuration, and the best one of at most three times as many, by NDCG@10 (or the
    configuration's metric) on the validation part. What was measured stays in the setting's folder.
    """
    name = f"{name or method.name}-{seed}"
    place, kept = setting.part(name), setting.part(f"{name}.rows")
    if kept is not None and kept.exists():
        return sealed.read(kept)["rows"]
    judged = arena.judged
    asked = (method.config or arena.config).replace(**method.options, seed=seed)
    validates = judged.valid is not None and judged.valid.num_cases > 0
    config = asked.replace(
        epochs=MOST_EPOCHS * asked.epochs if validates else asked.epochs,
        checkpoint_every=MOST_EPOCHS * asked.epochs,
        evaluate_every=int(validates),
        patience=PATIENCE if validates else 0,
    )
    config = build.bounded(config, arena.log, judged.test)
    train = judged.train
    if method.power:
        chance_V = propensity.popularity_propensity(judged.counts_V, method.power)
        train = propensity.weighted(train, chance_V[train.item], clip=CLIP)
    prior = build.target_prior(judged.train, config.encoder_part, config.smoothing)
    log_prior_V = config.prior_part.log_prior(prior, seed)
    keep_rows = memory.keeps_rows(config, train)
    assembly = build.assemble(config, train, train, log_prior_V, keep_rows=keep_rows)
    model = assembly.model
    own = replace(judged, betas=arena.betas, log_prior_V=prior.log_prior_V)
    valid = valid_cases(model, judged, config) if validates else None

    def validate() -> dict[str, float]:
        assert valid is not None
        if method.judge is None:
            found = evaluate_model(model, valid, judged.counts_V, config, ks=(K,)).metrics
        else:
            model.eval()
            family = method.judge(model, own)[0]
            found = _metrics(family.score(_queries(model, valid), family.trained), valid, judged, config)
        return {config.metric: found[config.metric]}

    readings, progress = fit_twice(
        assembly,
        lambda epoch: _read(model, own, method, arena, config, epoch),
        validate=validate if validates else None,
        equal_epoch=asked.epochs,
        folder=place,
    )
    rows = [
        {**row, "seed": seed, "epochs": reading, "valid": progress.best}
        for reading, rows in readings.items()
        for row in rows
    ]
    if kept is not None and place is not None:
        sealed.write(kept, {"rows": rows})
        shutil.rmtree(place, ignore_errors=True)
    setting.lap()
    return rows


def validated(rows: list[Row]) -> float:
    """What validation found at the best epoch of a run; -inf where there was nothing to validate on."""
    found = rows[0]["valid"]
    return -math.inf if found is None else found


def _read(
    model: Recommender, judged: Judged, method: Method, arena: Arena, config: TrainConfig, epoch: int
) -> list[Row]:
    model.eval()
    test = None if judged.test is None else readable_cases(model, judged.train, judged.test)[0]
    shown = None if judged.shown is None else readable_shown(model, judged.train, judged.shown)
    if test is not None and test.num_cases:
        test_query_CD = _queries(model, test)
    if shown is not None:
        shown_query_CD = _queries(model, shown.cases)
    rows = []
    for family in method.serve(model, judged):
        for weight in family.weights:
            values: dict[str, float] = {"epoch": float(epoch)}
            if test is not None and test.num_cases:
                score = family.score(test_query_CD, weight)
                values |= _metrics(score, test, judged, config, logits=weight == family.trained)
            if shown is not None:
                values |= judge_scores(family.score(shown_query_CD, weight), shown)
            rows.append(
                {
                    "arm": family.name,
                    "popularity_weight": weight,
                    "trained": weight == family.trained,
                    "values": {name: float(value) for name, value in values.items() if not np.isnan(value)},
                }
            )
    return rows


def _queries(model: Recommender, cases: Any) -> Tensor:
    with torch.no_grad():
        return model.encode(cases)


def _metrics(score: Score, cases: Any, judged: Judged, config: TrainConfig, logits: bool = True) -> Any:
    return evaluation.evaluate(
        score,
        cases,
        counts=judged.counts_V,
        ks=(K,),
        mask_seen=config.mask_seen,
        logits=logits and config.loss_part.logits,
    ).metrics


# How methods are served. Each takes log p of the training events.


def afterwards(model: Recommender, judged: Judged) -> list[Family]:
    """A standard model as it is, and all that is made of it without training."""
    return [
        _family(served, (1.0,) if served.term_V is None else judged.betas)
        for served in families(STANDARD, model, judged.train, judged.log_prior_V)
    ]


def as_trained(name: str) -> Serve:
    """The scores as trained, and no others."""

    def serve(model: Recommender, judged: Judged) -> list[Family]:
        whole, weight = over_beta(name)(model, judged)[0], model.decoder.trained_weight
        return [replace(whole, weights=(weight,), trained=weight)]

    return serve


def over_beta(name: str) -> Serve:
    """Trained beside log p: s + beta log p; without: s + (beta - 1) log p."""

    def serve(model: Recommender, judged: Judged) -> list[Family]:
        decoder = model.decoder
        item_VD, scale = decoder.item_vectors().detach().float(), float(decoder.scale.detach())

        def score(query_CD: Tensor, weight: float) -> DotScores:
            return DotScores(query_CD.float(), item_VD, decoder.served_bias(weight).detach(), scale)

        return [Family(name, score, judged.betas)]

    return serve


def halves(name: str) -> Serve:
    """Of DICE: interest + beta conformity."""

    def serve(model: Recommender, judged: Judged) -> list[Family]:
        item_VD, scale = model.decoder.item_vectors().detach().float(), float(model.decoder.scale.detach())
        half = item_VD.shape[1] // 2

        def score(query_CD: Tensor, weight: float) -> DotScores:
            weight_D = torch.cat([torch.ones(half), torch.full((half,), float(weight))]).to(item_VD)
            return DotScores(query_CD.float(), item_VD * weight_D, None, scale)

        return [Family(name, score, judged.betas)]

    return serve


def injected(name: str, powers: tuple[float, ...], trained: float = 0.1) -> Serve:
    """Of PDA: (ELU(s) + 1) m^power, m the items' share of the events; of the newest period, where training
    had one for each."""

    def serve(model: Recommender, judged: Judged) -> list[Family]:
        item_VD, scale = model.decoder.item_vectors().detach().float(), float(model.decoder.scale.detach())
        share_V = np.maximum(judged.counts_V, 0.5) / judged.counts_V.sum()
        if model.decoder.prior.by_period:
            share_V = np.exp(model.decoder.log_prior_V.double().cpu().numpy())

        def score(query_CD: Tensor, weight: float) -> Score:
            def product(rows: slice) -> Tensor:
                return scale * query_CD[rows].float() @ item_VD.T

            return evaluation.injected_scorer(product, share_V, weight)

        return [Family(name, score, powers, trained)]

    return serve


def _family(served: Served, weights: tuple[float, ...]) -> Family:
    return Family(served.arm, served.scores, weights)
