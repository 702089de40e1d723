"""How many requests a server answers, how fast, and whether its memory stays as it is.

A made-up model of Echonest's catalogue (159,063 items x 128 dimensions, 20,000 users with 50 items
each) is saved and served by ``nearfar serve`` in a process of its own. A client in another process
holds some connections, and on each asks for the next list of ten as soon as it has the last: "POST
/v1/recommend" for a random user. Before that, 50 lists are compared with those of the library, and
during it every answer is looked at: one that is not a full list of status 200 is an error.

Client and server share the cores. `client_cores` and `server_cores` are the time that each of the
processes had on them, a second; what the client takes, a server on a machine of its own would have.
`server_ms` is the server's time on the cores for each request: where other processes want the cores
too, it says more than `per_second`.

Then, one after the other and with nothing else to do: lists for somebody unknown who likes some
items, reloads of the model, and starts of the process until its port is open.

With `--rate 200` the client instead sends that many requests a second, at even intervals, whether
or not earlier ones have been answered (an open loop): `p99_ms` is then counted from the moment at
which a request was due, also if it waited for a free one of the connections. `late_ms` is how long
after it was due the slowest was sent.

    python benchmarks/serve.py [--seconds 60] [--connections 1 8 64] [--threads 1] [--recall 0.95]
        [--rate 200]

writes results/serve.csv and results/operations.csv; with `--rate`, results/serve_rate.csv only.
With `--recall` the load is then measured with an approximate index of that recall, which needs
faiss; of the exact lists that it is compared with it must find the share that it promises, less a
tenth, for there are few.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

import nearfar as nf
from common import DIM, N_ITEMS, Spread, made_up, show, unit_rows, write
from nearfar.model.card import Effective
from nearfar.model.fitted import Fitted

N_USERS, N_PAIRS, K = 20_000, 1_000_000, 10
TIMES = 10
"""How often what is done once is measured."""
CHECKED = 50
"""Lists that are compared with the library's before anything is timed."""
CENTRES = 400
TOKEN = "benchmark"
WARM_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


def made_up_model() -> nf.CML:
    """Make a model of random points around some hundred centres."""
    data = made_up(N_USERS, N_ITEMS, N_PAIRS)
    points = unit_rows(N_USERS + N_ITEMS, DIM, seed=0)
    points += unit_rows(CENTRES, DIM, seed=1)[np.arange(len(points)) % CENTRES]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    model = nf.CML(dim=DIM)
    users, items = points[:N_USERS], points[N_USERS:]
    model._fitted = Fitted(users, items, pl.DataFrame({"epoch": [1]}), 1, data, Effective(0.2, 1))
    return model


@contextmanager
def served(folder: Path, threads: int, index: Path | None = None) -> Iterator[tuple[int, int]]:
    """Give the process and the port of a server."""
    words = ["serve", str(folder), "--port", "0", "--threads", str(threads)]
    words += [] if index is None else ["--index", str(index)]
    command = [sys.executable, "-m", "nearfar", *words]
    environment = {**os.environ, "NEARFAR_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("The server did not start.")
            yield process.pid, int(line.strip().strip("/").rsplit(":", 1)[1])
        finally:
            process.terminate()


def check(model: nf.CML, port: int, least: float) -> None:
    """Compare lists of the server with the exact ones of the library; `least` must be the same."""
    found = 0
    for user in np.random.default_rng(1).integers(0, N_USERS, CHECKED).tolist():
        expected = dict(model.recommend(user, K).select("item_id", "score").iter_rows())
        results = asked(port, user)
        found += sum(one["id"] in expected for one in results)
        for one in results:
            score = expected.get(one["id"], one["score"])
            if abs(one["score"] - score) > 1e-6:
                raise SystemExit(f"The server scores item {one['id']} of user {user} {one}.")
    if found < least * CHECKED * K:
        raise SystemExit(f"Of {CHECKED * K} right entries the server's lists have {found}.")


def asked(port: int, user: int) -> list[dict[str, Any]]:
    """Ask for one list."""
    results: list[dict[str, Any]] = posted(port, "/v1/recommend", user=user, k=K)["results"]
    return results


def posted(port: int, path: str, **body: Any) -> dict[str, Any]:
    """Send one request; any status but 200 is an error."""
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), head
    )
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


