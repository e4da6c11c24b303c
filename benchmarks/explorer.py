"""How long the explorer's page takes to answer: `python -m benchmarks.explorer --run_dir runs/NAME`.

The requests are those of a browser in which the point of the plane is moved: one after the other, over HTTP.
"""

import argparse
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WARM_UP = 10  # requests that are not counted
AT_MOST = 100  # milliseconds, of 95 in 100 requests


def main(argv):
    """Measures the page of a run, prints percentiles, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__)
    parser.add_argument("--run_dir", required=True, help="of a model with codes of two numbers or more")
    parser.add_argument("--requests", type=int, default=200)
    words = parser.parse_args(argv[1:])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "main.py",
        "--explore",
        "--run_dir",
        words.run_dir,
        "--explore_port",
        str(port),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        while f":{port}" not in (line := process.stdout.readline()):
            if not line:
                return process.wait()
        times = sorted(request_times(port, words.requests))
    finally:
        process.terminate()
        process.wait()
    at = {p: times[min(len(times) - 1, int(p / 100 * len(times)))] for p in (50, 95, 99)}
    verdict = "met" if at[95] < AT_MOST else "missed"
    print(
        f"{len(times)} requests: median {at[50]:.1f} ms, 95th percentile {at[95]:.1f} ms ({verdict}: below "
        f"{AT_MOST}), 99th {at[99]:.1f} ms, mean {statistics.mean(times):.1f} ms"
    )
    return 0


def request_times(port, count):
    """Milliseconds of each of so many requests for a point of the plane, after some that warm up."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/config")
    config = json.load(connection.getresponse())
    event = next(each for each in config["dependencies"] if each["api_name"] == "point")
    values = {each["id"]: each["props"].get("value") for each in config["components"]}
    asked, times = random.Random(0), []
    for _ in range(WARM_UP + count):
        body = {
            "data": [values[name] for name in event["inputs"]],
            "event_data": {"left": asked.random(), "top": asked.random()},
            "fn_index": event["id"],
            "session_hash": "benchmark",
        }
        start = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/gradio_api/run/predict", json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        times.append(1000 * (time.perf_counter() - start))
        if response.status != 200 or b"data:image/png" not in answer:
            raise RuntimeError(f"the page answered {response.status}: {answer[:300]!r}")
    return times[WARM_UP:]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
