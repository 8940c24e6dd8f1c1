"""Checkpoints: written beside the old one, then renamed, so that one valid copy always exists."""

import contextlib
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastpop import files
from fastpop.data.paths import engine_name
from fastpop.model import Recommender
from fastpop.training import sealed, shared_files
from fastpop.training.ranks import Ranks

PREFIX = "checkpoint-"
# Of the model's tensors, those of which each of several processes has rows.
SHARED = {"decoder.item_embedding", "decoder.item_bias"}
LOG = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; says which, where and why."""


def model_tensors(model: Recommender, ranks: Ranks | None = None) -> dict[str, Any]:
    """The state dict. ranks: this process's rows in it are marked as such."""
    tensors = model.state_dict()
    if ranks is not None:
        for name in SHARED & set(tensors):
            tensors[name] = shared_files.Part(tensors[name])
    return tensors


def optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], model: Recommender | None = None, ranks: Ranks | None = None
) -> dict[str, Any]:
    """Every tensor of the optimisers' state, named optimizer.parameter.name. ranks: this process's rows in it
    are marked as such."""
    tensors: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for index, param in enumerate(_params(optimizer)):
            for name, value in optimizer.state.get(param, {}).items():
                tensor: Any = torch.as_tensor(value).detach()
                if ranks is not None and model is not None and tensor.ndim and ranks.is_shared(model, param):
                    tensor = shared_files.Part(tensor)
                tensors[f"{number}.{index}.{name}"] = tensor
    return tensors


def restore_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor], ranks: Ranks | None = None
) -> None:
    """Inverse of `optimizer_tensors`; dtypes come back as saved. ranks: of whole tables its rows."""
    for key, value in tensors.items():
        number, index, name = key.split(".", 2)
        optimizer = optimizers[int(number)]
        param = _params(optimizer)[int(index)]
        # torch's Adam keeps its step count on the host, unless it is fused; so does rounding at random.
        of_host = name == "rounds" or (name == "step" and not optimizer.defaults.get("fused"))
        device = value.device if of_host and value.ndim == 0 else param.device
        if ranks is not None:
            value = ranks.part_like(param, value)
        optimizer.state[param][name] = value.to(device)


def _params(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [param for group in optimizer.param_groups for param in group["params"]]


@contextlib.contextmanager
def explained(path: Path, kept: str = "") -> Iterator[None]:
    """Turns what the file system says, through whatever library, into one CheckpointError."""
    try:
        yield
    except files.Busy as error:
        raise CheckpointError(f"out: {error}") from error
    except FileExistsError:
        raise
    except Exception as error:
        engine = type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb")
        if not (engine or isinstance(error, (OSError, SafetensorError))):
            raise
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error).splitlines()[0]
        raise CheckpointError(
            f"out: expected a writable folder with room; got {path}: {reason}" + kept
        ) from error


def write_folder(
    target: Path,
    tensors: dict[str, dict[str, Any]],
    state: dict[str, Any],
    kept: str = "",
    *,
    ranks: Ranks | None = None,
) -> None:
    """target/{name}.safetensors and target/state.json, all or nothing, every byte under a checksum.

    ranks: several processes write one folder together, each its rows (`shared_files`)."""
    if ranks is not None:
        _write_together(target, tensors, state, kept, ranks)
        return
    with explained(target, kept), files.atomic_folder(target) as draft:
        for name, group in tensors.items():
            contiguous = {key: value.contiguous().cpu() for key, value in group.items()}
            save_file(contiguous, draft / f"{name}.safetensors")
        _seal(draft, state, tensors)


def write_whole(
    target: Path, tensors: dict[str, dict[str, Any]], state: dict[str, Any], ranks: Ranks
) -> None:
    """The folder that one process would write, of several; all of them together. The first writes, and is
    sent the others' rows piece by piece."""
    if not ranks.leads:
        for group in tensors.values():
            shared_files.write_whole(None, group, ranks)
    else:
        with explained(target), files.atomic_folder(target) as draft:
            for name, group in tensors.items():
                with open(draft / f"{name}.safetensors", "xb") as file:
                    shared_files.write_whole(file, group, ranks)
            _seal(draft, state, tensors)
    ranks.meet()  # nobody goes on before the folder stands


def _seal(draft: Path, state: dict[str, Any], names: Iterable[str]) -> None:
    sums = {f"{name}.safetensors": files.sha256(draft / f"{name}.safetensors") for name in names}
    (draft / "state.json").write_text(sealed.sealed_text({"state": state, "sha256": sums}))
    for name in sums:  # safetensors makes files that nobody else may read, whatever the umask
        shutil.copymode(draft / "state.json", draft / name)


