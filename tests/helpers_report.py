"""A comparison and an audit as an experiment would hand them over, made up but of real shapes.

What is computed of the rows (means, intervals, differences, accuracy at equal popularity) is computed by the
experiment's own functions.
"""

import numpy as np

from fastpop.experiments import findings
from fastpop.experiments.frontier import matched

# name: (kind, slope of the learned part, what beta multiplies beside it)
ARMS = {
    "standard": ("trained", 0.93),
    "frozen": ("trained", 0.02),
    "learned": ("trained", 0.70),
    "learned-from-log-p": ("trained", 0.03),
    "permuted": ("trained", 0.95),
    "disjoint": ("trained", 0.05),
    "post-hoc": ("afterwards", -0.07),
    "post-hoc-fitted": ("afterwards", 0.0),
    "projected": ("afterwards", 0.0),
    "popularity": ("reference", 1.0),
    "recency": ("reference", 0.8),
    "markov": ("reference", 0.9),
}
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
DRAWS = 2000


def comparison(
    num_items=3000,
    seeds=(0, 1, 2, 3, 4),
    title="Matched intervention <on a log>",
    arms=tuple(ARMS),
    test=True,
    valid=True,
    shown=False,
    betas=BETAS,
):
    """arms: "standard" brings what is made of it. test: whether there is a test part; shown: with
    randomised exposure. valid: whether there is a validation part, and so a best epoch."""
    rng = np.random.default_rng(7)
    log_prior = np.sort(rng.gumbel(size=num_items))
    log_prior -= np.log(np.exp(log_prior).sum())
    norm = float(((log_prior - log_prior.mean()) ** 2).sum())
    readings = ["best", "equal"] if valid else ["equal"]
    rows, pairs, curves = [], [], []
    for seed in seeds:
        for arm in arms:
            for epochs in readings:
                rows += _rows(arm, seed, epochs, norm, rng, test, shown, betas)
                if arm != "standard" and ARMS[arm][0] != "reference":
                    pairs += [
                        {
                            "arm": arm,
                            "seed": seed,
                            "epochs": epochs,
                            "null": null,
                            "delta_direction": norm,
                            "delta_shared": norm,
                            "p_direction": 1 / (DRAWS + 1),
                            "p_shared": (1 + (3 + seed) * (arm == "permuted")) / (DRAWS + 1),
                        }
                        for null in ("label", "sign")
                    ]
            if ARMS[arm][0] == "trained":
                curves.append(_curve(arm, seed, rng, valid))
    summary = findings.summarise(rows)
    return {
        "title": title,
        "headline": "These models are beaten by counts: NDCG@10 of markov 0.0978, against 0.0736 of the best "
        "arm (frozen); the median user has 1 event to learn from.",
        "sentences": [
            "CAUTION: training ended before validation NLL had gone its epochs of patience without a better "
            "one in standard: more epochs (--max-epochs) could move that best reading.",
            *(f"Finding {n} of frozen, standard and post-hoc, told apart or not, said." for n in range(6)),
        ],
        "readings": readings,
        "permutations": DRAWS,
        "arms": [
            {
                "name": arm,
                "kind": ARMS[arm][0],
                "trained_on": "s + tau log p",
                "served_as": "s + beta log p",
                "readings": [],
            }
            for arm in arms
        ],
        "rows": rows,
        "summary": summary,
        "pairs": pairs,
        "curves": curves,
        "differences": findings.paired_differences(rows, list(arms)),
        "matched": [
            entry
            for epochs in readings
            if test
            for entry in matched(rows, "post-hoc", [arm for arm in arms if arm != "post-hoc"], epochs)
        ],
        "rules": {
            "encoder": "factor, dim 64",
            "decoder": "dot product, temperature 1, prior weight 1",
            "loss": "sampled softmax, logq=standard",
            "sampler": "popularity^0.75, 1,024 negatives",
            "context_weighting": "one context per training event",
            "popularity_weight": "β in {0, ..., 2}",
            "split": "leave-last-out; all arms train on half A",
            "null": "label and sign, 2,000 draws",
        },
        "data": {
            "name": "MovieTweetings 100K",
            "num_events": 100_000,
            "num_users": 16_554,
            "num_items": num_items,
            "num_cases": 9_097 if test else 0,
            "note": "7,457 users with one event have no test case.",
        },
        "scatter": [_scatter(arm, log_prior, rng) for arm in arms if ARMS[arm][0] != "reference"],
        "nulls": _nulls(norm, rng) if "frozen" in arms else [],
        "exposure": _exposure(arms, rng) if test else [],
        "made_by": {"version": "0.1.0", "seconds": 512.0, "config": {"dim": 64}},
    }


