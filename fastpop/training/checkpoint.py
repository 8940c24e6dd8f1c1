"""Checkpoints: written beside the old one, then renamed, so that one valid copy always exists."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

PREFIX = "checkpoint-"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; says which, where and why."""


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of the optimisers' state, named optimizer.parameter.name."""
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        for index, param in enumerate(_params(optimizer)):
            for name, value in optimizer.state.get(param, {}).items():
                tensors[f"{number}.{index}.{name}"] = torch.as_tensor(value).detach()
    return tensors


def restore_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Inverse of `optimizer_tensors`; dtypes come back as they were saved."""
    for key, value in tensors.items():
        number, index, name = key.split(".", 2)
        optimizer = optimizers[int(number)]
        param = _params(optimizer)[int(index)]
        # Adam keeps its step count on the host whatever the parameter's device.
        device = value.device if name == "step" and value.ndim == 0 else param.device
        optimizer.state[param][name] = value.to(device)


def _params(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [param for group in optimizer.param_groups for param in group["params"]]


@contextlib.contextmanager
def explained(path: Path, kept: str = "") -> Iterator[None]:
    """Turns what the file system says into one CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(f"out: expected a writable folder with room; got {path}: {reason}"
                              + kept) from error


def write_folder(
    target: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], kept: str = ""
) -> None:
    """target/{name}.safetensors and target/state.json, all or nothing."""
    part = target.with_name(target.name + ".part")
    with explained(target, kept):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name, group in tensors.items():
                contiguous = {key: value.contiguous().cpu() for key, value in group.items()}
                save_file(contiguous, part / f"{name}.safetensors")
            sums = {f"{name}.safetensors": _sha256(part / f"{name}.safetensors") for name in tensors}
            whole = {"state": state, "sha256": sums}
            (part / "state.json").write_text(json.dumps(whole, indent=1))
            for file in part.iterdir():
                _sync(file)
            old = target.with_name(target.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            part.rename(target)
            _sync(target.parent)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def write_text(path: Path, text: str) -> None:
    """A small file, replaced in one step."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text)
        part.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_folder(
    folder: Path, names: tuple[str, ...]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by name, state) of a folder that `write_folder` made, every byte checked.

    Raises CheckpointError for a missing or a changed file.
    """
    try:
        whole = json.loads((folder / "state.json").read_text())
        tensors = {}
        for name in names:
            file = folder / f"{name}.safetensors"
            if _sha256(file) != whole["sha256"][file.name]:
                raise CheckpointError(f"{file}: expected the bytes that were written; got others")
            tensors[name] = load_file(file)
        return tensors, whole["state"]
    except KeyError as error:
        raise CheckpointError(f"{folder}: expected a checkpoint; got one without {error}") from error
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: expected a checkpoint; got {error}") from error


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turns what torch says of tensors that do not fit the model into one CheckpointError."""
    try:
        yield
    except (RuntimeError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(f"{folder}: expected tensors of this configuration and log; got "
                              f"{str(error).splitlines()[0]}") from error


def latest(out: Path) -> Path | None:
    """The newest complete checkpoint under `out`."""
    found = sorted(
        (path for path in out.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()),
        key=lambda path: int(path.name.removeprefix(PREFIX)),
    )
    return found[-1] if found else None


def save(
    out: Path, step: int, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
) -> Path:
    """out/checkpoint-{step}; older ones go once the new one stands."""
    before = latest(out)
    kept = f"; the checkpoint {before.name} before it is kept" if before else ""
    target = out / f"{PREFIX}{step:08d}"
    tensors = {"model": model.state_dict(), "optimizer": optimizer_tensors(optimizers)}
    write_folder(target, tensors, state, kept)
    for path in out.glob(f"{PREFIX}*"):
        if path != target:
            shutil.rmtree(path, ignore_errors=True)
    return target
