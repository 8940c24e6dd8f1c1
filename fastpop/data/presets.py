"""Known formats of logs, and the one place where their column names are spelled.

A preset says how a file is laid out; `Columns` says which of its columns play which role. Both
can be used for files nobody here has seen: a name is looked up in the header, a number is a
0-based position in a file without one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fastpop import registry
from fastpop.checks import one_of, wrong, wrong_type

ROLES = ("user", "item", "time", "weight", "behavior", "rating")
UNITS = MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9})


@dataclass(frozen=True)
class Columns:
    """Which columns of a table play which role.

    Attributes:
        user, item: ids, any kind.
        time: unix time or a date; None where the log has no times.
        weight: finite numbers ≥ 0 that multiply counts and the loss.
        behavior: the kind of event (view, cart, buy, …), for `keep_behavior`.
        rating: numbers, for `min_rating`; ignored otherwise.
        time_unit: "auto" (by size: seconds, milli-, micro- or nanoseconds), or one of s, ms, us,
            ns; for numeric times only.
        time_format: strptime format of times that are neither numbers, ISO dates nor
            YYYY-MM-DD HH; for compact dates such as 20171124, which look like numbers.

    A role is given as the column's name in the header, or as its 0-based position.
    """

    user: str | int
    item: str | int
    time: str | int | None = None
    weight: str | int | None = None
    behavior: str | int | None = None
    rating: str | int | None = None
    time_unit: str = "auto"
    time_format: str | None = None

    def __post_init__(self) -> None:
        for role in ROLES:
            value = getattr(self, role)
            if value is None and role in ("user", "item"):
                raise wrong(f"columns.{role}", "the name or position of a column", value)
            if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
                raise wrong_type(f"columns.{role}", "a column's name or 0-based position", value)
            if isinstance(value, int) and value < 0:
                raise wrong(f"columns.{role}", "a 0-based position", value)
        if self.user == self.item:
            raise wrong("columns.item", f"another column than the user's ({self.user!r})", self.item)
        one_of("columns.time_unit", self.time_unit, ("auto", *UNITS))

    def used(self) -> dict[str, str | int]:
        """Role → column, for the roles that have one."""
        return {r: getattr(self, r) for r in ROLES if getattr(self, r) is not None}

    def by_position(self) -> bool:
        """Whether columns are numbered; a mixture of names and numbers raises."""
        numbered = [isinstance(c, int) for c in self.used().values()]
        if any(numbered) and not all(numbered):
            raise wrong("columns", "all names or all positions", self)
        return all(numbered)


@dataclass(frozen=True)
class ListColumns:
    """Which columns of a table are the user (None: a row is a session) and the lists of items."""

    user: str | int | None
    item: str | int
    time_format: str | None = None

    def used(self) -> dict[str, str | int]:
        """Role → column, for the roles that have one."""
        return {"item": self.item} if self.user is None else {"user": self.user, "item": self.item}


@dataclass(frozen=True)
class Preset:
    """Layout of a known format; `fastpop.register("preset", Preset(...), name="mine")` makes one known.

    Attributes:
        kind: "table" (a row is an event), "sequence" (a line is `user item item …`) or "sessions"
            (a line is one session, `item item …`; users are numbered by line).
        columns: roles, for tables.
        separator: between the fields of a line; None: found out.
        names: the columns of a file without a header, in order; None: the file has a header.
        behaviors: code in the file → view, fav, cart or buy. A code outside is a bad row.
        whole_ids: ids are whole numbers even with leading zeros.
        lists: columns of a table in which a row holds a list of items, for sequences and sessions.
        about: one line for people.
    """

    kind: str = "table"
    columns: Columns | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None
    behaviors: dict[str, str] = field(default_factory=dict)
    whole_ids: bool = False
    lists: ListColumns | None = None
    about: str = ""

    def __post_init__(self) -> None:
        one_of("preset.kind", self.kind, ("table", "sequence", "sessions"))
        if self.columns is not None and not isinstance(self.columns, Columns):
            raise wrong_type("preset.columns", "fastpop.data.Columns", self.columns)


PRESETS: dict[str, Preset] = {
    "alibaba-mobile": Preset(
        columns=Columns("user_id", "item_id", time="time", behavior="behavior_type"),
        separator=",",
        behaviors={"1": "view", "2": "fav", "3": "cart", "4": "buy"},
        whole_ids=True,
        about="Tianchi mobile recommendation, hours, behaviours 1-4",
    ),
    "taobao-userbehavior": Preset(
        columns=Columns("user", "item", time="time", behavior="behavior", time_unit="s"),
        separator=",",
        names=("user", "item", "category", "behavior", "time"),
        behaviors={"pv": "view", "fav": "fav", "cart": "cart", "buy": "buy"},
        whole_ids=True,
        about="Tianchi UserBehavior.csv, seconds, pv/fav/cart/buy",
    ),
    "movielens-100k": Preset(
        columns=Columns("user", "item", time="time", rating="rating", time_unit="s"),
        separator="\t",
        names=("user", "item", "rating", "time"),
        whole_ids=True,
        about="MovieLens 100K u.data",
    ),
    "movielens-csv": Preset(
        columns=Columns("userId", "movieId", time="timestamp", rating="rating", time_unit="s"),
        separator=",",
        whole_ids=True,
        about="MovieLens ratings.csv (latest, 20M, 25M, 32M)",
    ),
    "movielens-dat": Preset(
        columns=Columns("user", "item", time="time", rating="rating", time_unit="s"),
        separator="::",
        names=("user", "item", "rating", "time"),
        whole_ids=True,
        about="MovieLens 1M and 10M ratings.dat",
    ),
    "movietweetings": Preset(
        columns=Columns("user", "item", time="time", rating="rating", time_unit="s"),
        separator="::",
        names=("user", "item", "rating", "time"),
        whole_ids=True,
        about="MovieTweetings ratings.dat, IMDb ids with or without leading zeros",
    ),
    "ciao": Preset(
        columns=Columns("user_id", "item_id", time="timestamp", rating="rating", time_unit="s"),
        separator=",",
        whole_ids=True,
        about="Ciao ratings, day stamps",
    ),
    "coat": Preset(
        columns=Columns("user", "item", rating="rating"),
        separator=",",
        names=("user", "item", "rating"),
        whole_ids=True,
        about="Coat shopping, user,item,rating without times",
    ),
    "steam": Preset(
        columns=Columns("User_ID", "Game_ID"),
        separator="\t",
        whole_ids=True,
        about="Steam 200k purchases, without times",
    ),
    "sequence": Preset(kind="sequence", about="a line a user: user item item …, in time order"),
    "sessions": Preset(kind="sessions", about="a line a session: item item …, in time order"),
}


registry.ours("preset", *PRESETS.values(), names=tuple(PRESETS))


def names() -> list[str]:
    """Names of the presets, as `read_log(preset=…)` takes them: ours, and those that were registered."""
    return list(registry.available("presets"))


def resolve(preset: str | None, columns: Columns | None, given: dict) -> Preset:
    """The layout to read by: a preset, or `columns`, with single roles given on top."""
    given = {role: name for role, name in given.items() if name is not None}
    layout = registry.find("preset", preset) if preset is not None else Preset()
    layout = layout() if isinstance(layout, type) else layout
    if columns is not None and not isinstance(columns, Columns):
        raise wrong_type("columns", "fastpop.data.Columns", columns)
    if layout.kind != "table":
        if columns is None and not given:
            return layout
        given = (columns.used() if columns is not None else {}) | given
        needed = {"user", "item"} if layout.kind == "sequence" else {"item"}
        if not needed <= given.keys() <= {"user", "item"}:
            raise wrong(
                "columns",
                f"none with the preset {preset!r}, whose lines have no columns, or those "
                "of a table of lists: user=… and item=…",
                columns or given,
            )
        return replace(layout, lists=ListColumns(given.get("user"), given["item"]))
    columns = columns or layout.columns
    if columns is None and not {"user", "item"} <= given.keys():
        raise wrong(
            "read_log",
            "a preset (" + ", ".join(names()) + "), columns=Columns(user=…, item=…), or user=… and item=…",
            text=f"{given or 'none of them'}",
        )
    columns = replace(columns, **given) if columns is not None else Columns(**given)
    columns.by_position()
    return replace(layout, columns=columns)


def table_columns(layout: Preset) -> Columns | ListColumns:
    """Columns of a table that comes with this layout."""
    columns = layout.columns or layout.lists
    if columns is None:
        raise wrong("columns", "user=… and item=… of a table of lists (item=… of sessions)", None)
    return columns


def behaviors_kept(layout: Preset, keep: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """`keep_behavior` as a tuple of names, checked against the preset's."""
    if keep is None:
        return None
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    if layout.columns is None or layout.columns.behavior is None:
        raise wrong("keep_behavior", "a log with a behavior column (give behavior=…)", keep)
    if not kept or not all(isinstance(name, str) for name in kept):
        raise wrong_type("keep_behavior", "a name or several", keep)
    for name in kept if layout.behaviors else ():
        one_of("keep_behavior", name, layout.behaviors.values())
    return kept