def _write_together(
    target: Path, tensors: dict[str, dict[str, Any]], state: dict[str, Any], kept: str, ranks: Ranks
) -> None:
    with contextlib.ExitStack() as held:
        draft: Any = None
        if ranks.leads:
            held.enter_context(explained(target, kept))
            draft = held.enter_context(files.atomic_folder(target))
        draft = Path(ranks.from_first(None if draft is None else str(draft)))
        own = draft / shared_files.file_name(ranks)
        with explained(target, kept):
            save_file(shared_files.own_of(tensors, ranks), own)
        sums = ranks.together({own.name: files.sha256(own)})
        if ranks.leads:
            whole = {"state": state, "sha256": sums, "shared": shared_files.names_of_parts(tensors)}
            (draft / "state.json").write_text(sealed.sealed_text(whole))
            for name in sums:
                shutil.copymode(draft / "state.json", draft / name)
    ranks.meet()  # nobody goes on before the folder stands


def write_text(path: Path, text: str) -> None:
    """A small file, replaced in one step."""
    with explained(path):
        files.write_text(path, text)


def read_folder(
    folder: Path, names: tuple[str, ...], ranks: Ranks | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by name, state) of a folder that `write_folder` made, every byte checked. ranks: of what
    several processes wrote, each reads its own rows; what one wrote is whole.

    Raises CheckpointError for a missing or a changed file.
    """
    try:
        whole = sealed.read(folder / "state.json")
        if "shared" in whole:
            return _read_together(folder, names, whole, ranks), whole["state"]
        tensors = {}
        for name in names:
            file = folder / f"{name}.safetensors"
            if files.sha256(file) != whole["sha256"][file.name]:
                raise CheckpointError(f"{file}: expected the bytes that were written; got others")
            tensors[name] = load_file(engine_name(file))  # it takes UTF-8 names only
        return tensors, whole["state"]
    except sealed.Damaged as error:
        raise CheckpointError(str(error)) from error
    except KeyError as error:
        raise CheckpointError(f"{folder}: expected a checkpoint; got one without {error}") from error
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: expected a checkpoint; got {error}") from error


def _read_together(folder: Path, names: tuple[str, ...], whole: dict[str, Any], ranks: Ranks | None) -> Any:
    for name, expected in whole["sha256"].items():
        if files.sha256(folder / name) != expected:
            raise CheckpointError(f"{folder / name}: expected the bytes that were written; got others")
    return shared_files.read(folder, names, whole["shared"], ranks)


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turns what torch says of tensors that do not fit the model into one CheckpointError."""
    try:
        yield
    except (RuntimeError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected tensors of this configuration and log; got {str(error).splitlines()[0]}"
        ) from error


def all_of(out: Path) -> list[Path]:
    """The complete checkpoints under `out`, oldest first."""
    return sorted(
        (path for path in out.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()),
        key=lambda path: int(path.name.removeprefix(PREFIX)),
    )


def latest(out: Path) -> Path | None:
    """The newest complete checkpoint under `out`."""
    found = all_of(out)
    return found[-1] if found else None


def read_newest(
    out: Path, *, with_loss: bool = False, ranks: Ranks | None = None
) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """(folder, tensors, state) of the newest checkpoint whose every byte is as it was written.

    with_loss: a loss that adapts has tensors there, too.

    One that is damaged is warned of, and the one before is taken. None: there is no checkpoint.
    Raises CheckpointError where none is sound.
    """
    first: CheckpointError | None = None
    names = ("model", "optimizer", *(("loss",) if with_loss else ()))
    for folder in reversed(all_of(out)):
        try:
            tensors, state = read_folder(folder, names, ranks)
        except CheckpointError as error:
            first = first or error
            continue
        if first is not None:
            warnings.warn(
                f"{first}. Going on from {folder.name}, the checkpoint before.", UserWarning, stacklevel=2
            )
        return folder, tensors, state
    if first is not None:
        raise first
    return None


def save(
    out: Path,
    step: int,
    model: Recommender,
    optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
    *,
    loss: torch.nn.Module | None = None,
    ranks: Ranks | None = None,
) -> Path:
    """out/checkpoint-{step}; with the state dict of a loss that adapts. The one before is kept, should this
    one be damaged; older ones go once the new one stands."""
    target = out / f"{PREFIX}{step:08d}"
    before = [path for path in all_of(out) if int(path.name.removeprefix(PREFIX)) < step]
    kept = f"; the checkpoint {before[-1].name} before it is kept" if before else ""
    tensors = {"model": model_tensors(model, ranks), "optimizer": optimizer_tensors(optimizers, model, ranks)}
    if loss is not None:
        tensors["loss"] = loss.state_dict()
    write_folder(target, tensors, state, kept, ranks=ranks)
    if ranks is not None and not ranks.leads:
        return target
    for path in all_of(out):
        if path not in (target, *before[-1:]):
            files.remove_folder(path)
    LOG.info("%s is written", target, extra={"fields": {"step": step, "checkpoint": str(target)}})
    return target
