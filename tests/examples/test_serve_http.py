"""The example server answers over the loopback as the run does, under load, and takes a fresh log p."""

import http.client
import importlib.util
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytest.importorskip("starlette", reason="starlette, which the example serves with, is not installed")
uvicorn = pytest.importorskip("uvicorn")


def script(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("served")
    log = small_log()
    options = {"epochs": 1, "dim": 8, "max_length": 6, "num_negatives": 16, "progress": False}
    fastpop.train(log, encoder="bag", out=place / "run", **options)
    (place / "items.csv").write_text("id,title\n" + "".join(f"{one},The {one}\n" for one in log.item_ids))
    return place


class Client:
    """One connection to a server that runs in a thread of this process."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        for _ in range(1000):
            if self.server.started:
                break
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, raw)
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        connection.close()
        return reply.status, answer

    def close(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def served(run):
    http_server, started = script("serve_http"), []

    def start(path=run / "run", **options):
        started.append(Client(http_server.make_app(http_server.Shelf(path, run / "items.csv"), **options)))
        return started[-1]

    yield start
    for client in started:
        client.close()


def ids(answer):
    return [[one["id"] for one in row["items"]] for row in answer["lists"]]


@pytest.mark.parametrize("form", ["run", "export"])
def test_answers_are_those_of_the_run(run, served, form, tmp_path):
    result = fastpop.load(run / "run")
    item_ids = result.log.item_ids.tolist()
    client = served() if form == "run" else served(fastpop.export(result, tmp_path / "out"))
    asked = {"k": 5, "popularity_weight": 0.5, "deny": item_ids[:3], "allow": item_ids[:30]}
    status, answer = client.ask("POST", "/recommend", {"history": item_ids[4:8], **asked})
    want = result.recommend(histories=[item_ids[4:8]], **asked)
    assert status == 200
    assert ids(answer) == want.item.tolist()
    assert answer["lists"][0]["items"][0]["title"] == f"The {want.item[0][0]}"
    assert answer["popularity_weight"] == 0.5
    rows = {"histories": [item_ids[:2], [], [10**6]], "users": ["a", "b", "c"], "k": 3}
    status, answer = client.ask("POST", "/recommend", rows)
    assert [row["user"] for row in answer["lists"]] == ["a", "b", "c"]
    assert answer["facts"] == {"histories": 1, "without_history": [1, 2]}
    status, answer = client.ask("POST", "/similar", {"items": item_ids[:2], "k": 3})
    if form == "run":
        assert ids(answer) == result.similar_items(item_ids[:2], k=3).item.tolist()
    else:
        assert (status, answer["error"]) == (
            400,
            "similar: expected a run; got an export, which has no similar_items",
        )
    assert client.ask("GET", "/items")[1]["items"] == item_ids


@pytest.mark.parametrize("form", ["run", "export"])
def test_log_p_is_fresh_from_the_next_request_on(run, served, form, tmp_path):
    result = fastpop.load(run / "run")
    item_ids = result.log.item_ids.tolist()
    client = served() if form == "run" else served(fastpop.export(result, tmp_path / "out"))
    asked = {"history": item_ids[4:6], "k": 4, "popularity_weight": 3.0}
    before = ids(client.ask("POST", "/recommend", asked)[1])
    count_V = np.zeros(len(item_ids))
    count_V[[30, 31]] = 500, 900
    want = result.refresh_prior(count_V).recommend(histories=[item_ids[4:6]], k=4, popularity_weight=3.0)
    for counts in (count_V.tolist(), {str(item_ids[30]): 500, str(item_ids[31]): 900}):
        status, answer = client.ask("PUT", "/log-p", {"counts": counts})
        assert status == 200
        assert answer["log_p"].startswith("counts by request, 20")
        assert ids(client.ask("POST", "/recommend", asked)[1]) == want.item.tolist() != before
    assert client.ask("GET", "/health")[1]["log_p"] == answer["log_p"]
    for counts, message in (
        ([1, 2], "counts: expected [39]; got [2]"),
        ({"x": 1}, "counts: expected ids of items"),
    ):
        status, answer = client.ask("PUT", "/log-p", {"counts": counts})
        assert status == 400
        assert message in answer["error"]


def test_a_file_of_counts_is_taken_when_it_changes(run, served, tmp_path):
    result = fastpop.load(run / "run")
    item_ids = result.log.item_ids.tolist()
    path, asked = tmp_path / "counts.npy", {"history": [], "k": 1}
    client = served(counts=path, every=0.02)

    def first():
        return ids(client.ask("POST", "/recommend", asked)[1])[0][0]

    def until(place):
        deadline = time.monotonic() + 20
        while first() != item_ids[place]:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    assert first() == item_ids[int(result.prior.log_prior_V.argmax())]
    for place in (35, 12):
        count_V = np.ones(len(item_ids))
        count_V[place] = 10**6
        np.save(tmp_path / "new.npy", count_V)
        (tmp_path / "new.npy").replace(path)
        until(place)
    path.write_bytes(b"no array")
    time.sleep(0.1)
    assert first() == item_ids[12]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "body: expected JSON"),
        ({"who": 1}, 400, "body: expected an object of allow, candidates"),
        ([1], 400, "body: expected an object"),
        ({"history": ["x"]}, 400, "histories: expected ids of items that are whole numbers"),
        ({"history": [], "popularity_weight": 0}, 400, "popularity_weight: expected another number than 0"),
        ({"history": [3], "k": 0}, 400, "k: expected an integer >= 1"),
        ({"history": [3], "k": 10**6}, 400, "k: expected at most 1000"),
        ({"histories": [[3]] * 257}, 400, "histories: expected at most 256; got 257"),
        (b" " * (1 << 21), 413, "body: expected at most 1048576 bytes"),
    ],
)
def test_a_bad_request_is_told_why(served, body, status, message):
    found, answer = served().ask("POST", "/recommend", body)
    assert (found, message in answer["error"]) == (status, True), answer


def test_more_than_may_wait_are_refused(run):
    http_server = script("serve_http")
    shelf, busy = http_server.Shelf(run / "run"), threading.Event()
    plain = shelf.recommend
    shelf.recommend = lambda **asked: (busy.wait(30), plain(**asked))[1]
    client = Client(http_server.make_app(shelf, threads=1, waiting=1))
    statuses = []
    ask = {"history": [3], "k": 2}
    threads = [
        threading.Thread(target=lambda: statuses.append(client.ask("POST", "/recommend", ask)[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while statuses.count(503) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    busy.set()
    for thread in threads:
        thread.join()
    client.close()
    assert sorted(statuses) == [200, 200, 503, 503]


def test_the_load_test_measures_this_server(served, tmp_path, capsys, monkeypatch):
    load = script("load_test")
    client = served()
    out = tmp_path / "load.json"
    url = f"http://127.0.0.1:{client.port}"
    words = [
        "load_test.py",
        "--url",
        url,
        "--rates",
        "40",
        "--seconds",
        "0.5",
        "--clients",
        "3",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", words)
    load.main()
    record = json.loads(out.read_text())
    found = record["loads"][0]
    assert found["requests"] == 20
    assert found["statuses"] == {"200": 20}
    assert found["core_milliseconds"] > 0
    assert 0 < found["milliseconds"]["p50"] <= found["milliseconds"]["p99.9"] <= found["slowest"]
    shown = capsys.readouterr().out
    assert shown == load.table(record) + "\n"
    assert "| 40 a second |" in shown
    monkeypatch.setattr(sys, "argv", ["load_test.py", "--table", str(out)])
    load.main()
    assert capsys.readouterr().out == shown


def test_percentiles_are_those_of_the_definition():
    load = script("load_test")
    times = list(np.random.default_rng(0).permutation(1000) + 1.0)
    assert [load.percentile(times, one) for one in (50, 99, 99.9, 100)] == [500, 990, 999, 1000]
    assert load.percentile([7.0], 50) == 7.0


def test_a_request_counts_from_when_it_was_due(served):
    """A server that stalls makes those wait that come meanwhile, and it shows."""
    load = script("load_test")
    asking = load.Asking(f"http://127.0.0.1:{served().port}", [3, 6, 9], 50.0, 0.4, 1)
    asking.connected = lambda: Stalls()
    found = asking.run()
    assert found["requests"] == 20
    assert found["milliseconds"]["p50"] > 1e3 * (0.05 * 10 - 0.2) * 0.9  # the tenth is done after 10 stalls


class Stalls:
    """A connection whose every answer takes 50 ms."""

    status = 200

    def request(self, *_):
        time.sleep(0.05)

    def getresponse(self):
        return self

    def read(self):
        return json.dumps({"lists": [{"items": [0] * 10}]}).encode()

    def close(self):
        pass


def test_the_page_has_the_table_of_the_record_that_is_kept():
    load = script("load_test")
    record = json.loads((EXAMPLES / "load_test.json").read_text())
    page = (EXAMPLES.parent / "docs" / "serving.md").read_text()
    shown = page.partition("<!-- load test -->")[2].partition("<!-- /load test -->")[0]
    assert load.table(record) in shown
    assert f"python examples/load_test.py {record['made_by']['command']}" in shown
    assert all(set(one["statuses"]) == {"200"} for one in record["loads"])
