"""The popularity audit of a score matrix: how much of what a model says is just popularity."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastpop import checks, registry
from fastpop.blas import one_thread
from fastpop.diagnostics.audit_result import Audit
from fastpop.diagnostics.calibration import score_nll
from fastpop.diagnostics.diagnostic import Diagnostic, asked_for, measured
from fastpop.diagnostics.direction import weak_direction
from fastpop.diagnostics.geometry import geometry
from fastpop.diagnostics.lists import ContextSample, top_lists
from fastpop.diagnostics.many import audit_many
from fastpop.diagnostics.moments import ScoreMoments, is_nested_numbers
from fastpop.diagnostics.null import Null
from fastpop.diagnostics.part import (
    chosen_items,
    energy_of_items,
    part_words,
    prior_of,
    shares_by_count,
    unseen_items,
)
from fastpop.ops.score_energy import GramStream
from fastpop.popularity.prior import PopularityPrior
from fastpop.stats import correlation

STREAMED = "a GramStream keeps no contexts to make lists of"


@one_thread
def audit(
    query: Any,
    items: Any,
    counts: Any,
    *,
    bias: Any = None,
    scale: float = 1.0,
    context_weight: Any = None,
    smoothing: str | float = "loo",
    permutations: int = 2000,
    seed: int = 0,
    pos_id: Any = None,
    null: str | Null = "label",
    strata: Any = None,
    threads: int | None = None,
    min_count: float = 0,
    subset: Any = None,
    logits: bool | None = None,
    top_k: int = 10,
    diagnostics: Iterable[str | Diagnostic] = (),
) -> Audit:
    """numpy: S = scale * query @ items.T + bias; how much of it lies along log p, and is that
    more than for log p shuffled over the items?

    Args:
        query: [C, D] context vectors, numpy or torch of any real dtype; or an iterable of chunks
            [c, D] or ([c, D], weights [c]); or a GramStream. Only D² numbers of it are kept, and
            2,048 rows for the lists.
        items: [V, D] item table, V >= 4.
        counts: [V] real >= 0: training events of each item; not all equal.
        bias: [V] nats, what the model adds to the dot product; None for nothing.
        scale: multiplies the dot product only.
        context_weight: [C] >= 0; None counts every row once.
        smoothing: of log p: alpha >= 0, "loo" (by leave-one-out likelihood) or "good-turing".
        permutations: P; 0 leaves the p-values None.
        seed: of the permutations and of the contexts that lists are made of.
        pos_id: [C] int64 target of each context, with an array of queries: adds the NLL under the full
            softmax of these scores over the whole catalogue.
        null: "label" permutes log p over all items; "stratified" within `strata` [V]; "sign"
            turns signs at random (see `fastpop.ops.permutation`); or another of
            `fastpop.available("nulls")`, or a Null.
        threads: of the permutations; changes no result.
        min_count: audits the items with at least so many events. subset: audits these only, a mask [V]
            of bools or ids [n]. Scores and log p are then centred over what is left. log p is smoothed
            over the whole catalogue before; a distribution over fewer items differs by a constant, which
            centring takes out.
        logits: whether the scores are logits of a softmax. Only then is a slope of 1 or 0 on log p
            what it says, and are energies nats²; the correlation can be read for any scores. None: yes
            with pos_id, else no.
        top_k: length of the lists whose popularity is told, of up to 2,048 contexts; 0 for none.
        diagnostics: what is measured besides: names (`fastpop.available("diagnostics")`) or objects.
    Returns:
        Audit.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got. Uniform popularity has
            no direction and raises.
    Warns: UserWarning where log p has no direction to speak of (`weak_direction`), and where items
        without events carry the geometry (`diagnostics.part.unseen_items`); the audit says so, too.
    Cost: O((C + V) D²) and P passes over the item table (0.3 ms each at V = 200,000, D = 64 on
        two cores); 2 * 2,048 * V * D FLOPs for the lists; memory beyond inputs O(D²), some [V] float64, a
        float32 item table for the lists, 2 GiB of float64 columns at most for the permutations and their
        codes. With pos_id also C*V*D products, of float64 items.
    Source: arXiv:2606.21275.
    """
    if logits is None:
        logits = pos_id is not None
    elif pos_id is not None and not logits:
        raise checks.wrong("pos_id", "None with logits=False: an NLL is of logits", pos_id)
    checks.number("top_k", top_k, ge=0, integer=True)
    checks.number("seed", seed, ge=0, le=2**64 - 1, integer=True)
    null, diagnostics = registry.made("null", null), asked_for(diagnostics)
    prior = PopularityPrior.from_counts(counts, smoothing=smoothing)
    sample = None if isinstance(query, GramStream) or top_k == 0 else ContextSample(seed)
    whole = hasattr(query, "shape") or is_nested_numbers(query)
    if whole:
        query = checks.array_like("query", query)
    elif sample is not None and hasattr(query, "__iter__") and not isinstance(query, (str, bytes, dict)):
        query = sample.watch(query)
    moments = ScoreMoments.of(query, items, bias=bias, scale=scale, context_weight=context_weight)
    if whole and sample is not None:
        sample.add(query, context_weight)
    if prior.num_items != moments.num_items:
        raise checks.wrong("counts", f"shape [{moments.num_items}], one count an item", prior.counts_V)
    nll = None
    if pos_id is not None:
        nll = score_nll(query, items, pos_id, bias=bias, scale=scale, context_weight=context_weight)
    return audit_moments(
        moments,
        prior,
        permutations=permutations,
        seed=seed,
        null=null,
        strata=strata,
        threads=threads,
        nll=nll,
        min_count=min_count,
        subset=subset,
        logits=logits,
        top_k=top_k,
        sample=sample,
        diagnostics=diagnostics,
    )


@one_thread
def audit_moments(
    moments: ScoreMoments,
    prior: PopularityPrior,
    *,
    permutations: int = 2000,
    seed: int = 0,
    null: str | Null = "label",
    strata: Any = None,
    threads: int | None = None,
    nll: float | None = None,
    nll_of: str = "mean over the contexts given",
    min_count: float = 0,
    subset: Any = None,
    logits: bool = False,
    top_k: int = 10,
    sample: ContextSample | None = None,
    diagnostics: Iterable[str | Diagnostic] = (),
) -> Audit:
    """`audit` for a model already reduced to its moments, and a prior already smoothed.

    nll: calibration of the model, if known; nll_of: what it was taken over, in words. sample: contexts
    to make lists of; without them there are none.
    """
    chosen: Null = registry.made("null", null)
    further = asked_for(diagnostics)
    num_all = moments.num_items
    kept = chosen_items(prior.counts_V, min_count, subset)
    no_direction = weak_direction(prior, kept)
    if kept is not None:
        if strata is not None:
            stratum_V = checks.int_array("strata", strata)
            checks.shape("strata", stratum_V, (num_all,))
            strata = stratum_V[kept]
        moments, prior = moments.of_items(kept), prior_of(prior, kept)
    sensitivity = prior.sensitivity()
    tests = audit_many(
        {"scores": moments},
        prior.log_prior_V,
        permutations=permutations,
        seed=seed,
        null=null,
        strata=strata,
        threads=threads,
    )
    energy = tests.energy["scores"]
    shares = shares_by_count(moments, prior, energy, min_count)
    unseen = np.flatnonzero(prior.counts_V == 0)
    unseen_energy = energy_of_items(moments, unseen) / energy.total if energy.total > 0 else float("nan")
    lists = top_lists(sample, moments, prior.counts_V, top_k) if sample and top_k else None
    why = None if lists else "none were asked for" if top_k == 0 else STREAMED
    mean_score_V = moments.mean_score()
    found = Audit(
        energy=energy,
        energy_prior_centred=moments.energy(prior.log_prior_V, prior.prior_V),
        test_direction=tests.direction["scores"],
        test_shared=tests.shared["scores"],
        geometry=geometry(moments, prior.log_prior_V),
        sensitivity=sensitivity,
        correlation=correlation(mean_score_V, prior.log_prior_V),
        logits=logits,
        lists=lists,
        lists_why=why,
        shares=shares,
        unseen_energy=unseen_energy,
        no_direction=no_direction,
        unseen=None if no_direction else unseen_items(shares, unseen_energy),
        nll=nll,
        nll_of=nll_of,
        num_contexts=moments.num_contexts,
        num_items=moments.num_items,
        dim=moments.dim,
        weighting=moments.weighting,
        smoothing=prior.smoothing,
        alpha=prior.alpha,
        seed=seed,
        null=str(chosen),
        null_words=chosen.words,
        null_note=chosen.note,
        measured=tuple(measured(one, moments, prior.log_prior_V) for one in further),
        mean_score_V=mean_score_V,
        log_prior_V=prior.log_prior_V,
        part=part_words(num_all, moments.num_items, min_count, subset),
        item_ids=kept,
    )
    for caution in found.cautions:
        warnings.warn(f"audit: {caution}", UserWarning, stacklevel=checks.level_outside())
    return found
