"""From inputs to one staged table of events, with every row that cannot be one found and named."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastpop.checks import wrong
from fastpop.data.inputs import TEXT, Table, TextTable
from fastpop.data.interactions import Rejected
from fastpop.data.presets import UNITS, Columns, Preset
from fastpop.data.workbench import Workbench, quoted_text

WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER",
         "UBIGINT", "HUGEINT", "UHUGEINT")
REAL = ("FLOAT", "DOUBLE")
SAMPLE = 1000
EARLY = 1e8  # seconds: March 1973
FAR = 1e11  # seconds: the year 5138. Times beyond are in another unit, or wrong
MISSING_USER, MISSING_ITEM, BAD_USER, BAD_ITEM, BAD_TIME, BAD_WEIGHT, BAD_BEHAVIOR, BAD_RATING = (
    range(1, 9)
)


class IdsAreText(Exception):  # a turn in the road, not an error
    """A column that looked like whole numbers has something else: stage again, as text."""

    def __init__(self, roles: list[str]) -> None:
        self.roles = roles


@dataclass
class Reading:
    """How the columns are to be read; settled on a sample, then held for every row."""

    whole: dict[str, bool]            # user, item: int64 (True) or str
    forced: bool = False              # the preset says whole numbers, leading zeros or not
    numeric_time: bool = True
    unit: str = "s"
    earliest: float | None = None     # seconds; None: any time will do
    time_format: str | None = None


@dataclass
class Ledger:
    """Rejected rows as they are met."""

    skip: bool
    file: list[str] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str, text: str) -> None:
        self.file.append(file)
        self.line.append(line)
        self.reason.append(reason)
        self.text.append(text)

    def rejected(self) -> Rejected | None:
        if not self.line:
            return None
        return Rejected(tuple(self.file), tuple(self.line), tuple(self.reason), tuple(self.text))


def is_text(kind: str) -> bool:
    return kind == TEXT or kind == "VARCHAR" or kind.startswith("ENUM")


def settle(bench: Workbench, tables: Sequence[Table], columns: Columns, layout: Preset) -> Reading:
    """Decide on the first table's first rows whether ids are numbers and what the times are."""
    first = tables[0]
    reading = Reading({}, forced=layout.whole_ids, time_format=columns.time_format)
    for role in ("user", "item"):
        kinds = {table.type[role] for table in tables}
        if kinds == {TEXT}:
            column = first.column[role]
            odd = _sampled(
                bench, first,
                f"count(*) FILTER ({column} IS NOT NULL AND ({_canonical(column)}) IS NULL)",
            )
            _refuse_a_header(first, layout, columns, role, odd)
            reading.whole[role] = layout.whole_ids or not odd
        else:
            reading.whole[role] = kinds <= {*WHOLE, *REAL}
    if columns.time is None:
        return reading
    column = first.column["time"]
    if is_text(first.type["time"]):
        number = f"TRY_CAST({column}::VARCHAR AS DOUBLE)"
        share = _sampled(bench, first, f"avg(({number} IS NOT NULL)::INT) FILTER "
                                       f"({column} IS NOT NULL)")
        reading.numeric_time = columns.time_format is None and (share or 0) >= 0.5
    else:
        number = f"{column}::DOUBLE"
        reading.numeric_time = first.type["time"] in (*WHOLE, *REAL) or (
            first.type["time"].startswith("DECIMAL"))
    if reading.numeric_time:
        reading.unit = columns.time_unit
        if columns.time_unit == "auto":
            middle = _sampled(bench, first, f"median(abs({number})) FILTER (isfinite({number}))")
            size = middle or 0.0
            reading.unit = next((u for u in UNITS if size * UNITS[u] < FAR), "ns")
            # Found to be milliseconds or finer, a value of 1970 is a time in seconds among them.
            reading.earliest = None if reading.unit == "s" else EARLY
    return reading


def _sampled(bench: Workbench, table: Table, expression: str):
    got = bench.value(
        f"SELECT {expression} FROM (SELECT * FROM {table.relation()} LIMIT {SAMPLE})"
    )
    if isinstance(table, TextTable):
        bench.run("DROP TABLE IF EXISTS bad_lines; DROP TABLE IF EXISTS bad_scans")
    return got


