"""An audit as plain text for a first-time reader: at most 80 columns, every number named."""

import textwrap
from typing import TYPE_CHECKING

from fastpop.diagnostics.part import at_least
from fastpop.diagnostics.significance import PermutationTest, p_short
from fastpop.text import aligned

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
        *aligned(
            [
                ["    alpha", *(f"{a:.3g}" for a in audit.sensitivity.alphas)],
                ["    cosine", *(f"{c:.4f}" for c in audit.sensitivity.cosines)],
            ],
            least=(11, *(9 for _ in audit.sensitivity.alphas)),
            gap=0,
        ),
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
    rows = [
        ["  energy", "absolute", "share", "under p", "p-value"],
        _row("total", e.total, whole, whole),
        _row(
            "along log p (direction)", e.direction, e.fraction_direction, under_p.fraction_direction, tests[0]
        ),
        _row(
            "  same for every context (shared)",
            e.shared,
            e.fraction_shared,
            under_p.fraction_shared,
            tests[1],
        ),
        _row(
            "  differing between contexts",
            e.heterogeneous,
            e.fraction_direction - e.fraction_shared,
            under_p.fraction_direction - under_p.fraction_shared,
        ),
        _row(
            "off log p",
            e.off_direction,
            off,
            under_p.off_direction / under_p.total if under_p.total > 0 else None,
        ),
        _row(
            "by chance: 1/(items - 1)",
            e.total * audit.chance_level,
            audit.chance_level,
            audit.chance_level_prior_centred,
        ),
    ]
    return [
        *aligned(rows, least=(35, 12, 10, 10, 13), gap=0),
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
        lines += aligned([[f"    {name}", _null_mean(test)]], least=(14,), left=2, gap=1)
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
    rows = [["  share over items with", "items", "along log p", "by chance", "shared", "corr."]]
    for one in audit.shares:
        name = at_least(one.min_count) if one.min_count else "any count"
        shown = one.fraction_direction, 1 / (one.num_items - 1), one.fraction_shared, one.correlation
        rows.append([f"    {name}", f"{one.num_items:,}", *map(_number, shown)])
    lines = aligned(rows, least=(24, 11, 13, 11, 10, 11), gap=0)
    if audit.shares[0].min_count == 0:
        lines.append(f"  energy in scores of items without events: {audit.unseen_energy:.1%}")
    return [*lines, ""]


def _row(
    name: str, value: float, share: float | None, under_p: float | None, test: PermutationTest | None = None
) -> list[str]:
    p = "" if test is None else p_short(test.p_value, test.num_permutations)
    return [f"  {name}", f"{value:.5g}", _number(share), _number(under_p), p]


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


def _filled(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))


def _geometry_lines(audit: "Audit") -> list[str]:
    g = audit.geometry
    spectra = [
        ("items, raw", g.items_raw),
        ("items, centred", g.items_centred),
        ("queries, centred", g.queries_centred),
        ("scores, centred", g.scores),
    ]
    rows = [["  geometry", "R1", "eff. rank", "part. ratio", "IsoScore"]]
    for name, s in spectra:
        shown = s.r1, s.effective_rank, s.participation_ratio, s.isoscore
        rows.append([f"  {name}", *map(_number, shown)])
    lines = aligned(rows, least=(24, 9, 11, 13, 10), gap=0)
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
    shown = [["    " + textwrap.shorten(name, 60, placeholder="…"), _number(value)] for name, value in rows]
    return ["", "  also measured", *aligned(shown, least=(64, 13), gap=0)]
