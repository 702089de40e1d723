// Lists of items with their distances.

import { el, markOf } from "./dom.js";
import { itemOf, likedBy, meet, nameOf } from "./items.js";
import { chart } from "./map.js";
import { choose, state, toggle } from "./state.js";

/** The distance D of a score: score = 1 - D^2 / 2. */
const distance = (score) => Math.sqrt(Math.max(2 - 2 * score, 0));

export function addButton(key) {
  const inside = state.taste.includes(key);
  const name = `${inside ? "Remove" : "Add"} ${nameOf(key)} ${inside ? "from" : "to"} your taste`;
  return el("button", { class: "square add", "aria-pressed": String(inside), "aria-label": name, title: name,
    "data-key": key, onclick: () => toggle(key) }, inside ? "✓" : "+");
}

function row({ id, score }, kind, farthest) {
  const key = String(id);
  const at = `--at:${(100 * distance(score) / (farthest || 1)).toFixed(1)}%`;
  const point = (on) => () => chart.hint(on ? key : null);
  return el("li", { class: "row", onmouseenter: point(true), onmouseleave: point(false), onfocusin: point(true), onfocusout: point(false) },
    markOf(kind),
    el("div", {},
      el("button", { class: "bare open", onclick: () => choose(key) }, el("span", { class: "title" }, nameOf(key))),
      el("div", { class: "measure small figure" },
        el("span", { class: "gauge", style: at, "aria-hidden": "true" }),
        el("span", { class: "score" }, el("span", { class: "unseen" }, "score "), score.toFixed(3)),
        el("span", { class: "liked" }, likedBy(itemOf(key))))),
    addButton(key));
}

/** A list of results, each with a gauge; the scale is from 0 to the distance of the last. */
export function listOf(results, kind, label) {
  results.forEach(meet);
  const farthest = Math.max(...results.map(({ score }) => distance(score)));
  return [
    el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, "near"), el("span", {}, "far")),
    el("ol", { class: "rows", "aria-label": label }, ...results.map((result) => row(result, kind, farthest))),
  ];
}

/** Show `children` in `panel`; a focus on the n-th title or button stays on the n-th. */
export function replaced(panel, ...children) {
  const old = document.activeElement;
  const kind = panel.place.contains(old) && [".open", ".add"].find((name) => old.matches(name));
  const n = kind && [...panel.place.querySelectorAll(kind)].indexOf(old);
  panel.show(...children);
  if (kind) {
    const now = panel.place.querySelectorAll(kind);
    now[Math.min(n, now.length - 1)]?.focus({ preventScroll: true });
  }
}
