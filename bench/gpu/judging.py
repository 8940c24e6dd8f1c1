"""A line of the record as a row for eyes, and the whole record as a table of at most 100 columns."""

from collections import Counter
from typing import Any

HEAD = f"{'':50}{'measured':>12}{'predicted':>12}{'ratio':>7}{'of bar':>10}{'bar':>8}"
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


def ceilings_of(lines: list[dict[str, Any]]) -> dict[str, float]:
    """The best that was measured of each."""
    found: dict[str, float] = {}
    for line in lines:
        if line["kind"] == "ceiling":
            found[line["name"]] = max(found.get(line["name"], 0.0), line["rate"])
    return found


def shown(seconds: float) -> str:
    unit, size = next((one for one in UNITS if seconds >= one[1]), UNITS[-1])
    return f"{seconds / size:,.2f} {unit}"


def reached(line: dict[str, Any], ceilings: dict[str, float]) -> float | None:
    """What part of the bar's ceiling a time reaches, None without a bar or its ceiling."""
    bar = line.get("bar")
    if not bar or not ceilings.get(bar["ceiling"]):
        return None
    return bar["work"] / line["seconds"] / ceilings[bar["ceiling"]]


def row(line: dict[str, Any], ceilings: dict[str, float]) -> str:
    name, kind = line["name"], line["kind"]
    if line.get("test"):
        name = "  " + name.split("::", 1)[-1]  # its parameters matter more than its file
    name = name[:50]
    if kind == "time":
        predicted = f"{shown(line['predicted']):>12}{line['ratio']:7.2f}" if "predicted" in line else " " * 19
        part, bar = reached(line, ceilings), ""
        if part is not None:
            least = line["bar"]["least"]
            bar = f"{f'{part:.0%}/{least:.0%}':>10}{'met' if part >= least else 'NOT MET':>8}"
        return f"{name:50}{shown(line['seconds']):>12}{predicted}{bar}".rstrip()
    if kind == "ceiling":
        measured, unit = _rate(line["rate"], line["unit"])
        predicted = ""
        if line.get("predicted"):
            expected, ratio = _rate(line["predicted"], "")[0], line["rate"] / line["predicted"]
            predicted = f"{expected:>12}{ratio:7.2f}"
        return f"{name:50}{measured:>12}{predicted} {unit}"
    if kind == "check":
        facts = _facts(line, ("ok",))
        return _cut(f"{name:50}{'ok' if line['ok'] else 'WRONG':>12}  {facts}")
    if kind in ("skipped", "error"):
        return _cut(
            f"{name:50}{kind.upper() if kind == 'error' else kind:>12}  "
            f"{line.get('reason') or line.get('error')}"
        )
    return _cut(f"{name:50}  {_facts(line)}")


def _rate(rate: float, unit: str) -> tuple[str, str]:
    size, prefix = (1e12, "T") if rate >= 1e12 else (1e9, "G")
    return f"{rate / size:,.2f}", prefix + unit


def _facts(line: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    known = ("run", "at", "section", "kind", "name", *without)
    return " ".join(f"{key}={value}" for key, value in line.items() if key not in known)


def _cut(text: str) -> str:
    text = " ".join(text.split("\n"))
    return text if len(text) <= 100 else text[:97] + "..."


CUT_OFF = "cut off"


def table(lines: list[dict[str, Any]]) -> str:
    """A run's lines by section. Tests that passed or were skipped are counted, not listed; a section that was
    cut off is named, whatever it had found."""
    ceilings, shown_rows, section = ceilings_of(lines), [HEAD], None
    for line in lines:
        if line["kind"] == "section" and line["name"] == "start" and CUT_OFF in _took(lines, line["section"]):
            section = line["section"]
            shown_rows.append(f"{section}{_took(lines, section)}")
        if line["kind"] in ("begin", "end", "run", "section"):
            continue
        if line.get("test") and (line.get("ok") or line["kind"] == "skipped"):
            continue
        if line["section"] != section:
            section = line["section"]
            shown_rows.append(f"{section}{_took(lines, section)}")
        shown_rows.append(
            _cut("  " + row(line, ceilings)[:98])
            if line["kind"] == "fact"
            else row(line | {"name": "  " + line["name"]}, ceilings)
        )
    return "\n".join([*shown_rows, "", *summary(lines, ceilings)])


def _took(lines: list[dict[str, Any]], section: str) -> str:
    ends = [
        line
        for line in lines
        if line["section"] == section and line["name"] == "end" and line["kind"] == "section"
    ]
    return f"  ({ends[0]['seconds']:.0f} s)" if ends else f"  ({CUT_OFF}: the run ended in it)"


def summary(lines: list[dict[str, Any]], ceilings: dict[str, float]) -> list[str]:
    kinds = Counter(line["kind"] for line in lines)
    bars = [
        part >= line["bar"]["least"]
        for line in lines
        if line["kind"] == "time" and (part := reached(line, ceilings)) is not None
    ]
    checks = [line["ok"] for line in lines if line["kind"] == "check" and not line.get("test")]
    tests = Counter(
        "skipped" if line["kind"] == "skipped" else "passed" if line["ok"] else "failed"
        for line in lines
        if line.get("test")
    )
    found = [
        f"{kinds['time']} times, {sum(bars)} of {len(bars)} bars met, {sum(checks)} of {len(checks)} "
        f"checks right, {kinds['error']} errors, {kinds['skipped'] - tests['skipped']} skipped"
    ]
    if tests:
        found.append(f"tests: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped")
    started = [line["section"] for line in lines if line["kind"] == "section" and line["name"] == "start"]
    planned = next((line["sections"] for line in lines if line["kind"] == "run"), [])
    if missing := [name for name in planned if name not in started]:
        found.append("not begun: " + ", ".join(missing))
    first = [line["rate"] for line in lines if line["kind"] == "ceiling" and line["section"] == "ceilings"]
    last = {
        line["name"]: line["rate"]
        for line in lines
        if line["kind"] == "ceiling" and line["section"] == "again"
    }
    on_a_card = not any(line.get("cpu") for line in lines if line["kind"] == "run")
    if not on_a_card:
        found.append("small shapes on a processor; predictions are of an H100")
    elif first and any(rate < 0.9 * ceilings[name] for name, rate in last.items()):
        found.append("THE CARD WAS NOT QUIET: its ceilings changed during the run")
    return found
