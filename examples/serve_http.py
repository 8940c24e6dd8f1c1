"""Recommendations over HTTP: a run, or an export of one, behind Starlette and uvicorn.

    pip install 'fastpop[serve]'
    python examples/serve_http.py run --titles items.csv --counts counts.npy --port 8000

    curl -s 127.0.0.1:8000/recommend -d '{"history": [122, 87], "k": 5, "popularity_weight": 0.5}'
    curl -s 127.0.0.1:8000/similar -d '{"items": [122], "k": 5}'
    curl -s -X PUT 127.0.0.1:8000/log-p -d '{"counts": {"122": 17, "87": 3}}'

Each request has popularity weights of its own. log p is refreshed by PUT /log-p, or when the file of --counts
([V], .npy, in the order of the log's item ids) changes: requests under way end beside the log p that they
began with. A process has one model; ask a load balancer for several. There is no access control: this listens
on the loopback unless told otherwise, and PUT /log-p belongs behind your own door.
"""

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import fastpop
from fastpop.popularity import PopularityPrior

ASKED = {"users", "histories", "k", "popularity_weight", "personal_weight", "exclude_seen", "candidates"}
ASKED |= {"allow", "deny"}
LIKE = {"items", "k", "popularity_weight", "allow", "deny"}
MOST = {"rows": 256, "k": 1000}
BODY, COUNTS_BODY = 1 << 20, 1 << 28  # bytes


class Shelf:
    """The model that is served now. It is replaced whole, never changed."""

    def __init__(self, path: str | Path, titles: str | Path | None = None):
        folder = Path(path)
        opens = fastpop.open_export if fastpop.exporting.draft.is_export(folder) else fastpop.load
        self.trained = self.model = opens(folder)
        if isinstance(self.trained, fastpop.training.TrainResult):
            self.trained.model.eval()  # once for all threads: no request switches modes
        self.titles = None if titles is None else fastpop.data.read_titles(titles)
        self.log_p = "as trained"

    @property
    def item_ids(self) -> np.ndarray:
        catalogue = getattr(self.trained, "catalogue", None) or self.trained.log
        return np.asarray(catalogue.item_ids)

    def recommend(self, **asked: Any) -> dict[str, Any]:
        return self.answer(self.model.recommend(titles=self.titles, unknown="ignore", **asked))

    def similar(self, items: list, **asked: Any) -> dict[str, Any]:
        if not hasattr(self.model, "similar_items"):
            raise ValueError("similar: expected a run; got an export, which has no similar_items")
        return self.answer(self.model.similar_items(items, titles=self.titles, unknown="ignore", **asked))

    def answer(self, found: Any) -> dict[str, Any]:
        return {
            "lists": found.to_dicts(),
            "popularity_weight": found.popularity_weight,
            "personal_weight": found.personal_weight,
            "facts": dict(found.facts),
        }

    def refresh(self, counts: Any, source: str) -> None:
        """log p of new counts: [V], or by id, where an item that is not named has none."""
        if isinstance(counts, dict):
            ids = {str(one): place for place, one in enumerate(self.item_ids)}
            unknown = [one for one in counts if one not in ids]
            if unknown:
                raise ValueError(f"counts: expected ids of items; got {unknown[0]!r}")
            count_V = np.zeros(len(ids))
            for one, count in counts.items():
                count_V[ids[one]] = count
        else:
            count_V = np.asarray(counts, dtype=np.float64)
        if count_V.shape != self.item_ids.shape:
            raise ValueError(f"counts: expected [{len(self.item_ids)}]; got {list(count_V.shape)}")
        if hasattr(self.trained, "refresh_prior"):
            self.model = self.trained.refresh_prior(count_V)
        else:
            self.model = self.trained.beside(PopularityPrior.from_counts(count_V))
        self.log_p = f"{source}, {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"