class Client(asyncio.Protocol):
    """One connection that asks again and again, and notes how long each answer took.

    It reads no more of HTTP than it must, so that it takes little of the cores it shares.
    """

    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self.requests, self.until = requests, until
        self.seconds: list[float] = []
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()
        self.answer = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the next request."""
        self.begun = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; once it is whole, look at it and ask again."""
        self.answer += data
        head, separator, body = self.answer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        now = time.perf_counter()
        self.seconds.append(now - self.begun)
        whole = head.startswith(b"HTTP/1.1 200 ") and body.count(b'"rank":') == K
        self.errors += not whole
        self.answer = b""
        self.again(now)

    def again(self, now: float) -> None:
        """Ask again, or end."""
        if now < self.until:
            self.ask()
        else:
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Count it as an error if an answer is missing."""
        if not self.done.done():
            self.errors += 1
            self.done.set_result(None)


class Paced(Client):
    """A connection of an open loop: it sends when told to, and counts from when that was due."""

    def __init__(self, requests: Iterator[bytes], free: asyncio.Queue[Paced]) -> None:
        super().__init__(requests, until=0.0)
        self.free = free
        self.late: list[float] = []

    def connection_made(self, transport: Any) -> None:
        """Wait to be told."""
        self.transport = transport
        self.free.put_nowait(self)

    def send(self, due: float) -> None:
        """Send a request that was due at a time."""
        self.ask()
        self.late.append(self.begun - due)
        self.begun = due

    def again(self, now: float) -> None:
        """Be free for the next request."""
        self.free.put_nowait(self)


def requests(seed: int) -> Iterator[bytes]:
    """Give requests for random users, made beforehand, for ever."""
    made = []
    for user in np.random.default_rng(seed).integers(0, N_USERS, 1000).tolist():
        body = json.dumps({"user": user, "k": K})
        head = (
            "POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return itertools.cycle(made)


async def load(port: int, connections: int, seconds: float) -> list[Client]:
    """Keep connections busy for some seconds."""
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    clients = [Client(requests(seed), until) for seed in range(connections)]
    for client in clients:
        await loop.create_connection(lambda one=client: one, "127.0.0.1", port)
    await asyncio.gather(*(client.done for client in clients))
    return clients


async def paced(port: int, connections: int, seconds: float, rate: float) -> list[Paced]:
    """Send requests at even intervals for some seconds, over free connections."""
    loop, free = asyncio.get_running_loop(), asyncio.Queue[Paced]()
    clients = [Paced(requests(seed), free) for seed in range(connections)]
    for client in clients:
        await loop.create_connection(lambda one=client: one, "127.0.0.1", port)
    begun = time.perf_counter()
    for n in range(round(seconds * rate)):
        due = begun + n / rate
        await asyncio.sleep(due - time.perf_counter())
        (await asyncio.wait_for(free.get(), 60.0)).send(due)
    for _ in clients:  # until all have been answered
        await asyncio.wait_for(free.get(), 60.0)
    for client in clients:
        client.done.set_result(None)
        client.transport.close()
    return clients


def at_rate(pid: int, port: int, connections: int, seconds: float, rate: float) -> dict[str, Any]:
    """Measure an open loop."""
    asyncio.run(paced(port, connections, WARM_SECONDS, rate))
    begun, server = time.perf_counter(), cpu_seconds(pid)
    clients = asyncio.run(paced(port, connections, seconds, rate))
    wall = time.perf_counter() - begun
    took = 1e3 * np.concatenate([one.seconds for one in clients])
    if len(took) != round(seconds * rate):
        raise SystemExit(f"Of {round(seconds * rate)} requests {len(took)} were answered.")
    p50, p99, most = np.percentile(took, [50, 99, 100])
    return {
        "rate": rate,
        "connections": connections,
        "requests": len(took),
        "per_second": round(len(took) / wall, 1),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(float(most), 1),
        "late_ms": round(1e3 * max(max(one.late, default=0.0) for one in clients), 1),
        "errors": sum(one.errors for one in clients),
        "server_cores": round((cpu_seconds(pid) - server) / wall, 2),
    }


def memory_mib(pid: int) -> float:
    """Read what a process holds that is its own: the mapped model is the page cache's."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("The memory of the server is not to be read.")


