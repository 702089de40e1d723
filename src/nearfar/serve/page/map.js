// The map of the items: chart, marks and scale.

import { Chart } from "./chart.js";
import { $, counted, cut, el, markOf, MARKS, whole } from "./dom.js";
import { itemOf, limit } from "./items.js";
import { GROUPS } from "./pixels.js";
import { ask, Panel } from "./server.js";
import { choose, everything, found, state, toggle } from "./state.js";

const MAP_LIMIT = 20000;

export const chart = new Chart($("chart"), (key, intoTaste) => {
  const adds = intoTaste || document.querySelector('[name="click"]:checked').value === "add";
  if (adds) toggle(key);
  else choose(key, true);
});

export function showMarks() {
  const marked = { near: found.neighbours, recommended: found.recommended, taste: state.taste, chosen: state.item === null ? [] : [state.item] };
  chart.mark(marked, found.place);
  const shown = Object.keys(MARKS).filter((kind) => kind === "position" ? found.place : marked[kind].length);
  $("marks").replaceChildren(...shown.map((kind) => el("span", {}, markOf(kind), MARKS[kind][0])));
  const missing = new Set(Object.values(marked).flat().filter((key) => itemOf(key).at === null)).size;
  $("missing").hidden = !missing || !chart.known.length;
  $("missing").textContent = `${counted(missing, "item")} of these ${missing === 1 ? "is" : "are"} not on the map, which shows the ${whole(chart.known.length)} most popular.`;
}

/** Show the legend of the colours; a category is also a button that highlights it. */
function showScale() {
  const { groups, ends, colour } = chart;
  if (colour === "popularity") {
    const shown = [el("span", {}, counted(ends[0], "user")), el("span", { class: "ramp", "aria-hidden": "true" }), el("span", {}, `${counted(ends[1], "user")} (log scale)`)];
    $("scale").replaceChildren(...(chart.known.length ? shown : []));
    return;
  }
  const names = groups.others ? [...groups.names, "other or none"] : groups.names;
  $("scale").replaceChildren(...names.map((name, n) => {
    const code = n < groups.names.length ? n : GROUPS;
    const pressed = String(chart.only === code);
    const press = () => { chart.paint("category", chart.only === code ? null : code); showScale(); $("scale").children[n].focus(); };
    return el("button", { "aria-pressed": pressed, onclick: press }, el("span", { class: "dot", style: `background:var(--c${code})` }), el("span", { class: "title" }, cut(name, 40)));
  }));
}

$("colours").addEventListener("change", (event) => { chart.paint(event.target.value); showScale(); });
for (const button of document.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", () => button.dataset.zoom === "whole" ? chart.whole(true) : chart.zoom(Number(button.dataset.zoom)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.readColours());

const mapPanel = new Panel($("chart-said"), "Loading the map …");

export function loadMap() {
  return mapPanel.ask((signal) => ask(`v1/map?limit=${MAP_LIMIT}`, null, signal), (map) => {
    chart.load(map);
    if (map.n_items > map.ids.length && map.ids.length) limit(Math.min(...map.popularity));
    const [, choice] = $("colours").querySelectorAll("label");
    choice.hidden = !map.category;
    mapPanel.show(map.ids.length ? null : "There are no items to show.");
    mapPanel.place.hidden = map.ids.length > 0;
    showScale();
    everything();
  });
}
