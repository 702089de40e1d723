// The search for an item.

import { $, counted, cut, el, say, settled } from "./dom.js";
import { itemOf, likedBy, meet, nameOf } from "./items.js";
import { ask, Panel } from "./server.js";
import { add, choose } from "./state.js";

const search = {
  input: $("find"), list: $("found"), panel: new Panel($("find-trouble"), null),
  found: [], at: -1, // keys, and the index of the selected one
  answered: null, // the search text of `found`
  hurry: null, // the action for the first item found, if Enter was pressed before the response

  close() {
    this.panel.drop();
    this.found = [];
    this.answered = this.hurry = null;
    this.show();
  },

  ask: settled(() => search.askNow()),

  askNow() {
    const words = this.input.value.trim();
    if (!words || document.activeElement !== this.input) {
      this.panel.show();
      this.close();
      return;
    }
    this.panel.ask((signal) => ask(`v1/search?${new URLSearchParams({ q: words, limit: 20 })}`, null, signal), ({ results }) => {
      results.forEach(meet);
      this.found = results.map(({ id }) => String(id));
      this.answered = words;
      this.panel.show(results.length ? null : el("p", { class: "small" }, `No title or id contains “${words}”.`));
      if (this.hurry && results.length) return this.take(0, this.hurry.intoTaste);
      this.hurry = null;
      this.show();
      return say(results.length ? `${counted(results.length, "item")} found.` : "Nothing found.");
    });
  },

  show() {
    this.list.replaceChildren(...this.found.map((key, n) => el("li",
      { role: "option", id: `found-${n}`, "aria-selected": "false", onmousedown: (event) => event.preventDefault(), onclick: (event) => this.take(n, event.shiftKey) },
      el("span", { class: "title" }, cut(nameOf(key), 120)), el("span", { class: "small figure" }, likedBy(itemOf(key))))));
    this.list.hidden = !this.found.length;
    this.input.setAttribute("aria-expanded", String(this.found.length > 0));
    this.move(-1);
  },

  move(n) {
    this.list.children[this.at]?.setAttribute("aria-selected", "false");
    this.at = n;
    const active = this.list.children[n];
    active?.setAttribute("aria-selected", "true");
    active?.scrollIntoView({ block: "nearest" });
    if (active) this.input.setAttribute("aria-activedescendant", active.id);
    else this.input.removeAttribute("aria-activedescendant");
  },

  take(n, intoTaste) {
    const key = this.found[n];
    this.input.value = "";
    this.close();
    if (intoTaste) add(key);
    else choose(key);
  },

  enter(intoTaste) {
    if (this.answered === this.input.value.trim()) {
      if (this.found.length) this.take(Math.max(this.at, 0), intoTaste);
    } else {
      this.hurry = { intoTaste };
      this.askNow();
    }
  },

  key(event) {
    const n = this.found.length;
    if (event.key === "ArrowDown" && !n) this.askNow();
    else if (event.key === "ArrowDown") this.move((this.at + 1) % n);
    else if (event.key === "ArrowUp" && n) this.move((Math.max(this.at, 0) + n - 1) % n);
    else if (event.key === "Enter") this.enter(event.shiftKey);
    else if (event.key === "Escape" && n) this.close();
    else if (event.key === "Escape") { this.input.value = ""; this.askNow(); }
    else return;
    event.preventDefault();
  },
};
search.input.addEventListener("input", () => {
  search.hurry = null;
  search.ask();
});
search.input.addEventListener("keydown", (event) => search.key(event));
search.input.addEventListener("blur", () => search.close());
