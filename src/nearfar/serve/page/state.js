// What is looked at, and the address that says so.

import { nameOf } from "./items.js";
import { showMarks } from "./map.js";
import { showItem } from "./neighbours.js";
import { showPlace, showYours } from "./taste.js";

export const state = { item: null, taste: [], user: null, place: false };
/** What the server has answered for it: keys, and the place {x, y} of the user or taste. */
export const found = { neighbours: [], recommended: [], place: null };
/** What the next answer is to do: whether the map goes to it, and what is said with it. */
export const next = { framed: true, note: "" };

function address() {
  const words = new URLSearchParams();
  if (state.item !== null) words.set("item", state.item);
  for (const key of state.taste) words.append("taste", key);
  if (state.user !== null) words.set("user", state.user);
  if (state.place) words.set("place", "yes");
  return `#${words}`;
}

export function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  state.item = words.get("item");
  state.taste = [...new Set(words.getAll("taste"))];
  state.user = words.get("user");
  state.place = words.has("place");
}

/** Take over changes of the state, in a step that the browser's Back undoes. */
export function change(changes) {
  Object.assign(state, changes);
  if (address() !== location.hash) history.pushState(null, "", address());
  if ("item" in changes) showItem();
  if ("taste" in changes || "user" in changes) showYours();
  if ("place" in changes) showPlace();
  showMarks();
}

export function everything() {
  showItem();
  showYours();
  showMarks();
}

/** Look at an item; the map goes there when its neighbours are known, if it was not chosen on it. */
export function choose(key, onMap = false) {
  next.framed = !onMap;
  change({ item: key });
}

export function add(key) {
  if (state.taste.includes(key)) return;
  next.note = `${nameOf(key)} is in the taste now. `;
  change({ taste: [...state.taste, key], user: null });
}

export function remove(key) {
  next.note = `${nameOf(key)} is out of the taste. `;
  change({ taste: state.taste.filter((other) => other !== key), user: null });
}

export const toggle = (key) => state.taste.includes(key) ? remove(key) : add(key);
