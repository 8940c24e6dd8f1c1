"""An exported model, to ask: with torch, with onnxruntime, or from its weights."""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from fastpop import checks, files, registry
from fastpop.data import ids as edge
from fastpop.data.batches import PAD
from fastpop.data.cases import Cases
from fastpop.data.paths import engine_name, local_path
from fastpop.encoders import Sizes
from fastpop.evaluation import CaseScores
from fastpop.evaluation.asked import Unknown, histories_of, shown
from fastpop.evaluation.recommendations import Recommendations, as_recommendations, best_items
from fastpop.exporting.draft import ABOUT, GRAPHS, TENSORS, VERSION
from fastpop.exporting.graph import OfHistories, OfUsers
from fastpop.popularity import PopularityPrior
from fastpop.training import sealed

Asked = Callable[..., tuple[np.ndarray, np.ndarray]]  # the graph's inputs -> (score, query)


@dataclass(frozen=True, eq=False, repr=False)
class Catalogue:
    """Ids of items, as a log has them."""

    item_ids: np.ndarray

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    def decode_items(self, index: Any) -> np.ndarray:
        return self.item_ids[np.asarray(index, dtype=np.int64)]


@dataclass(frozen=True, eq=False, repr=False)
class Exported:
    """What `open_export` returns.

    about: model.json. log_prior_V: [V] float32, log p (or what is learned in its place) as it is served.
    """

    about: Mapping[str, Any]
    log_prior_V: np.ndarray
    catalogue: Catalogue
    user_ids: np.ndarray | None
    ask: Asked

    def __repr__(self) -> str:
        about = self.about
        return f"Exported({about['format']}, {about['encoder']['name']}, {self.catalogue.num_items:,} items)"

    def scores(
        self, asked: Any, popularity_weight: Any = None, personal_weight: Any = None, log_prior: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(score [B, V], query [B, D]), float32, of histories [B, L] of places, or users [B].

        A history ends where -1 stands. The weights: a number, or [B], one a row; None: those of the export.
        log_prior: [V]; None: its own.
        Raises ValueError for another shape or an item that there is not.
        """
        asked = np.asarray(asked)
        if asked.dtype.kind not in "iu":
            raise checks.wrong_type("asked", "whole numbers", asked)
        histories = self.user_ids is None
        checks.shape("asked", asked, ("B", "L") if histories else ("B",))
        if self.user_ids is None:
            size = self.about["inputs"]["history"]["shape"][1]
            longest = int(self.about["max_length"])
            if asked.shape[1] > longest:
                raise checks.wrong("asked", f"at most {longest} items a history", asked)
            if isinstance(size, int):
                asked = np.pad(asked, ((0, 0), (0, size - asked.shape[1])), constant_values=PAD)
            checks.ids_in_range("asked", asked[asked != PAD], self.catalogue.num_items)
        else:
            checks.ids_in_range("asked", asked, len(self.user_ids))
        weights = [
            np.ascontiguousarray(
                np.broadcast_to(np.asarray(self.about[name] if one is None else one, np.float32), len(asked))
            )
            for name, one in (("popularity_weight", popularity_weight), ("personal_weight", personal_weight))
        ]
        log_prior_V = self.log_prior_V if log_prior is None else np.asarray(log_prior, np.float32)
        checks.shape("log_prior", log_prior_V, (self.catalogue.num_items,))
        return self.ask(np.ascontiguousarray(asked, np.int64), *weights, log_prior_V)

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        histories: Any = None,
        popularity_weight: float | None = None,
        personal_weight: float | None = None,
        log_p: Any = None,
        exclude_seen: bool = True,
        candidates: Any = None,
        allow: Any = None,
        deny: Any = None,
        titles: Any = None,
        unknown: str = "warn",
    ) -> Recommendations:
        """As `TrainResult.recommend`: of histories where the encoder reads them; else of users, whose
        histories an export does not have, so that exclude_seen means nothing.

        Cost: the graph's, and B V scores.
        """
        checks.number("k", k, ge=1, integer=True)
        beta, lam = (
            float(self.about[name]) if one is None else one
            for name, one in (("popularity_weight", popularity_weight), ("personal_weight", personal_weight))
        )
        checks.score_weight("popularity_weight", beta)
        checks.score_weight("personal_weight", lam)
        model = self if log_p is None else self.beside(log_p)
        strange, catalogue = Unknown(unknown), self.catalogue
        if self.user_ids is None:
            if histories is None:
                raise checks.wrong("histories", "lists of item ids: an export has no log", None)
            wanted, cases = histories_of(histories, catalogue, users, strange)
            asked = cases.history_rows.last(int(self.about["max_length"]), PAD)
        else:
            if histories is not None or users is None:
                raise checks.wrong(
                    "users", "ids of users, whose vectors the encoder has, and no histories", users
                )
            wanted = np.atleast_1d(np.asarray(users))
            asked = edge.encode("users", self.user_ids, wanted)
            cases = Cases.of([[]] * len(asked), [[]] * len(asked), catalogue.num_items)
        kept = shown(
            candidates,
            allow,
            deny,
            num_cases=cases.num_cases,
            num_items=catalogue.num_items,
            log=catalogue,
            unknown=strange,
        )
        strange.tell()
        cold = (
            np.flatnonzero(cases.history_rows.lengths() == 0) if self.user_ids is None else np.empty(0, int)
        )
        if cold.size and beta == 0:
            raise checks.wrong(
                "popularity_weight", "another number than 0 for a history without a known item", beta
            )
        scores = CaseScores(lambda rows: torch.from_numpy(model.scores(asked[rows], beta, lam)[0]))
        ids, best = best_items(scores, cases, k, kept, cases.history_rows if exclude_seen else None)
        found = as_recommendations(
            wanted,
            ids,
            best,
            catalogue,
            popularity_weight=beta,
            personal_weight=lam,
            facts={**strange.counts, "without_history": cold.tolist()},
        )
        return found if titles is None else found.with_titles(titles, catalogue.item_ids)

    def beside(self, log_p: Any) -> "Exported":
        """The same beside another log p: [V] nats in the order of the items, or a PopularityPrior.

        This one stays as it is. Raises ValueError where what stands there is learned.
        """
        if not self.about["refreshable"]:
            raise checks.wrong(
                "log_p", "a model with prior 'none', 'frozen' or 'by-period'", text=f"{self.about['prior']!r}"
            )
        given = log_p.log_prior_V if isinstance(log_p, PopularityPrior) else log_p
        log_p_V = checks.float_array("log_p", given, 1, np.float32)
        checks.shape("log_p", log_p_V, (self.catalogue.num_items,))
        return dataclasses.replace(self, log_prior_V=log_p_V)


def open_export(path: str | Path) -> Exported:
    """Read a folder that `export` wrote, every byte checked. onnx needs onnxruntime (the extra `onnx`).

    Nothing in it is unpickled, nor imported: a file that asks for that is refused.
    Raises: ValueError for a folder of something else, or a changed byte; says which file.
    """
    folder = local_path(path, "path")
    files.recover(folder)
    try:
        about = sealed.read(folder / ABOUT)
        for name, whole in about["sha256"].items():
            if files.sha256(folder / name) != whole:
                raise checks.wrong("path", "the bytes that were written", text=f"{folder / name}, others")
        if about["version"] != VERSION:
            raise checks.wrong("path", f"an export of version {VERSION}", about["version"])
        tensors = load_file(engine_name(folder / TENSORS))
    except (OSError, KeyError, sealed.Damaged) as error:
        raise checks.wrong("path", "a folder that fastpop.export wrote", text=f"{folder}: {error}") from None
    items, users = (
        None if about[name] is None else edge.id_array(name, about[name]) for name in ("item_ids", "user_ids")
    )
    assert items is not None
    openers = {"safetensors": _of_weights, "onnx": _of_onnx, "torch.export": _of_program}
    ask = openers[about["format"]](folder, about, tensors)
    return Exported(about, tensors["log_prior"].numpy(), Catalogue(items), users, ask)


def _of_weights(folder: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Asked:
    item_VD, scale, offset = tensors["item_vectors"], about["scale"], about["offset"]
    if about["reads"] == "events":
        return _of_module(OfUsers(tensors["queries"], item_VD, scale, offset).eval())
    part = registry.restored(about["encoder"])
    sizes = Sizes(0, len(item_VD), int(about["dim"]), int(about["max_length"]))
    with torch.random.fork_rng(devices=[]):
        encoder = part.build(sizes)
    start = "encoder."
    own = {name[len(start) :]: one for name, one in tensors.items() if name.startswith(start)}
    encoder.load_state_dict(own)
    return _of_module(OfHistories(encoder, item_VD, scale, offset, int(about["max_length"])).eval())


def _of_program(folder: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Asked:
    path = folder / GRAPHS["torch.export"]
    _refuse_pickle(path)
    return _of_module(torch.export.load(path).module())


def _refuse_pickle(path: Path) -> None:
    """torch.export.load unpickles what an archive marks so."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            pickled = name.endswith(".pt") and archive.getinfo(name).file_size > 0
            if name.endswith("_config.json"):
                pickled = any(one["use_pickle"] for one in json.loads(archive.read(name))["config"].values())
            if pickled:
                raise checks.wrong("path", "a graph without pickled parts", text=f"{path}: {name}")


def _of_module(module: Any) -> Asked:
    def ask(asked: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            score, query = module(*(torch.tensor(one) for one in (asked, *others)))
        return score.numpy(), query.numpy()

    return ask


def _of_onnx(folder: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Asked:
    try:
        import onnxruntime
    except ImportError:
        checks.missing_package("onnxruntime", "onnx", "an ONNX export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(folder / GRAPHS["onnx"]), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]

    def ask(*given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, query = session.run(None, dict(zip(names, given)))
        return score, query

    return ask
