"""An index of item vectors with log p as one more column: built once, asked at every popularity weight.

A served score is λ scale <q, e_i> + (β - o) t_i, with t log p or what was learned in its place and o the
arm's offset (`fastpop.decoder`): the dot product of [λ q, β - o] with [scale e_i, t_i]. So β and λ change
queries alone, and another log p changes one column, which an index that keeps vectors as they are takes in
place. The mean of t is taken out of the column and added to scores: a constant ranks nothing, and graphs of
neighbours search long vectors worst that all point the same way.
"""

import json
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastpop import bars, checks, files, ops
from fastpop.data.cases import Cases
from fastpop.data.csr import Csr
from fastpop.data.paths import local_path
from fastpop.evaluation.recommendations import asked_cases
from fastpop.popularity import PopularityPrior
from fastpop.text import aligned
from fastpop.training.recommending import readable_cases

if TYPE_CHECKING:
    from fastpop.training.result import TrainResult

KINDS = ("flat", "faiss-flat", "faiss-hnsw", "faiss-ivf")
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
PIECE = 1 << 16  # items that are added at once
MOST_LOOKED_AT = 100_000  # items, for how large their vectors are
CARD, VECTORS, INDEX = "index.json", "vectors.npy", "index.faiss"


@dataclass(frozen=True)
class Recall:
    """What an index found of the exact k best. recall: by popularity weight. num_queries: that were asked.
    seconds: of a query, at the last weight."""

    k: int
    recall: dict[float, float]
    num_queries: int
    seconds: float


@dataclass(frozen=True)
class Refresh:
    """Another log p in an index. in_place: whether one column was written; else everything was built anew.
    seconds: what it took."""

    in_place: bool
    seconds: float


