// The selected item and its neighbours.

import { counted, el, markOf, say } from "./dom.js";
import { itemOf, likedBy, nameOf } from "./items.js";
import { addButton, listOf, replaced } from "./lists.js";
import { chart, showMarks } from "./map.js";
import { ask, Panel } from "./server.js";
import { found, next, state } from "./state.js";

const itemPanel = new Panel(document.querySelector("#item .body"));

export function showItem() {
  found.neighbours = [];
  if (state.item === null) {
    itemPanel.drop();
    itemPanel.show(el("p", { class: "small" }, "Search for an item or click a point of the map to see its nearest items here."));
    return;
  }
  const key = state.item;
  itemPanel.ask((signal) => ask("v1/similar/items", { item: itemOf(key).id, k: 10 }, signal), ({ results }) => {
    found.neighbours = results.map(({ id }) => String(id));
    replaced(itemPanel, itemHead(key), ...listOf(results, "near", "Neighbours"));
    say(`${counted(results.length, "neighbour")} of ${nameOf(key)}${results.length ? `; the nearest is ${nameOf(found.neighbours[0])}` : ""}.`);
    showMarks();
    if (next.framed) chart.frame([key, ...found.neighbours]);
  });
}

function itemHead(key) {
  const item = itemOf(key);
  const facts = [likedBy(item), item.category, `id ${key}`].filter(Boolean).join(" · ");
  return el("div", { class: "row" }, markOf("chosen"),
    el("div", {}, el("p", { class: "name title" }, nameOf(key)), el("p", { class: "small title" }, facts)),
    addButton(key));
}
