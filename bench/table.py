"""A record of benchmarks as one table: `python bench/table.py bench/records/latest.json`."""

import json
import sys
from pathlib import Path
from typing import Any

HEAD = f"{'':38}{'median':>12}{'of ceiling':>12}{'memory':>12}{'error':>10}{'speed':>9}"


def render(benchmarks: list[dict[str, Any]], ceilings: dict[str, float] | None) -> str:
    """The record's "benchmarks", grouped by op and shape, fastest first.

    speed: median of the group's fastest peer over the contender's own, so fastpop is ahead above 1.
    of ceiling: the FLOP the op needs over the time, as a part of the GEMM speed measured in the
    same run, or the bytes as a part of the copy speed. memory: most held above the inputs, gradients
    included. error: largest difference of the result from float64.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in benchmarks:
        if "contender" in one["extra_info"]:
            groups.setdefault(one["group"], []).append(one)
    lines = [HEAD]
    for name, group in groups.items():
        lines.append(name)
        peers = [_median(one) for one in group if not one["extra_info"]["ours"]]
        for one in sorted(group, key=_median):
            speed = f"{min(peers) / _median(one):8.2f}x" if peers else ""
            lines.append(_line(one, ceilings or {}, speed))
    return "\n".join(lines)


def _median(one: dict[str, Any]) -> float:
    return one["stats"]["median"]


def _line(one: dict[str, Any], ceilings: dict[str, float], speed: str) -> str:
    facts = one["extra_info"]
    work, ceiling = facts.get("work"), ceilings.get(facts.get("ceiling", ""))
    part = f"{work / _median(one) / ceiling:.0%}" if work and ceiling else ""
    peak = facts.get("peak_bytes")
    memory = "" if peak is None else f"{peak / 2**20:,.1f} MiB"
    error = f"{facts['error']:.0e}" if "error" in facts else ""
    return (
        f"  {facts['contender']:36}{_median(one) * 1e3:9,.2f} ms{part:>12}{memory:>12}{error:>10}{speed:>9}"
    ).rstrip()


def render_ceilings(found: list[dict[str, float]]) -> str:
    """Each measured at the start and at the end; far apart means that the machine was not quiet."""
    lines = []
    for name, unit in (("gemm_float32", "GFLOP/s"), ("gemm_bfloat16", "GFLOP/s"), ("copy", "GB/s")):
        if all(name in one for one in found):
            shown = ", then ".join(f"{one[name] / 1e9:,.0f}" for one in found)
            lines.append(f"{name.replace('_', ' ')}: {shown} {unit}")
    if any(min(one[name] for one in found) < 0.8 * most for name, most in best_ceilings(found).items()):
        lines.append("THE MACHINE WAS NOT QUIET: the ratios below say little")
    return "\n".join(lines)


def best_ceilings(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(one[name] for one in found) for name in (found[0] if found else {})}


def main(path: str) -> None:
    record = json.loads(Path(path).read_text())
    found = record["machine_info"].get("ceilings", [])
    print(render_ceilings(found))
    print(render(record["benchmarks"], best_ceilings(found)))


if __name__ == "__main__":
    main(sys.argv[1])
