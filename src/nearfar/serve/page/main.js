// The start of the page.

import { loadModel } from "./accuracy.js";
import { $, say } from "./dom.js";
import { itemOf, lookUp } from "./items.js";
import { chart, loadMap } from "./map.js";
import { showItem } from "./neighbours.js";
import "./search.js";
import { everything, next, readAddress, state } from "./state.js";
import { showYours } from "./taste.js";

for (const link of document.querySelectorAll(".skip"))
  link.addEventListener("click", (event) => { event.preventDefault(); $(link.dataset.to).focus(); }); // the address contains the state

window.addEventListener("popstate", () => {
  readAddress();
  next.framed = true;
  everything();
});

readAddress();
showItem();
showYours();
loadModel();
await loadMap();
if (chart.known.length)
  for (const key of new Set([...state.taste, state.item].filter((key) => key !== null && itemOf(key).title === null && itemOf(key).at === null)))
    lookUp(key).then(everything, (error) => say(error.message));
