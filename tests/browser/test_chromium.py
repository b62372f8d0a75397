"""Headless Chromium: fetch, uploads, streams and server-sent events, as a page's script sees them."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.client_app import APP
from tests.system.serving import get, new_place
from tests.waiting import wait_until_sync

BROWSER = "chromium-headless-shell"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which(BROWSER) is None, reason="needs Chromium (make test-browser)"),
]

# Each step puts what it saw into `seen`, under its own name.
PAGE = """
<!doctype html><title>Salver</title><script>
const seen = {};
const steps = {
  async get() { return await (await fetch("hello?q=" + encodeURIComponent("ü"))).json(); },
  async json() {
    const headers = {"content-type": "application/json"};
    return await (await fetch("json", {method: "POST", headers, body: JSON.stringify({x: 2})})).json();
  },
  async invalid() {
    return (await fetch("json", {method: "POST", headers: {"content-type": "application/json"}, body: "{}"})).status;
  },
  async upload() {
    const form = new FormData();
    form.append("name", "n");
    form.append("file", new Blob([new Uint8Array(3000000)]), "a.bin");
    return await (await fetch("upload", {method: "POST", body: form})).json();
  },
  async stream() {
    const reader = (await fetch("stream?size=3000000")).body.getReader();
    let size = 0, pieces = 0;
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return {size, many: pieces > 1};
      size += value.length;
      pieces += 1;
    }
  },
  async abort() {
    const control = new AbortController();
    const response = await fetch("stream?size=300000000", {signal: control.signal});
    await response.body.getReader().read();
    control.abort();
    return (await (await fetch("hello?q=after")).json());
  },
  async redirect() {
    const response = await fetch("folder");
    return [response.redirected, new URL(response.url).pathname, await response.json()];
  },
  events() {
    return new Promise((resolve, reject) => {
      const source = new EventSource("events"), events = [];
      source.onmessage = event => {
        events.push(event.data);
        if (events.length == 3) { source.close(); resolve(events); }
      };
      source.onerror = () => reject("broken");
    });
  },
  async many() {
    const answers = await Promise.all([...Array(100).keys()].map(n => fetch("hello?q=" + n).then(r => r.json())));
    return answers.every((answer, n) => answer == "hello " + n);
  },
};
(async () => {
  for (const [name, step] of Object.entries(steps)) {
    try { seen[name] = await step(); } catch (error) { seen[name] = "failed: " + error; }
  }
  await fetch("report", {method: "POST", body: JSON.stringify(seen)});
})();
</script>
"""


@contextmanager
def browser(url: str, profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Open a page, until the block ends."""
    command = [BROWSER, "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}", url]
    with (
        (profile / "output").open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            # What was started may be a script, and has processes of its own.
            os.killpg(process.pid, signal.SIGKILL)


def test_a_page_sees_what_it_should(tmp_path: Path) -> None:
    with new_place(tmp_path) as place:
        place.write("client_app.py", APP)
        place.write("page.html", PAGE)
        with place.run("client_app:app", "--route-prefix", "/api", env={"PAGE": str(tmp_path / "page.html")}) as run:
            profile = tmp_path / "profile"
            profile.mkdir()
            with browser(run.url() + "/page", profile):
                seen: dict[str, Any] = wait_until_sync(
                    lambda: json.loads(get(run.url() + "/reported").json() or "{}"),
                    within_s=40,
                    what="the page's report",
                )
    assert seen == {
        "get": "hello ü",
        "json": {"y": 4},
        "invalid": 422,
        "upload": {"name": "n", "size": 3_000_000},
        "stream": {"size": 3_000_000, "many": True},
        "abort": "hello after",
        "redirect": [True, "/api/folder/", "folder"],
        "events": ["0", "1", "2"],
        "many": True,
    }
