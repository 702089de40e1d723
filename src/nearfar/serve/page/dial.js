// The popularity dial: the slider, and the place of its setting on the front.

import { $, el, figure, whole } from "./dom.js";
import { change, found, state } from "./state.js";

const MOST = 1.5; // the largest setting of the slider, unless the model's own is larger

/** The setting that lists are asked for at: the slider's or, if it was not moved, the model's own. */
export const setting = () => state.popularity ?? found.dial?.popularity ?? 0;

/** The dial of the request, if the slider was moved; the model's own setting otherwise. */
export const asked = () => state.popularity === null ? {} : { popularity: state.popularity };

/** The weight of an item at the setting, or null without a prior. */
export const weightOf = ({ popularity }) =>
  found.dial && popularity !== null ? setting() * found.dial.gamma * Math.log(Math.max(popularity, 1)) : null;

let median = ""; // of the list that is shown, as text

/** Show the slider at its setting; `results` is the list, if it is new. */
export function showDial(results = null) {
  if (results) median = middle(results.map(({ popularity }) => popularity));
  $("dial").hidden = !found.dial;
  if (!found.dial) return;
  const now = setting(), own = found.dial.popularity;
  $("popularity").max = Math.max(MOST, own);
  $("popularity").value = now;
  $("popularity").setAttribute("aria-valuetext", now.toFixed(2));
  $("dial-set").textContent = `${now.toFixed(2)}${now === own ? ", the model's own setting" : `; the model's own is ${own.toFixed(2)}`}`;
  $("dial-list").textContent = median && `Median popularity of this list: ${median} users.`;
  redraw();
}

function middle(counts) {
  if (!counts.length) return "";
  const sorted = counts.sort((a, b) => a - b), half = sorted.length >> 1;
  const value = sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  return Number.isInteger(value) ? whole(value) : value.toFixed(1);
}

// ---- the front

let redraw = () => {};

/** NDCG and MMR at a setting, between those that were measured; at the ends, those of the ends. */
export function placeOn(front, at) {
  const next = front.findIndex(({ popularity }) => popularity >= at);
  if (next <= 0) return front.at(next);
  const [a, b] = [front[next - 1], front[next]], t = (at - a.popularity) / (b.popularity - a.popularity);
  return { ndcg: a.ndcg + t * (b.ndcg - a.ndcg), mmr: a.mmr + t * (b.mmr - a.mmr) };
}

/** A figure of NDCG against MMR at the settings of the dial, with a point that moves with it. */
export function frontFigure({ front, k }, curve) {
  const box = el("figure", { id: "front" });
  const shown = front.filter((row, n) => n === 0 || front[n - 1].popularity < MOST);
  const caption = `NDCG@${k} on the validation part (vertical) against MMR (horizontal; larger means lists of more popular items) at the settings of the popularity dial, from ${figure(shown[0].popularity)} to ${shown.at(-1).popularity.toFixed(2)}`;
  const draw = () => {
    const at = setting(), now = placeOn(shown, at);
    const beyond = at > shown.at(-1).popularity ? " or more" : "";
    const told = `popularity ${at.toFixed(2)}: NDCG ${figure(now.ndcg)}, MMR ${figure(now.mmr)}${beyond}`;
    box.replaceChildren(...curve({ rows: shown, now, told, caption, start: "0", width: box.clientWidth }));
  };
  redraw = () => { if (box.clientWidth) draw(); };
  new ResizeObserver(draw).observe(box);
  return box;
}

$("popularity").addEventListener("input", (event) => change({ popularity: Number(event.target.value) }, false));
$("popularity").addEventListener("change", () => change({}));
