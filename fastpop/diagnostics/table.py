"""An audit as plain text for a first-time reader: at most 80 columns, every number named."""

from typing import TYPE_CHECKING

from fastpop.diagnostics.significance import PermutationTest

if TYPE_CHECKING:
    from fastpop.diagnostics.energy import Audit

NULLS = {
    "label": "log p shuffled over all items",
    "stratified": "log p shuffled within the strata given",
    "sign": "random signs of centred log p",
}


def audit_table(audit: "Audit") -> str:
    """The text of Audit.table()."""
    e = audit.energy
    alpha = "good-turing" if audit.alpha is None else f"{audit.smoothing}, alpha {audit.alpha:.4g}"
    lines = [
        "Popularity audit",
        f"  {audit.num_contexts:,} contexts, {audit.num_items:,} items, dim {audit.dim}; "
        f"contexts weighted",
        f"  {audit.weighting}.",
        f"  log p: smoothed counts ({alpha}), "
        f"{audit.sensitivity.unseen_share:.1%} of items unseen.",
        "  Scores are centred over items (uniform centring); energies are nats squared.",
        "",
        f"  {'energy':<38}{'absolute':>13}{'share':>11}{'p-value':>11}",
        _line("total", e.total, 1.0 if e.total > 0 else None, None),
        _line("along log p (direction)", e.direction, e.fraction_direction,
              audit.p_value_direction),
        _line("  same for every context (shared)", e.shared, e.fraction_shared,
              audit.p_value_shared),
        _line("  differing between contexts", e.heterogeneous,
              e.fraction_direction - e.fraction_shared, None),
        _line("off log p", e.off_direction, e.off_direction / e.total if e.total > 0 else None, None),
        _line("chance level 1/(items - 1)", e.total * audit.chance_level, audit.chance_level,
              None),
        "",
        f"  slope of the scores on log p: mean {e.slope_mean:.4g}, "
        f"spread over contexts {e.slope_std:.3g}",
        "    (1: scores contain log p once; 0: popularity is outside the scores)",
        f"  centred under p instead: shared {audit.energy_prior_centred.shared:.5g}, "
        f"share {_number(audit.energy_prior_centred.fraction_shared)}",
        f"  calibration: {audit.calibration}",
        "",
        f"  Null: {NULLS[audit.null]}; {audit.num_permutations:,} draws, seed {audit.seed}.",
    ]
    lines += [_null_line("direction", audit.test_direction), _null_line("shared",
                                                                        audit.test_shared)]
    if audit.num_permutations == 0:
        lines.append("  No p-values: no permutations were asked for.")
    elif audit.null == "label":
        lines += [
            "  A small p says the scores follow log p more than shuffled copies of it do;",
            "  item norms tied to popularity are enough for that (see null=\"sign\").",
        ]
    cosines = audit.sensitivity
    lines += [
        "",
        "  Does the choice of alpha matter? cosine of log p's direction to the one used",
        "    alpha  " + "".join(f"{a:>9.3g}" for a in cosines.alphas),
        "    cosine " + "".join(f"{c:>9.4f}" for c in cosines.cosines),
        "",
        *_geometry_lines(audit),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, value: float, share: float | None, p_value: float | None) -> str:
    p = "" if p_value is None else _number(p_value)
    return f"  {name:<38}{value:>13.5g}{_number(share):>11}{p:>11}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


def _null_line(name: str, test: PermutationTest) -> str:
    exact = f"exact null mean {_number(test.null_mean)}"
    if test.null_variance is not None:
        exact += f" +- {test.null_variance**0.5:.3g}"
    line = f"    {name:<10} {exact}"
    if test.p_value_interval is not None:
        low, high = test.p_value_interval
        line += f"; p in [{low:.2g}, {high:.2g}]"
    return line


def _geometry_lines(audit: "Audit") -> list[str]:
    g = audit.geometry
    head = f"  {'geometry':<22}{'R1':>9}{'eff. rank':>11}{'part. ratio':>13}{'IsoScore':>10}"
    rows = [("items, raw", g.items_raw), ("items, centred", g.items_centred),
            ("queries, centred", g.queries_centred), ("scores, centred", g.scores)]
    lines = [head]
    for name, s in rows:
        lines.append(
            f"  {name:<22}{_number(s.r1):>9}{_number(s.effective_rank):>11}"
            f"{_number(s.participation_ratio):>13}{_number(s.isoscore):>10}"
        )
    lines += [
        f"  mean cosine of items: raw {_number(g.average_cosine_raw)}, "
        f"centred {_number(g.average_cosine_centred)}",
        f"  corr(item norm, log p) {_number(g.norm_correlation)}; "
        f"|corr(PC1, log p)| {_number(g.pc1_correlation)}",
        f"  R2(log p | items) {_number(g.popularity_r2)} "
        f"(shuffled: {_number(g.popularity_r2_null)}); "
        f"balance error {_number(g.balance_error)}",
    ]
    return lines
