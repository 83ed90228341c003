"""Load the demo as many visitors would, and say how long they wait and what it costs.

    python scripts/benchmark_demo.py runs/quickstart-mini-bert runs/quickstart-lstm --clients 50 --minutes 10

Starts `finetune demo` in a process of its own. Each client asks, waits for the answer and asks again at once: for a
prediction (7 times in 10), for all models (2 in 10), for what speaks for a prediction (1 in 10). Writes what came out
as JSON to --output.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from finetune.demo.words import EXAMPLES
from finetune.progress import ProgressBar, say

_ENDPOINTS = {"predict": 7, "compare": 2, "explain": 1}
_EVERY_SECONDS = 2.0
"""Between two looks at the memory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if any request failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="RUN|MODEL")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    command = [sys.executable, "-m", "finetune", "demo", *options.models, "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, server)
            opened = time.perf_counter() - started
            found = asyncio.run(_load(url, server.pid, options.clients, options.minutes * 60, len(options.models) > 1))
        finally:
            server.terminate()
    found = {"clients": options.clients, "models": len(options.models), "seconds_to_open": round(opened, 1), **found}
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return 1 if found["errors"] else 0


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the demo did not start")


async def _load(url: str, pid: int, clients: int, seconds: float, compares: bool) -> dict[str, Any]:
    names = [name for name in _ENDPOINTS if compares or name != "compare"]
    waits: dict[str, list[float]] = {name: [] for name in names}
    errors: Counter[str] = Counter()
    memory: list[tuple[float, float]] = []
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(base_url=f"{url}/gradio_api", timeout=120, limits=limits) as http:
        for name in names:  # the models are loaded at the first request: that is another wait
            await _ask(http, name, EXAMPLES[0])
        begin = time.perf_counter()

        async def visit(number: int) -> None:
            draws = random.Random(number)
            while time.perf_counter() - begin < seconds:
                name = draws.choices(names, [_ENDPOINTS[name] for name in names])[0]
                asked = time.perf_counter()
                try:
                    await _ask(http, name, draws.choice(EXAMPLES))
                except (httpx.HTTPError, RuntimeError) as error:
                    errors[f"{name}: {type(error).__name__} {error}"] += 1
                    await asyncio.sleep(0.5)
                else:
                    waits[name].append(time.perf_counter() - asked)

        async def watch() -> None:
            process = psutil.Process(pid)
            with ProgressBar("asking", int(seconds)) as bar:
                done = 0
                while (now := time.perf_counter() - begin) < seconds:
                    memory.append((now, process.memory_info().rss / 2**20))
                    await asyncio.sleep(_EVERY_SECONDS)
                    bar.advance(min(int(now), int(seconds)) - done)
                    done = min(int(now), int(seconds))

        await asyncio.gather(watch(), *(visit(number) for number in range(clients)))
        lasted = time.perf_counter() - begin
    every = [wait for of_name in waits.values() for wait in of_name]
    if not every:
        say("no request was answered")
    return {
        "seconds": round(lasted),
        "requests": len(every),
        "errors": sum(errors.values()),
        "kinds_of_errors": dict(errors),
        "requests_per_second": round(len(every) / lasted, 1),
        "wait_seconds": {name: _waits(of_name) for name, of_name in {"all": every, **waits}.items() if of_name},
        **_memory(memory),
    }


async def _ask(http: httpx.AsyncClient, endpoint: str, text: str) -> None:
    """One request as gradio's client makes it.

    Raises:
        RuntimeError: it was refused.
    """
    data = [text] if endpoint == "compare" else [text, ""]
    answer = await http.post(f"/call/{endpoint}", json={"data": data})
    answer.raise_for_status()
    async with http.stream("GET", f"/call/{endpoint}/{answer.json()['event_id']}") as events:
        events.raise_for_status()
        said = "".join([piece async for piece in events.aiter_text()])
    if "event: complete" not in said:
        raise RuntimeError(said.strip()[-200:] or "nothing was said")


def _waits(waits: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(waits, [50, 95, 99])
    return {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3), "most": round(max(waits), 3)}


def _memory(samples: list[tuple[float, float]]) -> dict[str, float]:
    """The server's resident memory, in MiB: after a fifth of the time, at the end, and its growth from one to other."""
    after = samples[len(samples) // 5 :]
    slope = statistics.linear_regression(*zip(*after, strict=True)).slope if len(after) > 2 else 0.0
    return {
        "memory_mib_after_a_fifth": round(after[0][1], 1),
        "memory_mib_at_the_end": round(after[-1][1], 1),
        "memory_mib_per_minute": round(60 * slope, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
