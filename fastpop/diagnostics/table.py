"""An audit as plain text for a first-time reader: at most 80 columns, every number named."""

import textwrap
from typing import TYPE_CHECKING

from fastpop.diagnostics.part import at_least
from fastpop.diagnostics.significance import PermutationTest, p_short

if TYPE_CHECKING:
    from fastpop.diagnostics.audit_result import Audit

WIDTH = 80
LOGITS = "1: the scores contain log p once; 0: popularity is outside the scores"
NO_UNIT = (
    "the slope has no unit: these scores are not known to be logits (logits=True says so), and "
    "others have a scale of their own; go by the correlation"
)

NO_DIRECTION = "neither says anything where log p has no direction"


def audit_table(audit: "Audit") -> str:
    """The text of Audit.table()."""
    alpha = "good-turing" if audit.alpha is None else f"{audit.smoothing}, alpha {audit.alpha:.4g}"
    unit = "squared nats" if audit.logits else "squared scores"
    lines = [
        "Popularity audit",
        *_filled(
            f"{audit.num_contexts:,} contexts, {audit.num_items:,} items, dim {audit.dim}; contexts "
            f"weighted {audit.weighting}."
        ),
        *_filled(
            f"Items: {audit.part}. log p: smoothed counts ({alpha}), "
            f"{audit.sensitivity.unseen_share:.1%} of items unseen."
        ),
        *_filled(f"Scores are centred over items (uniform centring); energies are {unit}."),
        *(line for text in audit.cautions for line in _filled(f"Caution: {text}.")),
        "",
        *_energy_lines(audit),
        "",
        *_slope_lines(audit),
        *_list_lines(audit),
        f"  calibration: {audit.calibration}",
        "",
        *_null_lines(audit),
        "",
        *_share_lines(audit),
        "  Does the choice of alpha matter? cosine of log p's direction to the one used",
        "    alpha  " + "".join(f"{a:>9.3g}" for a in audit.sensitivity.alphas),
        "    cosine " + "".join(f"{c:>9.4f}" for c in audit.sensitivity.cosines),
        "",
        *_geometry_lines(audit),
        *_measured_lines(audit),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _energy_lines(audit: "Audit") -> list[str]:
    e, under_p = audit.energy, audit.energy_prior_centred
    whole = 1.0 if e.total > 0 else None
    off = e.off_direction / e.total if whole else None
    # Along a direction that is noise a p-value invites a reading that it does not bear.
    tests = (audit.test_direction, audit.test_shared) if not audit.no_direction else (None, None)
    return [
        f"  {'energy':<33}{'absolute':>12}{'share':>10}{'under p':>10}{'p-value':>13}",
        _line("total", e.total, whole, whole),
        _line(
            "along log p (direction)", e.direction, e.fraction_direction, under_p.fraction_direction, tests[0]
        ),
        _line(
            "  same for every context (shared)",
            e.shared,
            e.fraction_shared,
            under_p.fraction_shared,
            tests[1],
        ),
        _line(
            "  differing between contexts",
            e.heterogeneous,
            e.fraction_direction - e.fraction_shared,
            under_p.fraction_direction - under_p.fraction_shared,
        ),
        _line(
            "off log p",
            e.off_direction,
            off,
            under_p.off_direction / under_p.total if under_p.total > 0 else None,
        ),
        _line(
            "by chance: 1/(items - 1)",
            e.total * audit.chance_level,
            audit.chance_level,
            audit.chance_level_prior_centred,
        ),
        "  (under p: share with scores and log p centred under p, not uniformly)",
    ]


def _slope_lines(audit: "Audit") -> list[str]:
    e = audit.energy
    words = NO_DIRECTION if audit.no_direction else LOGITS if audit.logits else NO_UNIT
    return [
        f"  mean score against log p: correlation {_number(audit.correlation)}, slope {e.slope_mean:.4g}",
        f"  slope of the scores on log p: spread over contexts {e.slope_std:.3g}",
        *_filled(f"({words})", 4),
    ]


def _list_lines(audit: "Audit") -> list[str]:
    lists = audit.lists
    if lists is None:
        return _filled(f"top lists: {audit.lists_why}")
    return _filled(
        f"top {lists.k}, nothing masked, {lists.num_contexts:,} contexts: items of {lists.mean_count:.4g} "
        f"events on average, {lists.ratio:.3g} times the mean of the items audited, "
        f"{lists.catalogue_mean:.4g}"
    )


def _null_lines(audit: "Audit") -> list[str]:
    lines = _filled(
        f"Null: {audit.null_words or audit.null}; {audit.num_permutations:,} draws, seed {audit.seed}."
    )
    for name, test in (("direction", audit.test_direction), ("shared", audit.test_shared)):
        lines.append(f"    {name:<10} {_null_mean(test)}")
        if audit.num_permutations and not audit.no_direction:
            lines += _filled(test.words(), 15)
    if audit.no_direction:
        lines.append("  No p-values are shown: there is no direction to test.")
    elif audit.num_permutations == 0:
        lines.append("  No p-values: no permutations were asked for.")
    elif audit.null_note:
        lines += textwrap.wrap(audit.null_note, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return lines


def _null_mean(test: PermutationTest) -> str:
    """Of the null itself where it is known, else of the draws."""
    if test.null_mean is not None:
        return f"exact null mean {_number(test.null_mean)} +- {(test.null_variance or 0) ** 0.5:.3g}"
    if test.num_permutations == 0:
        return "exact null mean not known"
    return f"mean of the draws {_number(float(test.null_P.mean()))} +- {test.null_P.std():.3g}"


def _share_lines(audit: "Audit") -> list[str]:
    if len(audit.shares) < 2 or audit.no_direction:
        return []
    lines = [
        f"  {'share over items with':<22}{'items':>11}{'along log p':>13}{'by chance':>11}{'shared':>10}"
        f"{'corr.':>11}"
    ]
    for one in audit.shares:
        name = at_least(one.min_count) if one.min_count else "any count"
        lines.append(
            f"    {name:<20}{one.num_items:>11,}{_number(one.fraction_direction):>13}"
            f"{_number(1 / (one.num_items - 1)):>11}{_number(one.fraction_shared):>10}"
            f"{_number(one.correlation):>11}"
        )
    if audit.shares[0].min_count == 0:
        lines.append(f"  energy in scores of items without events: {audit.unseen_energy:.1%}")
    return [*lines, ""]


def _line(
    name: str, value: float, share: float | None, under_p: float | None, test: PermutationTest | None = None
) -> str:
    p = "" if test is None else p_short(test.p_value, test.num_permutations)
    return f"  {name:<33}{value:>12.5g}{_number(share):>10}{_number(under_p):>10}{p:>13}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


def _filled(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))


def _geometry_lines(audit: "Audit") -> list[str]:
    g = audit.geometry
    head = f"  {'geometry':<22}{'R1':>9}{'eff. rank':>11}{'part. ratio':>13}{'IsoScore':>10}"
    rows = [
        ("items, raw", g.items_raw),
        ("items, centred", g.items_centred),
        ("queries, centred", g.queries_centred),
        ("scores, centred", g.scores),
    ]
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


def _measured_lines(audit: "Audit") -> list[str]:
    rows = [row for one in audit.measured for row in one.rows()]
    if not rows:
        return []
    shown = [(textwrap.shorten(name, 60, placeholder="…"), _number(value)) for name, value in rows]
    return ["", "  also measured", *(f"    {name:<60}{value:>13}" for name, value in shown)]
