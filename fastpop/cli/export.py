"""`fastpop export`: a finished run as files that serve, or its items as an index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fastpop import checks
from fastpop.cli.options import readable, writable


@readable({"run_folder": "RUN", "format": "NAME", "index": "KIND", "out": "FOLDER"})
@dataclass(frozen=True)
class Export:
    """Write a run as files that serve.

    Safetensors, ONNX or torch.export; or its items as an index.
    """

    run_folder: Positional[Path]
    """The --out of `fastpop train`."""
    out: Path
    """A new or empty folder, or one of an earlier export."""
    format: str | None = None
    """safetensors (where nothing is said): weights and JSON; onnx: a graph for onnxruntime; torch.export:
    the same for torch."""
    index: str | None = None
    """Instead: item vectors with a column of log p as an index for every popularity weight, its recall
    printed. flat: fastpop's own, exact; faiss-flat, faiss-hnsw, faiss-ivf: of faiss (the extra index)."""

    def run(self) -> dict[str, Any]:
        import fastpop

        if self.index is not None:
            return self._index(self.index)
        form = "safetensors" if self.format is None else self.format
        checks.one_of("format", form, fastpop.exporting.FORMATS)
        writable("out", self.out, folder=True)
        fastpop.export(self.run_folder, self.out, form)
        names = sorted(one.name for one in self.out.iterdir())
        print(f"{', '.join(names)} are in {self.out}")
        return {"run": str(self.run_folder), "out": str(self.out), "format": form, "files": names}

    def _index(self, kind: str) -> dict[str, Any]:
        import fastpop
        from fastpop.training import item_index

        checks.one_of("index", kind, item_index.KINDS)
        if self.format is not None:
            raise checks.wrong("format", "none beside --index", self.format)
        writable("out", self.out, folder=True)
        found = fastpop.load(self.run_folder).export_index(kind, out=self.out)
        print(found.table())
        names = sorted(one.name for one in self.out.iterdir())
        print(f"{', '.join(names)} are in {self.out}")
        recall = None if found.recall is None else {f"{b:g}": r for b, r in found.recall.recall.items()}
        return {
            "run": str(self.run_folder),
            "out": str(self.out),
            "index": kind,
            "k": 10 if found.recall is None else found.recall.k,
            "recall": recall,
            "files": names,
        }
