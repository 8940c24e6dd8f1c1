"""`fastpop.available`: the names a user can pass."""

from fastpop import checks

KINDS = ("encoders", "losses", "priors", "proposals", "presets", "experiments")


def available(kind: str) -> tuple[str, ...]:
    """Names that can be passed where `kind` is asked for.

    kind: "encoders", "losses", "priors", "proposals", "presets" or "experiments".
    """
    checks.one_of("kind", kind, KINDS)
    if kind == "encoders":
        from fastpop.encoders import NAMES

        return NAMES
    if kind == "losses":
        from fastpop.objectives import NAMES

        return NAMES
    if kind == "priors":
        from fastpop.decoder import ARMS

        return ARMS
    if kind == "proposals":
        from fastpop.popularity import PROPOSALS

        return PROPOSALS
    if kind == "presets":
        from fastpop.data import PRESETS

        return tuple(PRESETS)
    from fastpop.experiments import NAMES

    return NAMES