def _rows(arm, seed, epochs, norm, rng, test, shown, betas):
    kind, slope = ARMS[arm]
    slope = slope + rng.normal(0, 0.003)
    shared = 0.0 if arm in ("post-hoc-fitted", "projected") else slope**2 * norm
    het, off = 0.07 * norm * rng.normal(1, 0.1), 2.4 * norm * rng.normal(1, 0.03)
    energy = {
        "energy_total": shared + het + off,
        "energy_direction": shared + het,
        "energy_off_direction": off,
        "energy_shared": shared,
        "energy_heterogeneous": het,
        "slope": slope,
        "fraction_direction": (shared + het) / (shared + het + off),
        "fraction_shared": shared / (shared + het + off),
    }
    p_value = 1 / (DRAWS + 1) if slope > 0.04 else 0.31
    learned = {
        "epoch": {"best": 7 + seed % 2, "equal": 6}[epochs],
        **energy,
        "amplitude": abs(slope) / 0.93,
        "reduction_shared": 1 - shared / (0.93**2 * norm),
        "cos2_change": float("nan") if arm == "standard" else 0.9 + rng.normal(0, 0.01),
        "p_value_direction": p_value,
        "p_value_shared": p_value,
        "p_value_sign_direction": p_value,
        "p_value_sign_shared": min(1.0, 2 * p_value),
        "energy_shared_b": shared,
        "slope_b": slope,
        "r1_items": 0.3 + rng.normal(0, 0.01),
        "r1_scores": 0.4 + rng.normal(0, 0.01),
        "effective_rank_items": 30 + rng.normal(),
        "effective_rank_scores": 12 + rng.normal(),
        "cosine_items": rng.normal(0, 0.01),
        "pc1_items": 0.8 + rng.normal(0, 0.01),
        "pc1_scores": 0.7 + rng.normal(0, 0.01),
    }
    made = [] if kind == "reference" else [(None, learned)]
    for beta in betas if kind != "reference" and arm != "standard" else (1.0,):
        pull = slope if arm in ("standard", "popularity", "recency", "markov") else min(slope + beta, 2.0)
        noise = rng.normal(0, 0.0006)
        values = {} if kind == "reference" or beta not in (0, 0.5, 1) else dict(energy)
        if test:
            values |= {
                "hr@10": 0.081 - 0.03 * (1 - pull) ** 2 + 2 * noise,
                "recall@10": 0.081 - 0.03 * (1 - pull) ** 2 + 2 * noise,
                "ndcg@10": 0.048 - 0.016 * (1 - pull) ** 2 + 0.003 * (arm == "frozen") + noise,
                "recall_head@10": 0.2 * max(pull, 0.1) + noise,
                "recall_mid@10": 0.05 + noise,
                "recall_tail@10": 0.02 - 0.005 * pull + noise,
                "coverage@10": 0.3 - 0.1 * pull + noise,
                "gini@10": 0.7 + 0.1 * pull + noise,
                "arp@10": 40 * np.exp(0.8 * pull) * (1 + 20 * noise),
                "novelty@10": 12 - 2.4 * pull + noise,
            }
        if test and beta == 1 and arm != "markov":
            values |= {"nll": 7.2 + 0.2 * (1 - pull) ** 2 + 20 * noise}
        if shown and beta in (0, 0.5, 1) and arm != "markov":
            values |= {"auc_shown": 0.61 + noise, "ndcg_shown@5": 0.45 + noise}
        made.append((beta, values))
    return [
        {
            "arm": arm,
            "seed": seed,
            "epochs": epochs,
            "popularity_weight": beta,
            "values": {name: float(value) for name, value in values.items()},
        }
        for beta, values in made
    ]


def _curve(arm, seed, rng, valid):
    epoch = np.arange(1, 10)
    curve = {
        "arm": arm,
        "seed": seed,
        "epoch": epoch.tolist(),
        "loss": (6.5 + 2.2 * np.exp(-epoch / 4) + rng.normal(0, 0.02, 9)).tolist(),
        "readings": {"equal": 6} | ({"best": 7 + seed % 2} if valid else {}),
    }
    if valid:
        shape = 1 - np.exp(-epoch / 4)
        curve |= {
            "nll": [None, *(8.2 - shape[1:] - 0.1 * (arm == "frozen")).tolist()],
            "ndcg@10": (0.05 * shape).tolist(),
            "slope": (ARMS[arm][1] * shape).tolist(),
            "energy_off_direction": (900 * shape).tolist(),
        }
    return curve


def _scatter(arm, log_prior, rng):
    slope = ARMS[arm][1]
    mean_score = slope * log_prior + rng.normal(0, 0.5, len(log_prior))
    served = {} if arm == "standard" else {"served_score": mean_score + log_prior, "served_slope": slope + 1}
    return {
        "arm": arm,
        "log_prior": log_prior,
        "mean_score": mean_score,
        "slope": slope,
        "num_items": len(log_prior),
        **served,
    }


def _nulls(norm, rng):
    return [
        {
            "arm": "standard - frozen",
            "statistic": "energy_shared",
            "observed": 0.86 * norm,
            "samples": rng.normal(0, spread, DRAWS) ** 2 * norm,
            "kind": kind,
            "p_value": 1 / (DRAWS + 1),
        }
        for kind, spread in (("label", 0.03), ("sign", 0.04))
    ]


def _exposure(arms, rng):
    return [
        {
            "arm": arm,
            "popularity_weight": beta,
            "k": 10,
            "share": rng.dirichlet(np.linspace(9, 1, 10)).tolist(),
        }
        for arm in arms
        if ARMS[arm][0] != "reference"
        for beta in ((0.0, 1.0) if arm in ("post-hoc", "frozen") else (1.0,))
    ]


def audit():
    made = comparison(seeds=(0,))
    values = made["rows"][0]["values"]
    scatter, null = made["scatter"][0], made["nulls"][0]
    test = {
        "statistic": "energy_shared",
        "observed": null["observed"],
        "p_value": 1 / 2001,
        "p_value_interval": [0.0, 0.0018],
        "kind": "label",
        "samples": null["samples"].tolist(),
    }
    return {
        **{k: values[k] for k in values if k.startswith(("energy", "fraction"))},
        "chance_level": 1 / 2999,
        "slope_mean": 0.93,
        "slope_std": 0.2,
        "p_value_direction": 1 / 2001,
        "p_value_shared": 1 / 2001,
        "num_permutations": 2000,
        "test_direction": {**test, "statistic": "energy_direction"},
        "test_shared": test,
        "null": "label",
        "seed": 0,
        "nll": None,
        "weighting": "one context per training event",
        "calibration": "calibration not computed",
        "mean_score": scatter["mean_score"].tolist(),
        "log_prior": scatter["log_prior"].tolist(),
    }
