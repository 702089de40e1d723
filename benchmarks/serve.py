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

    python benchmarks/serve.py [--seconds 60] [--connections 1 8 64] [--threads 1] [--recall 0.95]

writes results/serve.csv. With `--recall` the same is then measured with an approximate index of
that recall, which needs faiss; of the exact lists that it is compared with it must find the share
that it promises, less a tenth, for there are few.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

import nearfar as nf
from common import DIM, N_ITEMS, made_up, show, unit_rows, write
from nearfar import model as models

N_USERS, N_PAIRS, K = 20_000, 1_000_000, 10
CHECKED = 50
"""Lists that are compared with the library's before anything is timed."""
CENTRES = 400
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
    model._fitted = models._Fitted(users, items, pl.DataFrame({"epoch": [1]}), 1, data)
    return model


@contextmanager
def served(folder: Path, threads: int, index: Path | None = None) -> Iterator[tuple[int, int]]:
    """Give the process and the port of a server."""
    words = ["serve", str(folder), "--port", "0", "--threads", str(threads)]
    words += [] if index is None else ["--index", str(index)]
    command = [sys.executable, "-m", "nearfar", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
    body = json.dumps({"user": user, "k": K}).encode()
    url, kind = f"http://127.0.0.1:{port}/v1/recommend", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, kind)) as answer:
        results: list[dict[str, Any]] = json.load(answer)["results"]
    return results


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


def build_index(model: nf.CML, recall: float, path: Path) -> float:
    """Make and save an index; give the recall that was measured."""
    from nearfar.approximate import ItemIndex

    index = ItemIndex.build(model, recall=recall, k=K)
    index.save(path)
    return float(index.recall)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recall", type=float)
    given = parser.parse_args()
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
                    | measured(pid, port, connections, given.seconds)
                    for connections in given.connections
                ]
    show("Requests to a server", lines)
    write("serve", lines)
    if any(line["errors"] for line in lines):
        raise SystemExit("There were errors.")


if __name__ == "__main__":
    main()
