"""`fastpop export`: a finished run as files that serve."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fastpop import checks
from fastpop.cli.options import readable, writable


@readable({"run_folder": "RUN", "format": "NAME", "out": "FOLDER"})
@dataclass(frozen=True)
class Export:
    """Write a run as files that serve: safetensors, ONNX or torch.export."""

    run_folder: Positional[Path]
    """The --out of `fastpop train`."""
    out: Path
    """A new or empty folder, or one of an earlier export."""
    format: str = "safetensors"
    """safetensors: weights and JSON; onnx: a graph for onnxruntime; torch.export: the same for torch."""

    def run(self) -> dict[str, Any]:
        import fastpop

        checks.one_of("format", self.format, fastpop.exporting.FORMATS)
        writable("out", self.out, folder=True)
        fastpop.export(self.run_folder, self.out, self.format)
        names = sorted(one.name for one in self.out.iterdir())
        print(f"{', '.join(names)} are in {self.out}")
        return {"run": str(self.run_folder), "out": str(self.out), "format": self.format, "files": names}
