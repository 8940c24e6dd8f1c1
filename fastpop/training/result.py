"""What `fastpop.train` and `fastpop.load` return."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpop import checks, deprecated, evaluation
from fastpop.data.cases import Cases, build_cases
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.split import Split
from fastpop.diagnostics import Audit, ContextSample, ScoreMoments, audit_moments
from fastpop.evaluation.recommendations import Recommendations
from fastpop.frozen import freeze
from fastpop.model import Recommender, ServedModel
from fastpop.popularity import PopularityPrior
from fastpop.text import html_table
from fastpop.training import checkpoint, folder, item_index, prints, recommending
from fastpop.training.build import target_prior
from fastpop.training.config import TrainConfig
from fastpop.training.item_index import BETAS, ItemIndex
from fastpop.training.ranks import Ranks
from fastpop.training.recommending import readable_cases
from fastpop.training.serving import LEAST_CASES, Serving, fit_weights

NO_MODEL = (
    "NLL of scores at weights that were neither trained nor fitted, where a score is no model of p(i | c)"
)
SHOWN_OF_AN_EPOCH = ("epoch", "loss", "seconds", "valid_nll", "valid_ndcg@10", "valid_hr@10")  # in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class TrainResult:
    """A trained model with all that is needed to judge and to serve it.

    config: what was asked for. model: the Recommender. log: every event that was given.
    split: train events, validation and test cases. prior: log p from the training events that the
    encoder predicts (`target_counts`).
    metrics: of the test cases as trained; empty without a test part. history: a dict an
    epoch. facts: what was left out of evaluation and why, when training stopped and at which epoch
    the weights were taken. serving: the weights that `fit_serving` found, which recommend and evaluate
    then take; None serves the scores as trained.
    """

    config: TrainConfig
    model: Recommender
    log: Interactions
    split: Split
    prior: PopularityPrior
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    serving: Serving | None = None

    def __post_init__(self) -> None:
        freeze(self, "metrics", "history", "facts")

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        """The lines that `repr` has, and the epochs behind a click."""
        title, *others = (escape(line) for line in self._lines())
        page = f"<b>{title}</b>" + "".join(f"<br>{line.strip()}" for line in others)
        if not self.history:
            return page
        names = [name for name in SHOWN_OF_AN_EPOCH if any(name in one for one in self.history)]
        rows = [[f"{one[name]:.5g}" if name in one else "-" for name in names] for one in self.history]
        return f"{page}<details><summary>Epochs</summary>{html_table(names, rows)}</details>"

    def _lines(self) -> list[str]:
        log, config = self.log, self.config
        lines = [
            f"TrainResult: {config.encoder}, prior {config.prior}, {len(self.history)} epochs",
            f"  log: {log.num_events:,} events, {log.num_users:,} users, {log.num_items:,} items",
        ]
        shown = [
            f"{name} {self.metrics[name]:.4g}"
            for name in ("ndcg@10", "hr@10", "rank", "nll")
            if name in self.metrics
        ]
        if shown:
            lines.append(f"  test, {self.facts.get('test_cases', 0):,} cases: {', '.join(shown)}")
        if self.serving is not None:
            lines += ["  " + line for line in self.serving.table().splitlines()[:1]]
        return [*lines, "  .metrics .history .evaluate() .audit() .recommend(users) .save(folder)"]

    def why_no_audit(self) -> str | None:
        """Why `audit` has nothing to measure, in a sentence; None where it has."""
        if self.log.num_items < 4:
            return f"an audit needs at least 4 items; the log has {self.log.num_items}"
        if self.prior.is_flat:
            return (
                "all items have as good as equally many training events, so log p is the same for "
                "all and there is no popularity to measure"
            )
        return None

    def why_no_metrics(self) -> str | None:
        """Why there are no metrics, in a sentence; None where there are."""
        if self.metrics:
            return None
        cases = self.split.test
        if not self.config.split_part.keeps_test and cases is None:
            return f"split {str(self.config.split)!r} keeps no test part"
        if cases is None or cases.num_cases == 0:
            return f"the split {str(self.config.split)!r} leaves no test case in this log"
        return (
            f"none of the {cases.num_cases:,} test cases can be judged: the encoder "
            f"{str(self.config.encoder)!r} knows none of their users or histories"
        )

    def evaluate(
        self,
        part: str | Cases = "test",
        *,
        popularity_weight: float | None = None,
        personal_weight: float | None = None,
        ks: tuple[int, ...] = (10, 20),
        metrics: Any = None,
        **options: Any,
    ) -> "evaluation.Evaluation":
        """`evaluation.evaluate` of a part of the split, served at two weights.

        part: "test" or "valid"; or Cases, of which those are taken that the encoder can read.
        popularity_weight: β; personal_weight: λ. None takes what `fit_serving` found, or else serves the
        scores as trained. metrics: further ones, names or objects. options: as in `evaluation.evaluate`;
        counts are those of the training events, mask_seen and logits those of the run, unless given.
        At weights that were neither trained nor fitted a score is no model of p(i | c), and `rule` says so
        of the NLL.
        Raises ValueError when the split has no such part, or no case can be read.
        """
        served = self.served(popularity_weight, personal_weight)
        found = evaluation.evaluate(
            served,
            self._cases(part),
            ks=ks,
            metrics=metrics,
            **(judged_by(self.config, self.split.train.item_counts()) | options),
        )
        weights = served.popularity_weight, served.personal_weight
        if "nll" not in found.metrics or weights in self._meant():
            return found
        return dataclasses.replace(found, rule=f"{found.rule}; {NO_MODEL}")

    def _meant(self) -> list[tuple[float, float]]:
        """(β, λ) at which a softmax of the scores is meant as p(i | c): as trained, and as fitted."""
        fitted = self.serving
        meant = [(float(self.model.decoder.trained_weight), 1.0)]
        return meant if fitted is None else [*meant, (fitted.popularity_weight, fitted.personal_weight)]

    def served(
        self, popularity_weight: float | None = None, personal_weight: float | None = None
    ) -> ServedModel:
        """What is served, as a `fastpop.types.DotModel`. The weights are those of `serving_weights`."""
        return self.model.served(*self.serving_weights(popularity_weight, personal_weight))

    def serving_weights(
        self, popularity_weight: float | None = None, personal_weight: float | None = None
    ) -> tuple[float, float]:
        """(β, λ) that are served: each as given, as fitted, or as trained."""
        fitted = self.serving
        if popularity_weight is None:
            popularity_weight = (
                self.model.decoder.trained_weight if fitted is None else fitted.popularity_weight
            )
        if personal_weight is None:
            personal_weight = 1.0 if fitted is None else fitted.personal_weight
        return float(popularity_weight), float(personal_weight)

    knobs = deprecated.attribute("knobs", "serving_weights")

    def fit_serving(
        self, cases: Cases | Interactions | None = None, *, prior: Any = None, most_cases: int = 10_000
    ) -> "TrainResult":
        """A result served with the two weights, of log p and of the personal part, under which the cases
        are most likely.

        score = λ s + β log p (with prior="none" λ s + (β - 1) log p), s the learned part. The NLL is
        convex in both and its minimum is found to rounding; `.serving` has the weights, their standard
        errors and what they gain, `.serving.table()` in words. recommend and evaluate then take them,
        `save` keeps them, and `refresh_prior` leaves them as they are.
        They hold for a model as stale, beside a log p as fresh, as in the fit: fitted right after training
        they overrate the personal part of a model that is served weeks later.

        Args:
            cases: what came after training: Cases, events over the same users and items as the log
                (a user's are the targets of one case, whose history are training and validation events),
                or None, the validation part of the split.
            prior: counts or a PopularityPrior, as `refresh_prior` takes them, known before the cases;
                None: the one at hand.
            most_cases: more are thinned at random, by the run's seed.
        Returns:
            TrainResult, without metrics: they were of other weights. This one stays as it is.
        Raises: ValueError without cases to fit, or where they leave a weight undecided.
        Warns: UserWarning where the interval of the personal weight holds 0, or lies below it.
        Cost: 2 C V D FLOPs and C V exponentials for each of about ten steps.
        """
        checks.number("most_cases", most_cases, ge=LEAST_CASES, integer=True)
        base = self if prior is None else self.refresh_prior(prior)
        given, words = self._cases_to_fit(cases)
        known, _ = readable_cases(self.model, self.split.train, given)
        if known.num_cases == 0:
            raise self._unreadable("cases", given)
        fitted = fit_weights(
            base.model,
            known,
            fitted_on=words,
            most_cases=most_cases,
            seed=self.config.seed,
            logits=self.config.loss_part.logits,
        )
        if fitted.undecided:
            text = f"fit_serving: {fitted.undecided}"
            warnings.warn(text, UserWarning, stacklevel=checks.level_outside())
        return dataclasses.replace(base, serving=fitted, metrics={})

    def _unreadable(self, argument: str, cases: Cases) -> ValueError:
        encoder = str(self.config.encoder)
        return checks.wrong(
            argument, f"cases that the encoder {encoder!r} can read", text=f"{cases.num_cases:,} others"
        )

    def _cases_to_fit(self, cases: Any) -> tuple[Cases, str]:
        if cases is None:
            return self._cases("valid"), "the validation part"
        if isinstance(cases, Cases):
            if cases.num_items != self.log.num_items:
                raise checks.wrong("cases", f"cases of {self.log.num_items} items", cases)
            return cases, "given cases"
        if not isinstance(cases, Interactions):
            raise checks.wrong_type("cases", "Cases, Interactions or None", cases)
        for name in ("user_ids", "item_ids"):
            if not np.array_equal(getattr(cases, name), getattr(self.log, name)):
                raise checks.wrong("cases", f"events over the {name} of the log", cases)
        users = np.flatnonzero(np.diff(cases.offsets))
        return (build_cases(users, self.split.known, cases, True)[0], f"{cases.num_events:,} given events")

    def _prior_is_current(self) -> bool:
        """False once `set_log_prior` has changed the model behind this result."""
        if not self.config.prior_part.refreshable:
            return True
        held_V = self.model.decoder.log_prior_V.cpu().numpy()
        return bool(np.array_equal(held_V, self.prior.log_prior_V.astype(np.float32)))

    def _cases(self, part: Any) -> Cases:
        if isinstance(part, Cases):
            readable = readable_cases(self.model, self.split.train, part)[0]
            if readable.num_cases == 0:
                raise self._unreadable("part", part)
            return readable
        checks.one_of("part", part, ("test", "valid"))
        cases = getattr(self.split, part)
        if cases is None or cases.num_cases == 0:
            raise checks.wrong(
                "part", f"a {part} part in the split", text=f"split={str(self.config.split)!r}"
            )
        return readable_cases(self.model, self.split.train, cases)[0]

    def audit(
        self,
        *,
        permutations: int = 2000,
        seed: int = 0,
        smoothing: str | float | None = None,
        popularity_weight: float | None = None,
        null: str = "label",
        strata: Any = None,
        min_count: float = 0,
        subset: Any = None,
        top_k: int = 10,
        diagnostics: Any = (),
    ) -> Audit:
        """`fastpop.audit` of this model: one context and one count a training event that the encoder
        predicts.

        popularity_weight: None audits the learned part s = scale * <query, item>; a number audits
        the scores served at that popularity_weight. smoothing: of the direction; None takes the run's own.
        null, strata, min_count, subset, top_k, diagnostics: as in `fastpop.audit`; ids are places in
        log.item_ids.
        """
        checks.number("top_k", top_k, ge=0, integer=True)
        checks.number("seed", seed, ge=0, le=2**64 - 1, integer=True)
        decoder = self.model.decoder
        bias = None
        if popularity_weight is not None:
            bias = decoder.served_bias(popularity_weight).double().cpu().numpy()
        sample = ContextSample(seed) if top_k else None
        moments = moments_of(self.model, self.split.train, bias, sample)
        prior = target_prior(
            self.split.train,
            self.config.encoder_part,
            self.config.smoothing if smoothing is None else smoothing,
        )
        return audit_moments(
            moments,
            prior,
            permutations=permutations,
            seed=seed,
            null=null,
            strata=strata,
            nll=self.metrics.get("nll") if self._prior_is_current() else None,
            nll_of="of the model as trained, on the test cases",
            min_count=min_count,
            subset=subset,
            logits=self.config.loss_part.logits,
            top_k=top_k,
            sample=sample,
            diagnostics=diagnostics,
        )

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        histories: Any = None,
        popularity_weight: float | None = None,
        personal_weight: float | None = None,
        log_p: Any = None,
        exclude_seen: bool = True,
        candidates: Any = None,
        allow: Any = None,
        deny: Any = None,
        new_items: Any = None,
        new_log_p: Any = None,
        titles: Any = None,
        unknown: str = "warn",
    ) -> Recommendations:
        """The k best items of each user, given everything the log says of them; or of each history.

        Args:
            users: ids as in the log; beside `histories`, names for these, which need be in no log.
            k: no more than the catalogue are given.
            histories: lists of item ids, oldest first, of anybody: a list of lists, or a dict from name to
                list. For encoders that read histories. Items that the log does not have are left out; a
                history in which none is left, or that is empty, is served log p alone (or what is learned in
                its place).
            popularity_weight: β; personal_weight: λ; None takes what `fit_serving` found, or else serves the
                scores as trained.
            log_p: today's, for this call: [V] nats in the order of log.item_ids, or a PopularityPrior;
                `refresh_prior` takes counts, and keeps them.
            exclude_seen: leave out items of the history.
            candidates: a list of item ids for each user: rank only these.
            allow, deny: item ids, or a mask [V] of bools in the order of log.item_ids, for all users: show
                only these; never show those. The mask is quick where the list is long.
            new_items: items that the log does not have, a dict from id to features, in a run whose item tower
                makes vectors of features (`ItemTower.new_items`). They stand among the others, under the same
                lists of ids; in a history they tell nothing.
            new_log_p: of them, nats, a number or one an item; None: the least of the catalogue.
            titles: a table of items, as `fastpop.data.read_titles` takes it, or what that gave; one that has
                none of the log's is an error.
            unknown: what is done about item ids that the log does not have: "warn" (once), "error", "ignore".
                `facts` of what is returned has their numbers.
        Returns: Recommendations.
        Raises: ValueError for a user that the log does not have, or that the encoder cannot read
            (no training event for a user embedding, no history for a sequence encoder); for histories where
            the encoder reads none; for a history without a known item at popularity_weight 0; TypeError for
            ids of another kind than the log's; NotImplementedError for new_items where the item tower has
            no features.
        Warns: UserWarning for item ids that the log does not have, and where some items have no title.
        Cost: O(n V D), streaming over the catalogue; with candidates O(D) for each.
        """
        base = self if log_p is None else self._beside(log_p)
        return recommending.recommend(
            base,
            base.served(popularity_weight, personal_weight),
            users,
            k,
            histories=histories,
            exclude_seen=exclude_seen,
            candidates=candidates,
            allow=allow,
            deny=deny,
            new_items=new_items,
            new_log_p=new_log_p,
            titles=titles,
            unknown=unknown,
        )

    def similar_items(
        self,
        items: Any,
        k: int = 10,
        *,
        popularity_weight: float = 0.0,
        allow: Any = None,
        deny: Any = None,
        titles: Any = None,
        unknown: str = "warn",
    ) -> Recommendations:
        """The k items whose vectors have the largest cosine with each item's.

        score = cosine + popularity_weight * log p. Where log p was outside in training, the vectors hold
        little of it, so that 0 compares what is left; a model that was trained without holds it there.
        items: ids as in the log; an item is not similar to itself. The rest as in `recommend`.
        Returns: Recommendations, whose `user` are the items asked for.
        Raises: ValueError for an item that the log does not have.
        Cost: O(n V D), and a copy of the item vectors.
        """
        return recommending.similar_items(
            self,
            items,
            k,
            popularity_weight=popularity_weight,
            allow=allow,
            deny=deny,
            titles=titles,
            unknown=unknown,
        )

    def _beside(self, log_p: Any) -> "TrainResult":
        """The same with another log p, [V] nats or a PopularityPrior, for one call: it keeps its prior."""
        self._need_refreshable("log_p")
        if isinstance(log_p, PopularityPrior):
            return self.refresh_prior(log_p)
        log_p_V = checks.float_array("log_p", log_p, 1)
        checks.shape("log_p", log_p_V, (self.log.num_items,))
        return dataclasses.replace(self, model=self.model.with_prior(log_p_V))

    def _need_refreshable(self, argument: str) -> None:
        if not self.config.prior_part.refreshable:
            raise checks.wrong(
                argument,
                "a run with prior 'none', 'frozen' or 'by-period'",
                text=f"prior={str(self.config.prior)!r}",
            )

    def export_index(
        self,
        kind: str = "flat",
        *,
        out: str | Path | None = None,
        cases: Cases | None = None,
        k: int = 10,
        betas: tuple[float, ...] = BETAS,
        most_cases: int = 1000,
        batch: int = 1024,
        **options: Any,
    ) -> ItemIndex:
        """An index of the item vectors with a column of log p: one for every popularity weight.

        Args:
            kind: "flat", exact and fastpop's own; or of faiss (`pip install 'fastpop[index]'`): "faiss-flat",
                exact, "faiss-hnsw", a graph, "faiss-ivf", inverted lists.
            out: a folder to save it in (`ItemIndex.load`).
            cases: whose queries the recall is measured on, at most most_cases of them by the run's seed;
                None: the test part, or else users of the log. k, betas: of the recall; repr(index) shows it.
            batch: queries that are searched at once.
            options: of faiss-hnsw m, ef_construction, ef_search; of faiss-ivf num_lists, num_probes,
                num_trained.
        Returns:
            ItemIndex: search(queries, k, popularity_weight=...), refresh(prior), recall, save(folder).
        Raises: ValueError, TypeError: says the argument, the expected and the got. ImportError: no faiss.
        Cost: "flat" copies nothing; faiss V (D + 1) float32, a graph 8 m bytes an item more.
        """
        index = item_index.measured_index(self, kind, cases, k, betas, most_cases, batch, options)
        if out is not None:
            index.save(out)
        return index

    def refresh_prior(self, counts: Any, *, smoothing: str | float | None = None) -> "TrainResult":
        """A result with log p of new counts [V] (say, yesterday's), without retraining.

        counts: of the events that are to be predicted, whole or fractional; for a sequence encoder
        log.item_counts(first_events=False) is what training counted. Or a PopularityPrior, as
        `recency_counts(log).prior()`, which is taken as it is.
        smoothing: of the counts; None takes the run's own. What popularity_weight multiplies is another, the
        learned part the same. The result has no metrics: they were of the old prior. This one and its
        model stay as they are.
        Raises ValueError for a permuted or a learned popularity term, which no counts replace.
        """
        self._need_refreshable("counts")
        if isinstance(counts, PopularityPrior):
            if smoothing is not None:
                raise checks.wrong("smoothing", "None beside a PopularityPrior, which has its own", smoothing)
            prior = counts
        else:
            prior = PopularityPrior.from_counts(
                counts, smoothing=self.config.smoothing if smoothing is None else smoothing
            )
        if prior.num_items != self.model.decoder.num_items:
            raise checks.wrong(
                "counts", f"shape [{self.model.decoder.num_items}], one count an item", prior.counts_V
            )
        model = self.model.with_prior(prior.log_prior_V)
        return dataclasses.replace(self, model=model, prior=prior, metrics={})

    def save(self, out: str | Path) -> Path:
        """Write a folder that `fastpop.load` reads: config, log, model, metrics, history.

        out: a new or empty folder, or the run's own. Raises ValueError for any other.
        """
        place = local_path(out, "out")
        own_test = self.split.test if self.split.facts.get("rule") == "own-test" else None
        folder.check_parts(self.config)
        print_of_log = folder.fingerprint(self.log, own_test)
        if folder.state_of(place) != "nothing":
            if folder.read_config(place)[folder.LOG_PRINT] != print_of_log:
                raise checks.wrong(
                    "out", "the folder of this run, or a new one", text=f"{place}, a run on another log"
                )
        elif place.is_dir() and folder.others_in(place):
            raise checks.wrong("out", "a new or an empty folder", text=f"{place}, which has files")
        with folder.held(place):
            folder.write_config(place, self.config, print_of_log)
            if not (place / "log").exists():
                with checkpoint.explained(place / "log"):
                    self.log.save(place / "log")
            if own_test is not None and not (place / "test-cases").exists():
                with checkpoint.explained(place / "test-cases"):
                    own_test.save(place / "test-cases")
            self.write_model(place)
        return place

    def write_model(self, place: Path, ranks: Ranks | None = None) -> None:
        """The model with its metrics, into a folder of this run that is held. For `fastpop.train`. ranks: of
        several processes, each with its rows; all of them write together."""
        prior, about = self.prior.to_arrays()
        state = {
            "metrics": self.metrics,
            "history": self.history,
            "facts": self.facts,
            "prior": about,
            "serving": None if self.serving is None else self.serving.to_dict(),
        }
        tensors = {
            "model": checkpoint.model_tensors(self.model, ranks),
            "prior": {name: torch.tensor(array) for name, array in prior.items()},
        }
        if ranks is None or ranks.leads:
            checkpoint.write_text(place / prints.METRICS, prints.metrics_text(self.metrics))
        if ranks is None:
            checkpoint.write_folder(place / "model", tensors, state)
        else:
            checkpoint.write_whole(place / "model", tensors, state, ranks)


def moments_of(
    model: Recommender,
    train: Interactions,
    bias_V: np.ndarray | None = None,
    sample: ContextSample | None = None,
) -> ScoreMoments:
    """Moments of the learned part (plus bias_V), one context a training event; a sample of these
    contexts in `sample`. The item table is the model's own: training goes on under the moments' hands."""
    decoder = model.decoder
    chunks = ((query, weight) for query, weight, _ in model.training_contexts(train))
    moments = ScoreMoments.of(
        chunks if sample is None else sample.watch(chunks),
        decoder.item_vectors().detach(),
        bias=bias_V,
        scale=float(decoder.scale.detach()),
    )
    return dataclasses.replace(moments, weighting="one context per training event")


def judged_by(config: TrainConfig, counts_V: np.ndarray) -> dict[str, Any]:
    """The options of `evaluation.evaluate` that a run has settled."""
    return {"counts": counts_V, "mask_seen": config.mask_seen, "logits": config.loss_part.logits}


def evaluate_model(
    model: Recommender,
    cases: Cases,
    counts_V: np.ndarray,
    config: TrainConfig,
    *,
    popularity_weight: float | None = None,
    personal_weight: float = 1.0,
    ks: tuple[int, ...] = (10, 20),
    metrics: Any = None,
    propensity: Any = None,
    ranks: Ranks | None = None,
) -> "evaluation.Evaluation":
    """Evaluation of readable cases at two weights (None: as trained). ranks: of the model that several
    processes train, as trained."""
    return evaluation.evaluate(
        model.served(popularity_weight, personal_weight) if ranks is None else ranks.scores(model, cases),
        cases,
        ks=ks,
        metrics=metrics,
        **judged_by(config, counts_V),
    )