def _canonical(column: str) -> str:
    """A whole number written the one usual way ('007' and '7' stay different ids)."""
    return f"CASE WHEN TRY_CAST({column} AS BIGINT)::VARCHAR = {column} " \
           f"THEN TRY_CAST({column} AS BIGINT) END"


def _id(column: str, kind: str, whole: bool, forced: bool) -> str:
    if not whole:
        return f"NULLIF({column}::VARCHAR, '')"
    if kind == TEXT and forced:
        # not a plain cast: DuckDB reads '5.7' as 6 and '0x10' as 16
        bare = f"CASE WHEN ltrim({column}, '0') = '' AND {column} <> '' THEN '0' " \
               f"ELSE ltrim({column}, '0') END"
        return f"CASE WHEN TRY_CAST({column} AS BIGINT)::VARCHAR = ({bare}) " \
               f"THEN TRY_CAST({column} AS BIGINT) END"
    if kind == TEXT:
        return _canonical(column)
    if kind in REAL:
        return f"CASE WHEN {column} = floor({column}) AND abs({column}) < 9007199254740992 " \
               f"THEN {column}::BIGINT END"
    return f"TRY_CAST({column} AS BIGINT)"


def _missing(column: str, kind: str) -> str:
    if kind in REAL:
        return f"{column} IS NULL OR isnan({column})"
    if is_text(kind) and kind != TEXT:
        return f"{column} IS NULL OR {column}::VARCHAR = ''"
    return f"{column} IS NULL"  # an empty field of a file is null already


def _time(column: str, kind: str, reading: Reading) -> str:
    if is_text(kind):
        text = f"{column}::VARCHAR"
        if reading.numeric_time:
            return f"TRY_CAST({text} AS DOUBLE) * {UNITS[reading.unit]}"
        if reading.time_format is not None:
            return f"epoch(try_strptime({text}, '{quoted_text(reading.time_format)}'))"
        return f"coalesce(epoch(TRY_CAST({text} AS TIMESTAMPTZ)), " \
               f"epoch(try_strptime({text}, '%Y-%m-%d %H')))"
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"CASE WHEN isfinite({column}) THEN epoch({column}) END"
    return f"TRY_CAST({column} AS DOUBLE) * {UNITS[reading.unit]}"


def _behavior(column: str, layout: Preset) -> str:
    if not layout.behaviors:
        return f"NULLIF({column}::VARCHAR, '')"
    cases = " ".join(f"WHEN '{quoted_text(code)}' THEN '{name}'"
                     for code, name in layout.behaviors.items())
    return f"CASE {column}::VARCHAR {cases} END"


def stage(
    bench: Workbench, table: Table, reading: Reading, layout: Preset, columns: Columns,
    use_rating: bool, ledger: Ledger,
) -> int:
    """Append one input's rows to `staged`; bad ones raise, or go to the ledger. Returns the number
    of rows read, bad ones among them."""
    start = bench.value("SELECT count(*) FROM staged")
    bench.run(_insert(table, reading, layout, columns, use_rating), label=f"read {table.label}")
    total = bench.value("SELECT count(*) FROM staged") - start
    line_faults = table.line_faults(bench, total)
    limit = "" if ledger.skip else " LIMIT 1"
    bad = bench.rows(f"SELECT rowid - {start}, bad FROM staged WHERE bad > 0 AND rowid >= {start} "
                     f"ORDER BY rowid{limit}")
    unsure = [role for role, code in (("user", BAD_USER), ("item", BAD_ITEM))
              if reading.whole[role] and not reading.forced and table.type[role] == TEXT
              and bench.value(f"SELECT count(*) FROM staged WHERE bad = {code}")]
    if unsure:
        raise IdsAreText(unsure)
    if not bad and not line_faults:
        return total
    lines = table.lines_of([row for row, _ in bad])
    faults = [(line, row, code, "") for line, (row, code) in zip(lines, bad)]
    faults += [(line, -1, 0, reason) for line, _, reason in line_faults]
    faults.sort()
    if not ledger.skip:
        faults = faults[:1]
    shown = table.shown([fault[0] for fault in faults])
    for line, row, code, reason in faults:
        text = shown.get(line, "")
        if code:
            role, expected = _expected(code, reading, layout)
            got = table.value(role, line, text)
            reason = f"column {table.name[role]!r}: expected {expected}; got {got}"
        if not ledger.skip:
            cut = f": {text[:100]!r}" if row < 0 and text else ""
            joint = ", " if code else ": "
            raise ValueError(f"{table.where(line)}{joint}{reason}{cut}")
        ledger.add(table.label, line, reason, text)
    return total + len(line_faults)


