// The taste, or a user, and the recommendations.

import { asked, showDial } from "./dial.js";
import { $, counted, el, markOf, say, settled } from "./dom.js";
import { itemOf, nameOf } from "./items.js";
import { addButton, listOf, replaced } from "./lists.js";
import { chart, showMarks } from "./map.js";
import { showReasons } from "./reasons.js";
import { ask, Panel } from "./server.js";
import { add, change, choose, found, next, remove, state } from "./state.js";

const recommendedPanel = new Panel(document.querySelector("#recommended .body"));
const placePanel = new Panel($("place-said"));

const whose = () => state.user !== null ? { user: state.user } : { items: state.taste.map((key) => itemOf(key).id) };
const somebody = () => state.user !== null || state.taste.length > 0;
const whoseName = () => state.user !== null ? `user ${state.user}` : `your taste of ${counted(state.taste.length, "item")}`;

export function showYours() {
  $("taste").replaceChildren(...state.taste.map((key) => el("li", {}, markOf("taste"),
    el("button", { class: "bare", onclick: () => choose(key) }, el("span", { class: "title" }, nameOf(key))),
    el("button", { class: "square", "aria-label": `Remove ${nameOf(key)} from your taste`, onclick: (event) => removeHere(event, key) }, "×"))));
  $("clear").hidden = !state.taste.length;
  $("back").hidden = state.user === null;
  $("user-id").value = state.user ?? "";
  $("whose").textContent = somebody() ? `for ${whoseName()}` : "";
  $("place").closest("label").hidden = !somebody();
  $("place").checked = state.place;
  showDial();
  showStarters();
  for (const button of document.querySelectorAll(".add")) {
    const now = addButton(button.dataset.key); // the button itself stays, to keep the focus
    for (const name of ["aria-pressed", "aria-label", "title"]) button.setAttribute(name, now.getAttribute(name));
    button.textContent = now.textContent;
  }
  showRecommended();
  showPlace();
}

/** Remove an item and focus the button that takes its position. */
function removeHere(event, key) {
  const n = [...$("taste").children].indexOf(event.currentTarget.closest("li"));
  remove(key);
  const left = $("taste").children;
  (left[Math.min(n, left.length - 1)]?.querySelector(".square") ?? $("find")).focus();
}

function showStarters() {
  const best = state.taste.length ? [] : chart.known.slice(0, 5);
  const buttons = best.map((key) => el("button", { onclick: () => add(key) }, `+ ${nameOf(key)}`));
  const told = "Your taste is empty. Add items that you like with + or on the map; the recommendations change with each.";
  $("starters").replaceChildren(...(state.taste.length ? [] : [el("p", { class: "small" }, told)]),
    ...(best.length ? [el("p", { class: "small" }, "Popular items:"), el("div", { class: "starters" }, ...buttons)] : []));
}

const askRecommended = settled(() => {
  if (!somebody()) return;
  if (state.popularity !== null && found.dial === undefined) return; // asked again when the model is known
  recommendedPanel.ask((signal) => ask("v1/recommend", { ...whose(), ...asked(), k: 10 }, signal), ({ results }) => {
    found.recommended = results.map(({ id }) => String(id));
    const none = el("p", { class: "small" }, "No items are left to recommend.");
    replaced(recommendedPanel, ...(results.length ? listOf(results, "recommended", "Recommended") : [none]));
    say(`${next.note}${counted(results.length, "item")} recommended for ${whoseName()}${results.length ? `; first ${nameOf(found.recommended[0])}` : ""}.`);
    next.note = "";
    showDial(results);
    showMarks();
  });
});

/** Show what follows from another setting of the dial. */
export function showTurned() {
  showDial();
  showRecommended();
}

function showRecommended() {
  showReasons();
  recommendedPanel.drop();
  if (!somebody()) {
    found.recommended = [];
    showDial([]);
    if (next.note) say(`${next.note}Your taste is empty.`);
    next.note = "";
    recommendedPanel.show(el("p", { class: "small" }, "Add items to your taste, or enter the id of a user."));
  }
  askRecommended();
}

const askPlace = settled(() => {
  if (!state.place || !somebody()) return;
  placePanel.ask((signal) => ask("v1/map/position", whose(), signal), (answer) => {
    const first = found.place === null;
    found.place = answer;
    placePanel.show(el("p", { class: "small" }, "The position is the star on the map."));
    showMarks();
    if (first) chart.reveal(found.place);
  });
});

export function showPlace() {
  placePanel.drop();
  if (!state.place || !somebody()) {
    found.place = null;
    placePanel.show();
  }
  askPlace();
}

$("clear").addEventListener("click", () => { next.note = ""; change({ taste: [], user: null }); $("find").focus(); });
$("back").addEventListener("click", () => { change({ user: null }); $("user-id").focus(); });
$("place").addEventListener("change", (event) => change({ place: event.target.checked }));
$("user").addEventListener("submit", (event) => {
  event.preventDefault();
  change({ user: $("user-id").value.trim() || null });
});
