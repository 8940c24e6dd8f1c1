"""What `fastpop.compare` returns."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fastpop import checks, report
from fastpop.data.paths import local_path
from fastpop.data.titles import read_titles
from fastpop.experiments.arms import BEST
from fastpop.experiments.examples import with_titles
from fastpop.experiments.unfinished import FINISHED, SUMS, finished
from fastpop.frozen import freeze
from fastpop.training import sealed


@dataclass(frozen=True, eq=False, repr=False)
class CompareResult:
    """The table of a matched intervention.

    comparison: the whole of it as plain data (fastpop.report.schema.Comparison). sentences: what
    it says, in words. rows, summary: its numbers, per run and over seeds.
    """

    comparison: report.schema.Comparison

    def __post_init__(self) -> None:
        freeze(self, "comparison")

    @property
    def headline(self) -> str:
        return self.comparison["headline"]

    @property
    def sentences(self) -> list[str]:
        return self.comparison["sentences"]

    @property
    def rows(self) -> list[report.schema.Row]:
        return self.comparison["rows"]

    @property
    def summary(self) -> list[report.schema.Summary]:
        return self.comparison["summary"]

    def value(
        self, arm: str, metric: str, popularity_weight: float | None = None, epochs: str | None = None
    ) -> float:
        """Mean over seeds of one number.

        popularity_weight: None is the learned part s. epochs: "equal" or "best"; None takes the best
        reading where there is one.
        """
        readings = self.comparison["readings"]
        epochs = (BEST if BEST in readings else readings[0]) if epochs is None else epochs
        checks.one_of("epochs", epochs, readings)
        for row in self.summary:
            if (row["arm"], row["popularity_weight"], row["epochs"]) == (arm, popularity_weight, epochs):
                values: Any = row["values"]
                checks.one_of("metric", metric, values)
                return values[metric]["mean"]
        known = sorted({(row["arm"], row["popularity_weight"]) for row in self.summary}, key=str)
        raise checks.wrong("arm, popularity_weight", f"one of {known}", text=f"{(arm, popularity_weight)}")

    def table(self) -> str:
        """The comparison in words and numbers, at most 80 columns."""
        return report.comparison_text(self.comparison)

    def with_titles(self, titles: Any) -> "CompareResult":
        """The same with titles in the lists of its examples: whatever `fastpop.data.read_titles` takes; None:
        as they are."""
        examples: Any = self.comparison.get("examples")
        if titles is None or not examples:
            return self
        named: Any = with_titles(examples, read_titles(titles))
        return CompareResult({**self.comparison, "examples": named})

    def save(self, out: str | Path) -> Path:
        """Write out/rows.csv, table.txt, a self-contained report.html and comparison.json.

        comparison.json is closed by a checksum, and has those of the others.

        Returns the path of report.html. Raises ImportError without matplotlib, ValueError where
        another comparison stands there, OSError where the folder cannot be written.
        """
        place = local_path(out, "out")
        checks.needed("matplotlib", "report", "compare(out=...)")
        made_by: Any = self.comparison.get("made_by", {})
        if "asked" in made_by:
            finished(place, made_by["asked"])
        report.write_text(place / "rows.csv", report.rows_csv(self.comparison))
        report.write_text(place / "table.txt", self.table())
        page = report.write_compare_report(place / "report.html", self.comparison)
        sums = sealed.sums(place, ("report.html", "rows.csv", "table.txt"))
        sealed.write(place / FINISHED, {**report.plain(self.comparison), SUMS: sums})
        return page

    def __repr__(self) -> str:
        made_by: Any = self.comparison.get("made_by", {})
        arms = ", ".join(arm["name"] for arm in self.comparison["arms"])
        return "\n".join(
            [
                f"CompareResult: {self.comparison['title']}",
                f"  arms: {arms}; {len(made_by.get('seeds', []))} seeds",
                f"  {self.headline}",
                "  .table() .sentences .rows .summary .value(arm, metric) .save(folder)",
            ]
        )

    def _repr_html_(self) -> str:
        """The sentences, and the table behind a click."""
        title, headline = escape(self.comparison["title"]), escape(self.headline)
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences)
        tables = f"<details><summary>All tables</summary><pre>{escape(self.table())}</pre></details>"
        return f"<b>CompareResult: {title}</b><p>{headline}</p><ul>{said}</ul>{tables}"