def _insert(
    table: Table, reading: Reading, layout: Preset, columns: Columns, use_rating: bool,
) -> str:
    column, kind = table.column, table.type
    picked = {
        role: _id(column[role], kind[role], reading.whole[role], reading.forced)
        for role in ("user", "item")
    }
    missing = {role: _missing(column[role], kind[role]) for role in ("user", "item")}
    number = "TRY_CAST({} AS DOUBLE)"
    tick = _time(column["time"], kind["time"], reading) if columns.time is not None else "NULL"
    weight = number.format(column["weight"]) if columns.weight is not None else "NULL"
    behavior = _behavior(column["behavior"], layout) if columns.behavior is not None else "NULL"
    rating = number.format(column["rating"]) if use_rating else "NULL"
    checks = [(MISSING_USER, "no_user"), (MISSING_ITEM, "no_item"),
              (BAD_USER, "user IS NULL"), (BAD_ITEM, "item IS NULL")]
    if columns.time is not None:
        # NaN compares above every number in DuckDB, so it fails here too
        checks.append((BAD_TIME, f"tick IS NULL OR NOT abs(tick) < {FAR}"))
        if reading.earliest is not None:
            checks.append((BAD_TIME, f"tick < {reading.earliest}"))
    if columns.weight is not None:
        checks.append((BAD_WEIGHT, "weight IS NULL OR weight < 0 OR NOT isfinite(weight)"))
    if columns.behavior is not None:
        checks.append((BAD_BEHAVIOR, "behavior IS NULL"))
    if use_rating:
        checks.append((BAD_RATING, "rating IS NULL OR NOT isfinite(rating)"))
    bad = " ".join(f"WHEN {test} THEN {code}" for code, test in checks)
    return f"""
        INSERT INTO staged
        SELECT user, item, tick, weight, behavior, rating, CASE {bad} ELSE 0 END
        FROM (SELECT {picked['user']} AS user, {picked['item']} AS item,
                     ({tick})::DOUBLE AS tick, ({weight})::DOUBLE AS weight,
                     ({behavior})::VARCHAR AS behavior, ({rating})::DOUBLE AS rating,
                     {missing['user']} AS no_user, {missing['item']} AS no_item
              FROM {table.relation()})
    """


def _refuse_a_header(table: Table, layout: Preset, columns: Columns, role: str, odd: int) -> None:
    """Positions say that a file has no header: a first line that alone is no data is one."""
    if odd != 1 or layout.names is not None or not columns.by_position():
        return
    assert isinstance(table, TextTable)
    field = table.split(table.scan.head)[table.position[role]]
    if not field.lstrip("-").isdigit():
        raise wrong(f"{table.label}, line 1", "whole numbers, as in every other line, for columns "
                    "given by position", f"={field!r} (a header? then give the columns by name)")


def _expected(code: int, reading: Reading, layout: Preset) -> tuple[str, str]:
    if code in (MISSING_USER, MISSING_ITEM):
        return ("user" if code == MISSING_USER else "item"), "an id, none missing"
    if code in (BAD_USER, BAD_ITEM):
        return ("user" if code == BAD_USER else "item"), "a whole number below 2**63"
    if code == BAD_TIME:
        if reading.time_format is not None:
            return "time", f"a time like {reading.time_format}"
        if reading.numeric_time:
            name = {"s": "seconds", "ms": "milliseconds", "us": "microseconds",
                    "ns": "nanoseconds"}[reading.unit]
            after = "" if reading.earliest is None else "after 1973 and "
            return "time", f"unix time in {name}, {after}before the year 5138"
        return "time", "an ISO date (2014-12-06, 2014-12-06T02:03:04Z) or YYYY-MM-DD HH"
    if code == BAD_WEIGHT:
        return "weight", "a finite number >= 0"
    if code == BAD_BEHAVIOR:
        known = ", ".join(map(repr, layout.behaviors)) if layout.behaviors else "a behavior"
        return "behavior", f"one of {known}" if layout.behaviors else known
    return "rating", "a finite number"