class ItemIndex:
    """Item vectors with a column of log p, to be searched. Made by `TrainResult.export_index`, or `load`.

    kind: one of KINDS; "flat" is exact, fastpop's own, and needs no package. item_ids: [V] of the log, or
    None. offset: what popularity weights are less before they multiply the column. build_seconds: it took so
    long. recall: measured when it was made, or None.
    """

    def __init__(
        self,
        kind: str,
        vectors: Any,
        term_V: np.ndarray,
        *,
        item_ids: Any = None,
        offset: float = 0.0,
        trained_weight: float = 1.0,
        options: dict[str, Any] | None = None,
    ):
        """vectors: float32 [V, D], scale included; of "flat" they are kept as they lie. term_V: [V] nats."""
        checks.one_of("kind", kind, KINDS)
        self.kind, self.item_ids, self.offset = kind, item_ids, float(offset)
        self.trained_weight, self.options = float(trained_weight), dict(options or {})
        self.num_items, self.dim = vectors.shape
        self.recall: Recall | None = None
        self._vectors: Any = vectors if kind == "flat" else None
        self._set_term(term_V)
        self._stretch = 1.0
        if kind != "flat":
            self._stretch = self._even(vectors)
        started = time.perf_counter()
        self._index: Any = None if kind == "flat" else self._built(vectors)
        self.build_seconds = time.perf_counter() - started

    def _set_term(self, term_V: np.ndarray) -> None:
        self._mean = float(np.mean(term_V))
        self._column_V = (np.asarray(term_V, np.float64) - self._mean).astype(np.float32)

    def _even(self, vectors: Any) -> float:
        """What vectors are multiplied by and queries divided by, so that scores stay and the column weighs as
        much as one of their numbers. Graphs and lists go by the rows: beside vectors that are much smaller
        they would see log p alone, and find little at weight 0."""
        step = max(1, self.num_items // MOST_LOOKED_AT)
        spread = float(np.asarray(self._rows(vectors, np.arange(0, self.num_items, step))[:, :-1]).std())
        column = float(self._column_V.std())
        return column / spread if spread > 0 and column > 0 else 1.0

    def _built(self, vectors: Any) -> Any:
        """The faiss index of the rows and the column, added a piece at a time."""
        faiss = _faiss()
        known = {"faiss-flat": (), "faiss-hnsw": ("m", "ef_construction", "ef_search")}
        known["faiss-ivf"] = ("num_lists", "num_probes", "num_trained")
        for name in self.options:
            checks.one_of(f"option of {self.kind}", name, known[self.kind])
            checks.number(name, self.options[name], ge=1, integer=True)
        width, product = self.dim + 1, faiss.METRIC_INNER_PRODUCT
        if self.kind == "faiss-flat":
            index = faiss.IndexFlatIP(width)
        elif self.kind == "faiss-hnsw":
            index = faiss.IndexHNSWFlat(width, self.options.get("m", 32), product)
            index.hnsw.efConstruction = self.options.get("ef_construction", 200)
            index.hnsw.efSearch = self.options.get("ef_search", 256)
        else:
            lists = min(self.options.get("num_lists", max(1, int(4 * self.num_items**0.5))), self.num_items)
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, product)
            index.nprobe = min(self.options.get("num_probes", max(1, lists // 20)), lists)
            size = min(self.options.get("num_trained", 64 * lists), self.num_items)
            chosen = np.sort(np.random.default_rng(0).permutation(self.num_items)[:size])
            index.train(self._rows(vectors, chosen))
        with bars.progress_bar(self.num_items, f"index {self.kind}", delay=2.0) as bar:
            for low in range(0, self.num_items, PIECE):
                piece = np.arange(low, min(low + PIECE, self.num_items))
                index.add(self._rows(vectors, piece))
                bar.update(len(piece))
        return index

    def _rows(self, vectors: Any, ids: np.ndarray) -> np.ndarray:
        rows = vectors[torch.from_numpy(ids)] if isinstance(vectors, torch.Tensor) else vectors[ids]
        rows = rows.detach().float().cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        rows = rows if self._stretch == 1.0 else rows * np.float32(self._stretch)
        return np.ascontiguousarray(np.column_stack([rows, self._column_V[ids]]), np.float32)

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        popularity_weight: float | None = None,
        personal_weight: float = 1.0,
        exclude: Any = None,
        batch: int = 1024,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(items [n, k] int64 places in the catalogue, scores [n, k] float32), best first; -1 and -inf where
        fewer were found.

        Args:
            query: [n, D] of the encoder (`Recommender.encode`). popularity_weight: β; None: as trained.
            personal_weight: λ. exclude: what is left out of each row, as histories: `fastpop.data.Csr`,
            (offsets, item) or a list of lists; an approximate index looks for so many items more.
            batch: rows that are searched at once.
        Raises: ValueError, TypeError: says the argument, the expected and the got.
        """
        checks.number("k", k, ge=1, integer=True)
        checks.number("batch", batch, ge=1, integer=True)
        weight = self.trained_weight if popularity_weight is None else popularity_weight
        checks.score_weight("popularity_weight", weight)
        checks.score_weight("personal_weight", personal_weight)
        query_nD = checks.float_array("query", query, 2, np.float32)
        checks.shape("query", query_nD, ("n", self.dim))
        left_out = None
        if exclude is not None:
            sizes = {"num_rows": len(query_nD), "num_items": self.num_items}
            left_out = Csr.of("exclude", exclude, **sizes)
        k = min(k, self.num_items)
        item_nK, score_nK = np.full((len(query_nD), k), -1), np.full((len(query_nD), k), -np.inf, np.float32)
        for low in range(0, len(query_nD), batch):
            at = slice(low, min(low + batch, len(query_nD)))
            some = None if left_out is None else left_out.part(at.start, at.stop)
            item_nK[at], score_nK[at] = self._search(
                personal_weight * query_nD[at], k, float(weight) - self.offset, some
            )
        return item_nK, score_nK

    def _search(
        self, query_nD: np.ndarray, k: int, weight: float, exclude: Csr | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "flat":
            ids, best = ops.top_items(
                torch.from_numpy(np.ascontiguousarray(query_nD, np.float32)),
                self._vectors,
                k,
                bias=torch.from_numpy(np.float32(weight) * self._column_V),
                exclude_offsets=None if exclude is None else exclude.offsets,
                exclude_item=None if exclude is None else exclude.item,
            )
            return ids.numpy(), best.numpy() + np.float32(weight * self._mean)
        asked = np.column_stack([query_nD / self._stretch, np.full(len(query_nD), weight)]).astype(np.float32)
        more = 0 if exclude is None else int(exclude.lengths().max(initial=0))
        score_nM, item_nM = self._index.search(asked, min(k + more, self.num_items))
        if exclude is not None:
            row = np.arange(len(asked))[:, None] * self.num_items
            gone = np.isin(row + item_nM, exclude.keys(self.num_items)) | (item_nM < 0)
            order = np.argsort(gone, axis=1, kind="stable")[:, :k]  # what is left stays in order
            gone = np.take_along_axis(gone, order, 1)
            item_nM = np.where(gone, -1, np.take_along_axis(item_nM, order, 1))
            score_nM = np.where(gone, -np.inf, np.take_along_axis(score_nM, order, 1))
        there = item_nM[:, :k] >= 0
        return item_nM[:, :k], np.where(there, score_nM[:, :k] + np.float32(weight * self._mean), -np.inf)

    def measure(
        self, query: Any, vectors: Any, k: int = 10, *, betas: tuple[float, ...] = BETAS, batch: int = 1024
    ) -> Recall:
        """Recall of the exact k best of these queries at each popularity weight, and seconds a query.

        vectors: [V, D] that the index was made of: an index need not give them back.
        """
        exact = ItemIndex("flat", vectors, self._column_V, offset=self.offset)
        found, seconds = {}, 0.0
        for beta in betas:
            right_nK, _ = exact.search(query, k, popularity_weight=beta, batch=batch)
            started = time.perf_counter()
            got_nK, _ = self.search(query, k, popularity_weight=beta, batch=batch)
            seconds = (time.perf_counter() - started) / len(right_nK)
            hits = [np.isin(right, got).mean() for right, got in zip(right_nK, got_nK)]
            found[float(beta)] = float(np.mean(hits))
        return Recall(min(k, self.num_items), found, len(right_nK), seconds)

    def refresh(self, prior: Any, vectors: Any = None) -> Refresh:
        """Another log p, say today's, in this index; scores are exact with it from then on.

        prior: a PopularityPrior, or [V] nats. vectors: [V, D] of the model, which "faiss-ivf" is built anew
        of, since its lists hang on the column; the others write it in place. A graph keeps the neighbours of
        the log p that it was built with: `measure` says what that costs.
        Raises: ValueError where a built-anew index gets no vectors, or log p is not finite.
        """
        term_V = prior.log_prior_V if isinstance(prior, PopularityPrior) else prior
        term_V = checks.float_array("prior", term_V, 1)
        checks.shape("prior", term_V, (self.num_items,))
        if self.kind == "faiss-ivf" and vectors is None:
            raise checks.wrong("vectors", "the [V, D] item vectors, of which faiss-ivf is built anew", None)
        started = time.perf_counter()
        self._set_term(term_V)
        self.recall = None
        if self.kind == "faiss-ivf":
            self._stretch = 1.0
            self._stretch = self._even(vectors)
            self._index = self._built(vectors)
        elif self.kind != "flat":
            self._stored()[:, -1] = self._column_V
        return Refresh(self.kind != "faiss-ivf", time.perf_counter() - started)

    def _stored(self) -> np.ndarray:
        """[V, D + 1] of a flat index or of a graph's, where it keeps them."""
        faiss = _faiss()
        flat = self._index if self.kind == "faiss-flat" else faiss.downcast_index(self._index.storage)
        size = self.num_items * (self.dim + 1)
        return faiss.rev_swig_ptr(flat.get_xb(), size).reshape(self.num_items, self.dim + 1)

    def save(self, out: str | Path) -> Path:
        """A folder that `load` reads, all or nothing. Raises OSError where it cannot be written."""
        place = local_path(out, "out")
        card = {
            "kind": self.kind,
            "offset": self.offset,
            "trained_weight": self.trained_weight,
            "options": self.options,
            "mean": self._mean,
            "stretch": self._stretch,
            "recall": None if self.recall is None else _plain(self.recall),
        }
        with files.atomic_folder(place, replaces=_is_index_alone) as draft:
            if self.kind == "flat":
                rows = self._vectors.detach().float().cpu().numpy()
                np.save(draft / VECTORS, rows)
            else:
                _faiss().write_index(self._index, str(draft / INDEX))
            np.save(draft / "column.npy", self._column_V)
            if self.item_ids is not None:
                np.save(draft / "item_ids.npy", np.asarray(self.item_ids).astype(_saved_dtype(self.item_ids)))
            (draft / CARD).write_text(json.dumps(card, indent=1), encoding="ascii")
        return place

    @classmethod
    def load(cls, folder: str | Path) -> "ItemIndex":
        """Inverse of `save`; vectors of "flat" are mapped. Raises ValueError for a folder that holds none."""
        place = local_path(folder, "folder")
        if not _is_index(place):
            raise checks.wrong("folder", "a folder that ItemIndex.save wrote", text=f"{place}")
        card = json.loads((place / CARD).read_text(encoding="ascii"))
        column_V = np.load(place / "column.npy")
        found = cls.__new__(cls)
        for name in ("kind", "offset", "trained_weight", "options"):
            setattr(found, name, card[name])
        found._mean, found._column_V, found._stretch = card["mean"], column_V, card.get("stretch", 1.0)
        found.item_ids = np.load(place / "item_ids.npy") if (place / "item_ids.npy").exists() else None
        found.build_seconds = 0.0
        found._vectors = found._index = None
        if found.kind == "flat":
            found._vectors = torch.from_numpy(np.load(place / VECTORS, mmap_mode="c"))
            found.num_items, found.dim = found._vectors.shape
        else:
            found._index = _faiss().read_index(str(place / INDEX))
            found.num_items, found.dim = found._index.ntotal, found._index.d - 1
        recall = card["recall"]
        if recall is not None:
            recall = Recall(**{**recall, "recall": {float(b): r for b, r in recall["recall"].items()}})
        found.recall = recall
        return found

    def measured(self, query: Any, vectors: Any, k: int, betas: tuple[float, ...], batch: int) -> "ItemIndex":
        """This index with its recall measured."""
        self.recall = self.measure(query, vectors, k, betas=betas, batch=batch)
        return self

    def table(self) -> str:
        """Plain text: what it is, and its recall at each popularity weight."""
        title = f"{self.kind}: {self.num_items:,} items, {self.dim} numbers and log p; built in "
        title += f"{self.build_seconds:.3g} s"
        if self.recall is None:
            return title
        found = self.recall
        cells = [["popularity weight", f"recall@{found.k}"]]
        cells += [[f"{beta:g}", f"{recall:.4f}"] for beta, recall in found.recall.items()]
        words = (
            f"Of the exact {found.k} best of {found.num_queries:,} queries; {1e3 * found.seconds:.3g} ms a "
            "query."
        )
        return "\n".join([title, *aligned(cells, least=(18, 12), left=0), *textwrap.wrap(words, 78)])

    __repr__ = table


def measured_index(
    result: "TrainResult",
    kind: str,
    cases: Cases | None,
    k: int,
    betas: tuple[float, ...],
    most_cases: int,
    batch: int,
    options: dict[str, Any],
) -> ItemIndex:
    """Of `TrainResult.export_index`: made, and its recall measured."""
    decoder = result.model.decoder
    vectors = decoder.item_vectors().detach()
    scale = float(decoder.scale.detach())
    vectors = vectors if scale == 1 else vectors.float() * scale
    if cases is None:
        cases = result.split.test
    if cases is None or cases.num_cases == 0:
        users = np.flatnonzero(np.diff(result.split.train.offsets))
        cases = asked_cases(result.model, result.log.decode_users(users[: 10 * most_cases]), result.log)[1]
    cases, _ = readable_cases(result.model, result.split.train, cases)
    if cases.num_cases == 0:
        raise checks.wrong("cases", "cases that the encoder can read", text="none")
    chosen = np.random.default_rng(result.config.seed).permutation(cases.num_cases)[:most_cases]
    query = result.model.encode(cases.take(np.sort(chosen))).detach().float().cpu().numpy()
    return ItemIndex(
        kind,
        vectors,
        decoder.popularity_term().detach().double().cpu().numpy(),
        item_ids=result.log.item_ids,
        offset=decoder.prior.offset,
        trained_weight=decoder.trained_weight,
        options=options,
    ).measured(query, vectors, k, betas, batch)


def _plain(recall: Recall) -> dict[str, Any]:
    return {**vars(replace(recall)), "recall": {str(beta): value for beta, value in recall.recall.items()}}


def _saved_dtype(ids: Any) -> Any:
    kind = np.asarray(ids[:1])
    return np.int64 if kind.dtype.kind in "iu" else np.str_


def _is_index(folder: Path) -> bool:
    return (folder / CARD).is_file()


def _is_index_alone(folder: Path) -> bool:
    names = (CARD, VECTORS, INDEX, "column.npy", "item_ids.npy")
    return _is_index(folder) and files.holds_only(folder, names)


def _faiss() -> Any:
    checks.needed("faiss", "index", "an index of this kind")
    import faiss

    return faiss
