// Data of items.

import { counted } from "./dom.js";
import { ask } from "./server.js";

const items = new Map(); // by the text of the id: {id, title, popularity, category, at: its point}
let least = null;

/** Record the popularity that no item outside the map exceeds. */
export function limit(popularity) { least = popularity; }

export function meet({ id, ...facts }) {
  const key = String(id);
  const item = items.get(key) ?? { id, title: null, popularity: null, category: null, at: null };
  for (const [name, value] of Object.entries(facts)) if (value !== null && name in item) item[name] = value;
  items.set(key, item);
  return item;
}

export const itemOf = (key) => items.get(key) ?? meet({ id: key });
export const nameOf = (key) => itemOf(key).title?.trim() || (key.trim() ? key : `“${key}”`);
export function likedBy({ popularity }) {
  if (popularity !== null) return counted(popularity, "user");
  return least === null ? "" : `≤ ${counted(least, "user")}`;
}

/** Find the title of an item that is in the address and not on the map. */
export async function lookUp(key) {
  const { results } = await ask(`v1/search?${new URLSearchParams({ q: key, limit: 100 })}`);
  for (const found of results) if (String(found.id) === key) meet(found);
}