def make_app(
    shelf: Shelf, *, counts: Path | None = None, every: float = 5.0, threads: int = 2, waiting: int = 64
) -> Starlette:
    """counts: a file that is looked at `every` so many seconds. threads: requests computed at once. waiting:
    more requests than this that wait for a thread are refused (503), so that a queue never grows without end.
    """
    limiter = anyio.CapacityLimiter(threads)
    under_way = 0

    async def in_thread(function: Callable[..., Any], *given: Any) -> Any:
        nonlocal under_way
        if under_way >= threads + waiting:
            raise HTTPException(503, "busy", headers={"Retry-After": "1"})
        under_way += 1
        try:
            return await anyio.to_thread.run_sync(function, *given, limiter=limiter)
        except (ValueError, TypeError) as error:
            raise HTTPException(400, str(error)) from None
        finally:
            under_way -= 1

    async def recommend(request: Request) -> JSONResponse:
        asked = await body_of(request, ASKED | {"history"})
        if "history" in asked:
            asked["histories"] = [asked.pop("history")]
        return JSONResponse(await in_thread(lambda: shelf.recommend(**asked)))

    async def similar(request: Request) -> JSONResponse:
        asked = await body_of(request, LIKE)
        return JSONResponse(await in_thread(lambda: shelf.similar(asked.pop("items", []), **asked)))

    async def refresh(request: Request) -> JSONResponse:
        asked = await body_of(request, {"counts"}, COUNTS_BODY)
        await in_thread(shelf.refresh, asked.get("counts"), "counts by request")
        return JSONResponse({"log_p": shelf.log_p})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "items": len(shelf.item_ids),
                "log_p": shelf.log_p,
                "under_way": under_way,
                "cpu_seconds": time.process_time(),
            }
        )

    async def items(request: Request) -> JSONResponse:
        return JSONResponse({"items": shelf.item_ids[:1000].tolist()})

    async def failed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(watched(shelf, counts, every)) if counts else None
        yield
        if watch is not None:
            watch.cancel()

    routes = [
        Route("/recommend", recommend, methods=["POST"]),
        Route("/similar", similar, methods=["POST"]),
        Route("/log-p", refresh, methods=["PUT"]),
        Route("/health", health),
        Route("/items", items),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: failed})


async def body_of(request: Request, names: set[str], most: int = BODY) -> dict[str, Any]:
    """The JSON of a request, with these names alone; no larger than is read."""
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > most:
            raise HTTPException(413, f"body: expected at most {most} bytes")
    try:
        asked = json.loads(bytes(raw))
    except ValueError as error:
        raise HTTPException(400, f"body: expected JSON; got {error}") from None
    if not isinstance(asked, dict) or not asked or set(asked) - names:
        given = ", ".join(sorted(set(asked) - names)) if isinstance(asked, dict) else type(asked).__name__
        raise HTTPException(
            400, f"body: expected an object of {', '.join(sorted(names))}; got {given or 'none'}"
        )
    for name in ("histories", "users", "items"):
        if isinstance(asked.get(name), list) and len(asked[name]) > MOST["rows"]:
            raise HTTPException(400, f"{name}: expected at most {MOST['rows']}; got {len(asked[name])}")
    if isinstance(asked.get("k"), int) and asked["k"] > MOST["k"]:
        raise HTTPException(400, f"k: expected at most {MOST['k']}; got {asked['k']}")
    return asked


async def watched(shelf: Shelf, path: Path, every: float) -> None:
    """Take log p from the file whenever it is another; one that cannot be read is said, and ignored."""
    last = None
    while True:
        with contextlib.suppress(OSError):
            state = os.stat(path)
            now = (state.st_mtime_ns, state.st_size, state.st_ino)
            if now != last:
                last = now
                try:
                    count_V = await anyio.to_thread.run_sync(lambda: np.load(path, allow_pickle=False))
                    await anyio.to_thread.run_sync(shelf.refresh, count_V, str(path))
                    print(f"log p of {shelf.log_p}", flush=True)
                except (ValueError, TypeError, EOFError) as error:
                    print(f"{path}: {error}", flush=True)
        await asyncio.sleep(every)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the --out of fastpop train, or of fastpop export")
    parser.add_argument("--titles", type=Path, help="a csv or parquet table of items")
    parser.add_argument("--counts", type=Path, help="a .npy file of counts, taken again when it changes")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks at --counts")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2, help="requests computed at once")
    options = parser.parse_args()
    torch.set_num_threads(1)  # requests are the parallel work
    app = make_app(
        Shelf(options.model, options.titles),
        counts=options.counts,
        every=options.every,
        threads=options.threads,
    )
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
