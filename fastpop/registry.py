"""`fastpop.available`: the names a user can pass."""

from fastpop import checks

KINDS = ("encoders", "losses", "priors", "proposals", "presets", "experiments")


def available(kind: str) -> tuple[str, ...]:
    """Names that can be passed where `kind` is asked for.

    kind: "encoders", "losses", "priors", "proposals", "presets" or "experiments".
    """
    checks.one_of("kind", kind, KINDS)
    if kind == "encoders":
        from fastpop import encoders

        return encoders.NAMES
    if kind == "losses":
        from fastpop import objectives

        return objectives.NAMES
    if kind == "priors":
        from fastpop import decoder

        return decoder.ARMS
    if kind == "proposals":
        from fastpop import popularity

        return popularity.PROPOSALS
    if kind == "presets":
        from fastpop import data

        return tuple(data.PRESETS)
    from fastpop import experiments

    return experiments.NAMES
