"""`fastpop audit`: of a run, or of arrays from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fastpop import checks, registry
from fastpop.cli.options import array, check_titles, read_titles_of, readable, smoothing_of, writable

ARRAYS = ("query", "items", "counts")


@readable(
    {
        "run_folder": "[RUN]",
        "query": "FILE",
        "items": "FILE",
        "counts": "FILE",
        "bias": "FILE",
        "smoothing": "NAME|X",
        "null": "NAME",
        "strata": "FILE",
        "min_count": "N",
        "subset": "FILE",
        "diagnostics": "NAME ...",
        "titles": "FILE",
        "title_columns": "COLUMN COLUMN",
        "out": "PATH",
    }
)
@dataclass(frozen=True)
class Audit:
    """How much of a score is popularity: of a run, or of two arrays and counts."""

    run_folder: Positional[Path | None] = None
    """The --out of `fastpop train`."""
    query: Path | None = None
    """[C, D] array, .npy, of a model from elsewhere."""
    items: Path | None = None
    """[V, D] array, .npy."""
    counts: Path | None = None
    """[V] training events of each item, .npy."""
    bias: Path | None = None
    """[V] what the model adds to the dot product, .npy."""
    scale: float | None = None
    """Multiplies the dot product of the arrays; 1 when not given."""
    smoothing: str | None = None
    """Of log p: loo, good-turing or a number to add; loo, or the run's own, when not given."""
    popularity_weight: float | None = None
    """Audit the scores that a run serves at this weight of log p, not the learned part."""
    permutations: int = 2000
    """Of the p-values; 0: none."""
    seed: int = 0
    """Of the permutations."""
    null: str = "label"
    """label: log p shuffled over items; stratified: within strata of them; sign: random signs."""
    strata: Path | None = None
    """[V] whole numbers, items of one may be shuffled, .npy; for stratified, and only there."""
    min_count: float = 0
    """Audit the items with at least so many training events."""
    subset: Path | None = None
    """Audit these items only: [V] bools or [n] places in the item table, .npy."""
    logits: bool = False
    """The scores of the arrays are logits of a softmax, so that their slope on log p has a unit."""
    top_k: int = 10
    """Length of the lists whose popularity is told; 0: none."""
    diagnostics: tuple[str, ...] = ()
    """What is measured besides: names, see `fastpop doctor`."""
    titles: Path | None = None
    """A table of items, for the report: csv, tsv or parquet, with a column of ids and one of titles."""
    title_columns: tuple[str, ...] = ()
    """The columns of --titles; as in `fastpop recommend`."""
    out: Path | None = None
    """Folder for audit.json and report.html."""

    def run(self) -> dict[str, Any]:
        from fastpop import report
        from fastpop.training import sealed

        self._check()
        titles = self._titles()
        result = self._audit()
        print(result.table(), flush=True)
        if self.out is not None:
            whole = result.to_dict(samples=True)
            sealed.write(self.out / "audit.json", report.plain(whole))
            report.write_audit_report(self.out / "report.html", whole, items=self._items(result, titles))
            print(f"\nreport.html and audit.json are in {self.out}")
        return {"audit": result.to_dict(), "out": None if self.out is None else str(self.out)}

    def _titles(self) -> Any:
        """Of the items of the run's log; None where no table is named."""
        from fastpop import Interactions

        titles = read_titles_of(self.titles, self.title_columns)
        if titles is not None and self.run_folder is not None:
            titles.check(Interactions.open(self.run_folder / "log").item_ids)
        return titles

    def _items(self, audit: Any, titles: Any) -> dict[str, list[dict[str, Any]]]:
        """`Audit.extremes` with ids and titles; nothing for arrays, whose items have no ids."""
        from fastpop import Interactions

        if self.run_folder is None:
            return {}
        found, log = audit.extremes(), Interactions.open(self.run_folder / "log")
        for rows in found.values():
            for one in rows:
                item_id = log.item_ids[one["item"]]
                title = None if titles is None else titles.of([item_id])[0]
                one["name"] = str(item_id) if title is None else f"{title} ({item_id})"
        return found

    def _check(self) -> None:
        """All that can be wrong and is known before anything is read."""
        check_titles(self.titles, self.title_columns)
        if self.titles is not None and (self.run_folder is None or self.out is None):
            raise checks.wrong("titles", "none without RUN and --out", str(self.titles))
        checks.number("permutations", self.permutations, ge=0, integer=True)
        checks.number("seed", self.seed, ge=0, integer=True)
        checks.number("min_count", self.min_count, ge=0)
        checks.number("top_k", self.top_k, ge=0, integer=True)
        registry.find("null", self.null)
        for name in self.diagnostics:
            registry.find("diagnostic", name, "diagnostics")
        if (self.strata is not None) != (self.null == "stratified"):
            raise checks.wrong("strata", "a file with --null stratified, and only there", self.strata)
        if self.popularity_weight is not None:
            checks.score_weight("popularity_weight", self.popularity_weight)
        if self.out is not None:
            writable("out", self.out, folder=True)
            checks.needed("matplotlib", "report", "--out, a report,")
        if self.run_folder is not None:
            given = [name for name in (*ARRAYS, "bias", "scale") if getattr(self, name) is not None]
            given += ["logits"] if self.logits else []
            if given:
                raise checks.wrong("RUN", "a run or arrays, not both", text=f"RUN and --{given[0]}")
            return
        missing = [f"--{name}" for name in ARRAYS if getattr(self, name) is None]
        if missing:
            raise checks.wrong(
                "RUN", "a run folder, or --query, --items and --counts", text="no " + ", ".join(missing)
            )
        if self.popularity_weight is not None:
            raise checks.wrong(
                "popularity_weight", "none with arrays (add the term to --bias)", self.popularity_weight
            )

    def _audit(self) -> Any:
        import fastpop

        smoothing = None if self.smoothing is None else smoothing_of(self.smoothing)
        drawn: dict[str, Any] = {
            "permutations": self.permutations,
            "seed": self.seed,
            "null": self.null,
            "strata": None if self.strata is None else array("strata", self.strata),
            "min_count": self.min_count,
            "top_k": self.top_k,
            "diagnostics": self.diagnostics,
            "subset": None if self.subset is None else array("subset", self.subset),
        }
        if self.run_folder is not None:
            return fastpop.load(self.run_folder).audit(
                popularity_weight=self.popularity_weight, smoothing=smoothing, **drawn
            )
        read = {name: array(name, getattr(self, name)) for name in ARRAYS}
        return fastpop.audit(
            **read,
            bias=None if self.bias is None else array("bias", self.bias),
            scale=1.0 if self.scale is None else self.scale,
            logits=self.logits,
            smoothing="loo" if smoothing is None else smoothing,
            **drawn,
        )