def cpu_seconds(pid: int) -> float:
    """Read how long a process was on the cores."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def measured(pid: int, port: int, connections: int, seconds: float) -> dict[str, Any]:
    """Load the server for some seconds, in two halves, and give the figures."""
    asyncio.run(load(port, connections, WARM_SECONDS))
    memory = [memory_mib(pid)]
    begun, client, server = time.perf_counter(), time.process_time(), cpu_seconds(pid)
    clients: list[Client] = []
    for _ in range(2):
        clients += asyncio.run(load(port, connections, seconds / 2))
        memory.append(memory_mib(pid))
    wall = time.perf_counter() - begun
    server = cpu_seconds(pid) - server
    took = 1e3 * np.concatenate([one.seconds for one in clients])
    return {
        "connections": connections,
        "requests": len(took),
        "per_second": round(len(took) / wall),
        "p50_ms": round(float(np.percentile(took, 50)), 1),
        "p99_ms": round(float(np.percentile(took, 99)), 1),
        "errors": sum(one.errors for one in clients),
        "client_cores": round((time.process_time() - client) / wall, 2),
        "server_cores": round(server / wall, 2),
        "server_ms": round(1e3 * server / len(took), 2),
        **dict(zip(("start_mib", "middle_mib", "end_mib"), map(round, memory), strict=True)),
    }


def operations(folder: Path, threads: int) -> list[dict[str, Any]]:
    """Time what a server does once: for somebody unknown, for its owner, and to begin."""
    seconds: dict[str, list[float]] = {}

    def timed(what: str, act: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        answer = act()
        seconds.setdefault(what, []).append(time.perf_counter() - begun)
        return answer

    draw = np.random.default_rng(2)
    with served(folder, threads) as (_, port):
        recommend = partial(posted, port, "/v1/recommend", k=K)
        recommend(items=[0])
        for n in (1, 50, 1000):
            for _ in range(TIMES):
                liked = draw.permutation(N_ITEMS)[:n].tolist()
                answer = timed(f"a list, items liked: {n:,}", partial(recommend, items=liked))
                if len(answer["results"]) != K or {r["id"] for r in answer["results"]} & {*liked}:
                    raise SystemExit(f"The list for {n} items is {answer}.")
        for _ in range(TIMES):
            answer = timed("a reload", partial(posted, port, "/reload"))
            if answer["n_items"] != N_ITEMS:
                raise SystemExit(f"After a reload the model is {answer}.")
    for _ in range(TIMES):
        begun = time.perf_counter()
        with served(folder, threads):
            seconds.setdefault("a start", []).append(time.perf_counter() - begun)
    return [
        {"what": what, **Spread.of([1e3 * s for s in times]).columns("ms", 0)}
        for what, times in seconds.items()
    ]


def build_index(model: nf.CML, recall: float, path: Path) -> float:
    """Make and save an index; give the recall that was measured."""
    from nearfar.search.item_index import ItemIndex

    index = ItemIndex.build(model, recall=recall, k=K)
    index.save(path)
    return float(index.recall)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recall", type=float)
    parser.add_argument("--rate", type=float, help="requests a second; an open loop")
    given = parser.parse_args()
    measure = measured if given.rate is None else partial(at_rate, rate=given.rate)
    model, lines = made_up_model(), []
    with TemporaryDirectory() as folder:
        path, index = Path(folder) / "model", Path(folder) / "index"
        model.save(path)
        kinds: list[tuple[str, Path | None, float]] = [("exact", None, 1.0)]
        if given.recall is not None:
            recall = build_index(model, given.recall, index)
            kinds.append((f"index, recall {recall:.3f}", index, recall - 0.1))
        for search, used, least in kinds:
            with served(path, given.threads, used) as (pid, port):
                check(model, port, least)
                lines += [
                    {"search": search, "threads": given.threads}
                    | measure(pid, port, connections, given.seconds)
                    for connections in given.connections
                ]
        once = operations(path, given.threads) if given.rate is None else []
    show("Requests to a server", lines)
    if once:
        show("Done once", once)
        write("operations", once)
    write("serve" if given.rate is None else "serve_rate", lines)
    if any(line["errors"] for line in lines):
        raise SystemExit("There were errors.")


if __name__ == "__main__":
    main()
