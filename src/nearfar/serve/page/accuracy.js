// The model and its accuracy.

import { frontFigure, showDial } from "./dial.js";
import { $, el, figure, svg, whole } from "./dom.js";
import { ask, Panel } from "./server.js";
import { found, state } from "./state.js";
import { showTurned } from "./taste.js";

const modelPanel = new Panel($("model"), "Loading the model …");
const accuracyPanel = new Panel(document.querySelector("#accuracy .body"));

export function loadModel() {
  return modelPanel.ask((signal) => ask("v1/model", null, signal), (model) => {
    const loaded = new Date(model.loaded_at);
    const facts = {
      users: whole(model.n_users), items: whole(model.n_items), pairs: whole(model.n_pairs), dimensions: whole(model.dim),
      loaded: el("time", { datetime: model.loaded_at }, loaded.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })),
      search: model.index ? `by index, recall@${model.index.k} ${model.index.recall.toFixed(3)}` : "exact",
      nearfar: model.version,
    };
    modelPanel.show(el("dl", { class: "facts" }, ...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
    if (model.categories) $("colours").querySelector("span").textContent = model.categories;
    found.dial = model.dial && { ...model.dial, gamma: model.gamma };
    showAccuracy(model);
    if (state.popularity === null) return showDial();
    if (!found.dial) state.popularity = null;
    return showTurned();
  });
}

function showAccuracy({ history: all, metrics, dial }) {
  const epochs = (all ?? []).filter((row) => Number.isFinite(row.validation_ndcg) && Number.isFinite(row.validation_mmr));
  const parts = Object.keys(metrics ?? {}).filter((part) => metrics[part] && Object.keys(metrics[part]).length);
  const nothing = "This model has no metrics: it was trained without a validation part, and no evaluation was saved with it.";
  const front = dial?.front.length ? frontFigure(dial, curve) : null;
  if (!epochs.length && !parts.length && !front) return accuracyPanel.show(el("p", { class: "small" }, nothing));
  const draw = el("figure", {});
  const drawn = epochs.length ? draw : el("p", { class: "small" }, "It was trained without a validation part, so there are no metrics by epoch.");
  accuracyPanel.show(el("div", { class: "evidence" }, front, drawn,
    el("div", {}, parts.length ? metricTable(metrics, parts) : el("p", { class: "small" }, "No evaluation was saved with the model."),
      epochs.length ? epochTable(epochs) : null)));
  if (epochs.length) new ResizeObserver(() => draw.replaceChildren(...course(epochs, draw.clientWidth))).observe(draw);
  return undefined;
}

function table(head, rows) {
  const line = (cells, tag) => el("tr", {}, ...cells.map((cell, n) => el(n && tag === "td" ? "td" : "th", { scope: tag === "th" ? "col" : n ? null : "row" }, cell)));
  return el("table", {}, el("thead", {}, line(head, "th")), el("tbody", {}, ...rows.map((cells) => line(cells, "td"))));
}

function metricTable(metrics, parts) {
  const names = [...new Set(parts.flatMap((part) => Object.keys(metrics[part])))];
  const shown = (value) => typeof value === "number" ? figure(value) : value === null || value === undefined ? "–" : String(value);
  const spelt = (name) => name.replaceAll("_", " ").replace(/\b(map|ndcg|mmr|mrr|auc)\b/g, (word) => word.toUpperCase());
  return table(["metric", ...parts], names.map((name) => [spelt(name), ...parts.map((part) => shown(metrics[part][name]))]));
}

const epochTable = (epochs) => el("details", {}, el("summary", { class: "small" }, "Metrics by epoch as a table"),
  table(["epoch", "NDCG", "MMR"], epochs.map((row) => [whole(row.epoch), figure(row.validation_ndcg), figure(row.validation_mmr)])));

/** NDCG against MMR, one point per epoch, connected in order. */
function course(epochs, width) {
  const rows = epochs.map((row) => ({ ndcg: row.validation_ndcg, mmr: row.validation_mmr }));
  const best = epochs.reduce((a, b) => b.validation_ndcg > a.validation_ndcg ? b : a), now = rows[epochs.indexOf(best)];
  const told = `best: epoch ${best.epoch}, NDCG ${figure(now.ndcg)}, MMR ${figure(now.mmr)}`;
  const caption = "NDCG on the validation part (vertical) against MMR (horizontal; larger means lists of more popular items), one point per epoch";
  return curve({ rows: rows.filter((row) => row !== now), line: rows, now, told, caption, start: "first", width });
}

/** NDCG against MMR: points, a line through `line`, and a point `now` of which `told` is said. */
function curve({ rows, line = rows, now, told, caption, start, width }) {
  const height = 276, [left, right, top, bottom] = [52, width - 16, 50, height - 46];
  const scaled = (name, from, to) => {
    const values = line.map((row) => row[name]), low = Math.min(...values), high = Math.max(...values);
    const at = (value) => high > low ? from + (value - low) / (high - low) * (to - from) : (from + to) / 2;
    return { at, ends: high > low ? [low, high] : [low] };
  };
  const x = scaled("mmr", left + 12, right - 12), y = scaled("ndcg", bottom - 12, top + 12);
  const place = (row) => [x.at(row.mmr), y.at(row.ndcg)];
  const point = (row, attributes) => svg("circle", { cx: place(row)[0], cy: place(row)[1], ...attributes });
  const text = (words, at) => svg("text", at, words);
  const [fx, fy] = place(line[0]);
  return [
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${caption}; ${told}.` },
      svg("path", { class: "axis", fill: "none", d: `M${left} ${top}V${bottom}H${right}` }),
      ...y.ends.map((value) => text(figure(value), { x: left - 6, y: y.at(value) + 4, "text-anchor": "end" })),
      ...x.ends.map((value) => text(figure(value), { x: x.at(value), y: bottom + 18, "text-anchor": "middle" })),
      text("NDCG", { x: left - 6, y: top - 8, "text-anchor": "end" }),
      text("MMR →", { x: right, y: bottom + 36, "text-anchor": "end" }),
      svg("path", { class: "path", d: `M${line.map((row) => place(row).map((v) => v.toFixed(1)).join(" ")).join("L")}` }),
      ...rows.map((row) => point(row, { r: 2.5 })),
      point(now, { r: 5, class: "best" }),
      text(start, { x: fx + 9, y: fy + 4 }),
      text(told, { class: "told", x: 0, y: 14 })),
    el("figcaption", { class: "small" }, `${caption}.`),
  ];
}
