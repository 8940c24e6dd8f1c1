"""How long requests to examples/serve_http.py take under load: percentiles, at rates or without a pause.

    python examples/load_test.py --run run --rates 50 100 200 --seconds 10 --out load.json
    python examples/load_test.py --url http://127.0.0.1:8000 --rates 50

With --run it starts a server of its own on the loopback, and ends it. At a rate requests have times at which
they are due, whether the ones before were answered or not, and a request's time counts from when it was due:
a server that falls behind shows it. --table prints a record as the page has it.
"""

import argparse
import http.client
import json
import math
import os
import platform
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

PERCENTILES = (50, 90, 99, 99.9)
HISTORY, K = 20, 10


def percentile(seconds: list[float], percent: float) -> float:
    """The smallest time that so many percent of the requests did not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(round(percent * len(ordered) / 100, 6)) - 1)]


class Asking:
    """Clients that share a schedule: request n is due at n / rate seconds, or whenever a client is free."""

    def __init__(
        self, url: str, items: list, rate: float | None, seconds: float, clients: int, seed: int = 0
    ):
        self.address = urlsplit(url)
        self.items, self.rate, self.seconds, self.clients = items, rate, seconds, clients
        self.random = random.Random(seed)
        self.lock, self.number = threading.Lock(), 0
        self.times: list[float] = []
        self.statuses: dict[str, int] = {}

    def next(self) -> tuple[float, bytes] | None:
        """(seconds after the start at which it is due, body) of the next request; None: there is none."""
        with self.lock:
            now = time.perf_counter() - self.start
            due = now if self.rate is None else self.number / self.rate
            if due >= self.seconds:
                return None
            self.number += 1
            history = self.random.choices(self.items, k=self.random.randint(1, HISTORY))
            weight = self.random.choice((0.0, 0.5, 1.0))
            asked = {"history": history, "k": K, "popularity_weight": weight}
            return due, json.dumps(asked).encode()

    def client(self) -> None:
        connection = self.connected()
        while (asked := self.next()) is not None:
            due, body = asked
            time.sleep(max(0.0, due - (time.perf_counter() - self.start)))
            try:
                connection.request("POST", "/recommend", body)
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                status = str(reply.status)
                if reply.status == 200 and len(answer["lists"][0]["items"]) != K:
                    status = "short list"
            except (OSError, http.client.HTTPException, ValueError) as error:
                status = type(error).__name__
                connection.close()
                connection = self.connected()
            took = time.perf_counter() - self.start - due
            with self.lock:
                self.times.append(took)
                self.statuses[status] = self.statuses.get(status, 0) + 1
        connection.close()

    def connected(self) -> http.client.HTTPConnection:
        assert self.address.hostname is not None
        return http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=30)

    def run(self) -> dict:
        """What was found: percentiles in milliseconds, of all requests, answered or not."""
        threads = [threading.Thread(target=self.client) for _ in range(self.clients)]
        self.start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = time.perf_counter() - self.start
        return {
            "rate": self.rate,
            "clients": self.clients,
            "requests": len(self.times),
            "per_second": len(self.times) / whole,
            "statuses": dict(sorted(self.statuses.items())),
            "milliseconds": {f"p{one:g}": 1e3 * percentile(self.times, one) for one in PERCENTILES},
            "slowest": 1e3 * max(self.times),
        }


def asked(url: str, path: str) -> dict:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def started(run: Path, threads: int) -> tuple[subprocess.Popen, str]:
    """A server of this run on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("serve_http.py")
    words = [sys.executable, "-P", str(script), str(run), "--port", str(port), "--threads", str(threads)]
    server = subprocess.Popen(words)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with exit code {server.returncode}")
        try:
            asked(url, "/health")
        except OSError:
            time.sleep(0.1)
        else:
            return server, url
    server.terminate()
    raise SystemExit("the server did not answer within a minute")


def table(record: dict) -> str:
    """A record as markdown."""
    head = ["asked for", "answered", *(f"p{one:g}" for one in PERCENTILES), "slowest", "of a core", "not 200"]
    rows = [head, ["---"] * len(head)]
    for one in record["loads"]:
        rate = f"{one['clients']} clients, no pause" if one["rate"] is None else f"{one['rate']:g} a second"
        bad = sum(count for status, count in one["statuses"].items() if status != "200")
        times = [*one["milliseconds"].values(), one["slowest"], one["core_milliseconds"]]
        rows.append([rate, f"{one['per_second']:.0f} a second", *(f"{ms:.1f}" for ms in times), f"{bad:,}"])
    made = record["made_by"]
    lines = [
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "Milliseconds from when a request was due, and of a core that the server took for one; "
        f"{K} items for histories of 1 to {HISTORY} of {made['items']:,}; {made['seconds']:g} seconds each.",
        f"Client and server on one machine ({made['machine']}; load average before: "
        f"{made['load_average_before']:.1f}), {made['threads']} threads of the server.",
    ]
    return "\n".join(lines)


def machine() -> str:
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--run", type=Path, help="start a server of this run or export")
    where.add_argument("--url", help="of a server that runs")
    where.add_argument("--table", type=Path, help="print this record")
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[], help="requests a second; none: no pause"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="of a server that --run starts")
    parser.add_argument("--out", type=Path, help="a JSON record")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    server = None
    if options.run:
        server, url = started(options.run, options.threads)
    else:
        url = options.url
    try:
        items = asked(url, "/items")["items"]
        Asking(url, items, None, 1.0, 2, seed=1).run()  # what is loaded on first use is
        busy = os.getloadavg()[0]
        loads = []
        for rate in options.rates or [None]:
            before = asked(url, "/health")["cpu_seconds"]
            found = Asking(url, items, rate, options.seconds, options.clients).run()
            spent = asked(url, "/health")["cpu_seconds"] - before
            loads.append({**found, "core_milliseconds": 1e3 * spent / found["requests"]})
        made = {
            "command": " ".join(sys.argv[1:]),
            "machine": machine(),
            "load_average_before": busy,
            "seconds": options.seconds,
            "threads": options.threads,
            "items": asked(url, "/health")["items"],
            "when": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
    record = {"made_by": made, "loads": loads}
    print(table(record))
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
