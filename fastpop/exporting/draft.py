"""`fastpop.export`: the folder of an exported model, written whole."""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import fastpop
from fastpop import checks, files, registry
from fastpop.data.paths import local_path
from fastpop.exporting.graph import OUTPUTS, OfHistories, OfUsers, graph_of
from fastpop.training import TrainResult, checkpoint, load, sealed

FORMATS = ("safetensors", "onnx", "torch.export")
ABOUT, TENSORS = "model.json", "tensors.safetensors"
GRAPHS = {"onnx": "model.onnx", "torch.export": "model.pt2"}
VERSION = 1


def export(result: TrainResult | str | Path, path: str | Path, format: str = "safetensors") -> Path:
    """Write a folder that serves the model without its log, and without pickle.

    Whatever the format, model.json says what the model is: ids of items (and of users, where the encoder
    reads these), names and shapes of inputs and outputs, the two weights it is served with, checksums. And
    tensors.safetensors holds "log_prior" [V]: log p, or what is learned in its place. Beside them:

        safetensors     in the same file the weights of the encoder and "item_vectors" [V, D]; of an encoder
                        of users "queries" [U, D] instead of weights. For `open_export`, or products of yours.
        onnx            model.onnx: (history or user, popularity_weight, personal_weight, log_prior) ->
                        (score [B, V], query [B, D]). For onnxruntime.
        torch.export    model.pt2: the same graph. For torch.export.load, without fastpop.

    Rows of a batch are any number, each with weights of its own; log p is an input, so that a fresh one
    needs no new file.

    Args:
        result: a run, or its folder.
        path: a new or empty folder, or one of an earlier export, which is replaced once this one is whole.
        format: "safetensors", "onnx" (needs the extra `onnx`) or "torch.export".
    Returns: the folder.
    Raises: ValueError for another format; FileExistsError for a folder of something else; ImportError
        without onnx; NotImplementedError for an encoder that the format cannot hold, with the reason;
        CheckpointError where the disk refuses.
    """
    checks.one_of("format", format, FORMATS)
    place = local_path(path, "path")
    if format == "onnx":
        for package in ("onnx", "onnxscript"):
            checks.needed(package, "onnx", "format='onnx'")
    if not isinstance(result, TrainResult):
        result = load(result)
    users = _users(result)
    graph = graph_of(result.model, users)
    tensors = {"log_prior": result.model.decoder.popularity_term().detach().float().cpu()}
    if format == "safetensors":
        tensors |= _weights(graph)
    about = _about(result, graph, users, format)
    with checkpoint.explained(place), files.atomic_folder(place, replaces=_is_export_alone) as draft:
        save_file({name: one.contiguous() for name, one in tensors.items()}, draft / TENSORS)
        if format in GRAPHS:
            _write_graph(graph, draft / GRAPHS[format], format, str(result.config.encoder))
        sums = {one.name: files.sha256(one) for one in sorted(draft.iterdir())}
        (draft / ABOUT).write_text(sealed.sealed_text({**about, "sha256": sums}))
        shutil.copymode(draft / ABOUT, draft / TENSORS)  # safetensors makes files that nobody else may read
    return place


def is_export(folder: Path) -> bool:
    """Whether the folder is one that `export` wrote."""
    return (folder / ABOUT).is_file() and (folder / TENSORS).is_file()


def _is_export_alone(folder: Path) -> bool:
    names = (ABOUT, TENSORS, *GRAPHS.values(), "model.onnx.data")
    return is_export(folder) and files.holds_only(folder, names)


def _users(result: TrainResult) -> np.ndarray | None:
    """Places of the users that an encoder of users was trained on; None for one of histories."""
    if result.model.encoder.reads != "events":
        return None
    return np.flatnonzero(np.diff(result.split.train.offsets) > 0)


def _weights(graph: OfHistories | OfUsers) -> dict[str, torch.Tensor]:
    if isinstance(graph, OfUsers):
        return {"item_vectors": graph.item_VD, "queries": graph.query_UD}
    named = {f"encoder.{name}": one.detach() for name, one in graph.encoder.state_dict().items()}
    return {"item_vectors": graph.item_VD, **named}


def _about(
    result: TrainResult, graph: OfHistories | OfUsers, users: np.ndarray | None, format: str
) -> dict[str, Any]:
    log, config, decoder = result.log, result.config, result.model.decoder
    beta, lam = result.serving_weights()
    size, dim = decoder.num_items, decoder.dim
    inputs: dict[str, Any] = {
        "popularity_weight": {"dtype": "float32", "shape": ["rows"]},
        "personal_weight": {"dtype": "float32", "shape": ["rows"]},
        "log_prior": {"dtype": "float32", "shape": [size]},
    }
    if isinstance(graph, OfHistories):
        length = graph.max_length if graph.encoder.one_length else f"1 to {graph.max_length}"
        inputs = {"history": {"dtype": "int64", "shape": ["rows", length], "padding": -1}, **inputs}
    else:
        inputs = {"user": {"dtype": "int64", "shape": ["rows"]}, **inputs}
    return {
        "exported_by": f"fastpop {fastpop.__version__}",
        "version": VERSION,
        "format": format,
        "encoder": registry.record(config.encoder_part),
        "reads": result.model.encoder.reads,
        "dim": dim,
        "max_length": result.model.max_length,
        "inputs": inputs,
        "outputs": {
            "score": {"dtype": "float32", "shape": ["rows", size]},
            "query": {"dtype": "float32", "shape": ["rows", dim]},
        },
        "scale": graph.scale,
        "offset": graph.offset,
        "popularity_weight": beta,
        "personal_weight": lam,
        "prior": str(config.prior),
        "refreshable": config.prior_part.refreshable,
        "item_ids": np.asarray(log.item_ids).tolist(),
        "user_ids": None if users is None else np.asarray(log.user_ids)[users].tolist(),
    }


def _write_graph(graph: OfHistories | OfUsers, path: Path, format: str, encoder: str) -> None:
    example, sizes = graph.example()
    try:
        with _quiet():
            program = torch.export.export(graph, example, dynamic_shapes=sizes)
            if format == "torch.export":
                program._example_inputs = None  # they would be pickled
                torch.export.save(program, path)
                return
            made = torch.onnx.export(
                program,
                input_names=list(graph.inputs),
                output_names=list(OUTPUTS),
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.save(path)
    except OSError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotImplementedError(
            f"format: expected one that can hold the encoder {encoder!r}; got {format!r}: {first}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
