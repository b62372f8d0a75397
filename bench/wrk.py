"""Load from `wrk`, one thread: what it printed, checked and parsed."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from bench.asks import Ask
from bench.results import Sample

TIMEOUT_S = 20
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
_UNITS_BYTES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}


class LoadFailedError(Exception):
    """Requests failed under load, or came back shorter than they must; such a figure is worth nothing."""


def wrk(ask: Ask, port: int, *, connections: int, seconds: float) -> Sample:
    """Put load on a server and return what came of it.

    Raises:
        LoadFailedError: An answer was no 2xx or too short, a connection failed, or wrk printed something unexpected.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        script = Path(directory) / "ask.lua"
        script.write_text(_lua(ask), encoding="ascii")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s"]
        command += ["--latency", f"--script={script}", f"http://127.0.0.1:{port}{ask.path}"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parse(text, least_bytes=ask.least_bytes)


def parse(text: str, *, least_bytes: int = 0) -> Sample:
    """Return the figures in what wrk printed.

    Args:
        text: Its output, with `--latency`.
        least_bytes: What an answer has to have on average.

    Raises:
        LoadFailedError: See `wrk`.
    """
    if "Non-2xx" in text or "Socket errors" in text:
        raise LoadFailedError(f"requests failed under load:\n{text}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    done = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)(B|KB|MB|GB) read", text)
    if rate is None or done is None or int(done[1]) == 0:
        raise LoadFailedError(f"wrk printed something unexpected:\n{text}")
    # wrk rounds to two decimals, and counts bytes of answers that were not finished in time.
    mean_bytes = float(done[2]) * _UNITS_BYTES[done[3]] / int(done[1])
    if mean_bytes < 0.99 * least_bytes:
        raise LoadFailedError(f"an answer had {mean_bytes:.0f} bytes on average, not {least_bytes}:\n{text}")
    return Sample(rate=float(rate[1]), p50_us=_latency_us(text, 50), p99_us=_latency_us(text, 99))


def _latency_us(text: str, percent: int) -> float:
    found = re.search(rf"\b{percent}%\s+([\d.]+)(us|ms|s|m)\b", text)
    if found is None:
        raise LoadFailedError(f"wrk printed no {percent}th percentile:\n{text}")
    return float(found[1]) * _UNITS_US[found[2]]


def _lua(ask: Ask) -> str:
    lines = [f'wrk.method = "{ask.method}"']
    if ask.body:
        lines.append(f'wrk.body = "{_quoted(ask.body)}"')
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in ask.headers]
    return "\n".join(lines) + "\n"


def _quoted(body: bytes) -> str:
    return "".join(f"\\{byte:03d}" for byte in body)
