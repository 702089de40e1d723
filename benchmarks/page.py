"""How long the page that `nearfar serve` shows takes, in a real browser without a graphics card.

The made-up model of `serve.py` (159,063 items x 128 dimensions), and Chromium without a window, at
1,600 x 1,000 pixels of the page and one or two pixels of the screen each. Median of some rounds:

- *open*: until everything is there, the 20,000 best known items drawn;
- *draw*: what the script takes to draw them anew, the wheel being turned; *frame*: from one picture
  to the next meanwhile, which the browser does at most 60 times a second;
- *search*, *neighbours*, *recommended*: from a key or a click to the list. A search waits 120 ms
  for another key, and so does a list for a taste.

The neighbours shown are compared with the library's, and the map must not be empty.

    python benchmarks/page.py [--rounds 7]

writes results/page.csv. Needs the extra test (Playwright), and Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

import nearfar as nf
from common import Spread, show, write
from serve import made_up_model, served

SIZE: Any = {"width": 1600, "height": 1000}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TURNS = 30
DRAWN = """(turns) => new Promise((done) => {
  const canvas = document.querySelector("#chart canvas"), found = { draw: [], frame: [] };
  const box = canvas.getBoundingClientRect(), at = { clientX: box.x + 300, clientY: box.y + 200 };
  let last = null;
  const turn = (n) => {
    let begun;
    requestAnimationFrame(() => { begun = performance.now(); });
    canvas.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: n % 2 ? 60 : -60 }));
    requestAnimationFrame((now) => {
      found.draw.push(performance.now() - begun);
      if (last !== null) found.frame.push(now - last);
      last = now;
      if (n < turns) turn(n + 1);
      else done(found);
    });
  };
  turn(0);
})"""
"""Callbacks of a frame run in their order: one before the drawing that the wheel asks for, one
after it."""
COLOURS = """() => {
  const canvas = document.querySelector("#chart canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


def main() -> None:
    """Open the page as often as is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    n_rounds = parser.parse_args().rounds
    browser_path = next(filter(None, map(shutil.which, NAMES)), None)
    if browser_path is None:
        raise SystemExit(f"There is no browser here: none of {', '.join(NAMES)}.")
    model, lines = made_up_model(), []
    with TemporaryDirectory() as folder, sync_playwright() as started:
        model.save(Path(folder) / "model")
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = started.chromium.launch(executable_path=browser_path, args=arguments)
        with served(Path(folder) / "model", threads=1) as (_, port):
            for ratio in (1, 2):
                context = browser.new_context(viewport=SIZE, device_scale_factor=ratio)
                visits = [visited(context.new_page(), port, model) for _ in range(n_rounds)]
                for what in visits[0]:
                    values = [value for visit in visits for value in visit[what]]
                    line = {"pixels": f"{ratio} x {ratio}", "what": what}
                    lines.append({**line, **Spread.of(values).columns("ms", 1)})
                context.close()
        browser.close()
    show("The page", lines)
    write("page", lines)


def visited(page: Page, port: int, model: nf.CML) -> dict[str, list[float]]:
    """Open the page once, and do what people do."""
    begun = time.perf_counter()
    page.goto(f"http://127.0.0.1:{port}/")
    page.locator("#chart-said").wait_for(state="hidden")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
    found = {"open": [1e3 * (time.perf_counter() - begun)]}
    if page.evaluate(COLOURS) < 50:
        raise SystemExit("The map is empty.")
    found |= page.evaluate(DRAWN, TURNS)
    options = page.locator("#found li").first
    found["search"] = [taken(lambda: page.fill("#find", "77"), options.wait_for)]
    rows = page.locator("#item .rows .open")
    found["neighbours"] = [taken(options.click, rows.first.wait_for)]
    item = int(page.inner_text("#item .name"))
    expected = model.similar_items(item, k=10)["item_id"].cast(str).to_list()
    if rows.all_inner_texts() != expected:
        raise SystemExit(f"Item {item} has other neighbours on the page than in the library.")
    there = page.locator("#recommended .rows .open").first
    found["recommended"] = [taken(page.locator("#item .add").first.click, there.wait_for)]
    page.close()
    return found


def taken(act: Callable[[], object], seen: Callable[[], object]) -> float:
    """Act, wait until it is seen, and give the milliseconds."""
    begun = time.perf_counter()
    act()
    seen()
    return 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
