// The state of the page, and the address that contains it.

import { nameOf } from "./items.js";
import { showMarks } from "./map.js";
import { showItem } from "./neighbours.js";
import { showReasons } from "./reasons.js";
import { showPlace, showTurned, showYours } from "./taste.js";

export const state = { item: null, taste: [], user: null, place: false, popularity: null };
/** The responses for this state: keys, and the position {x, y} of the user or taste; the dial of the model, undefined until known. */
export const found = { neighbours: [], recommended: [], place: null, dial: undefined };
/** Options for the next response: whether the map moves to it, and text to announce with it. */
export const next = { framed: true, note: "" };

function address() {
  const words = new URLSearchParams();
  if (state.item !== null) words.set("item", state.item);
  for (const key of state.taste) words.append("taste", key);
  if (state.user !== null) words.set("user", state.user);
  if (state.place) words.set("place", "yes");
  if (state.popularity !== null) words.set("popularity", state.popularity);
  return `#${words}`;
}

export function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  state.item = words.get("item");
  state.taste = [...new Set(words.getAll("taste"))];
  state.user = words.get("user");
  state.place = words.has("place");
  const popularity = Number(words.get("popularity") ?? NaN);
  state.popularity = popularity >= 0 && popularity <= 1000 && found.dial !== null ? popularity : null;
}

/** Apply changes of the state; if they are `final`, as a step that the browser's Back button undoes. */
export function change(changes, final = true) {
  Object.assign(state, changes);
  if (final && address() !== location.hash) history.pushState(null, "", address());
  if ("item" in changes) { showItem(); showReasons(); }
  if ("popularity" in changes) showTurned();
  if ("taste" in changes || "user" in changes) showYours();
  if ("place" in changes) showPlace();
  showMarks();
}

export function everything() {
  showItem();
  showYours();
  showMarks();
}

/** Select an item; unless it was selected on the map, the map moves there with its neighbours. */
export function choose(key, onMap = false) {
  next.framed = !onMap;
  change({ item: key });
}

export function add(key) {
  if (state.taste.includes(key)) return;
  next.note = `${nameOf(key)} added to your taste. `;
  change({ taste: [...state.taste, key], user: null });
}

export function remove(key) {
  next.note = `${nameOf(key)} removed from your taste. `;
  change({ taste: state.taste.filter((other) => other !== key), user: null });
}

export const toggle = (key) => state.taste.includes(key) ? remove(key) : add(key);
