"""A trained model as files that serve without its log: safetensors and JSON, ONNX, torch.export."""

from fastpop.exporting.draft import FORMATS, export
from fastpop.exporting.opened import Exported, open_export

__all__ = ["FORMATS", "Exported", "export", "open_export"]
