// Why the selected item is recommended: the own items that are near it, and the parts of its score.

import { asked } from "./dial.js";
import { $, counted, el, settled } from "./dom.js";
import { meet, itemOf, nameOf } from "./items.js";
import { ask, Panel } from "./server.js";
import { choose, found, state } from "./state.js";

const panel = new Panel($("reasons"), "");
const PARTS = { closeness: "closeness", content: "content", own: "beyond its content", prior: "popularity", neighbours: "found together" };

const somebody = () => state.user !== null ? { user: state.user } : { items: state.taste.map((key) => itemOf(key).id) };
const told = () => state.user === null ? "Because you like " : `Because user ${state.user} has `;

const askReasons = settled(() => {
  if (!wanted()) return;
  if (state.popularity !== null && found.dial === undefined) return; // asked again when the model is known
  panel.ask((signal) => ask("v1/explain", { ...somebody(), ...asked(), item: itemOf(state.item).id }, signal), render);
});

/** Whether an item is selected that somebody could be recommended. */
const wanted = () => state.item !== null && !state.taste.includes(state.item) && (state.user !== null || state.taste.length > 0);

export function showReasons() {
  panel.drop();
  if (!wanted()) panel.show();
  askReasons();
}

function render(answer) {
  answer.nearest.forEach(({ id, title }) => meet({ id, title }));
  const links = answer.nearest.flatMap(({ id }, n) => [
    n ? ", " : "",
    el("button", { class: "bare open", onclick: () => choose(String(id)) }, el("span", { class: "title" }, nameOf(String(id)))),
  ]);
  const rest = answer.n_own - answer.nearest.length;
  panel.show(
    links.length ? el("p", { class: "because" }, told(), ...links, rest > 0 ? ` and ${counted(rest, "other item")}.` : ".") : null,
    el("p", { class: "small figure" }, `Score ${answer.score.toFixed(3)} = ${sum(answer)}`),
  );
}

/** The parts of a score, in words; those of 0 are left out, and closeness is divided if it can be. */
function sum(answer) {
  const near = answer.content === null ? ["closeness"] : ["content", "own"];
  const shown = [...near, "prior", "neighbours"].filter((name) => answer[name] !== 0 || near.includes(name));
  return shown.map((name) => `${answer[name].toFixed(3)} ${PARTS[name]}`).join(" + ");
}
