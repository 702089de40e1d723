// Asking the server, and places of the page that show what it answers.

import { el, say } from "./dom.js";

export async function ask(path, body = null, signal = null) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { signal, ...(body && post) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`The server's answer (status ${response.status}) cannot be read.`);
  }
  if (!response.ok) throw new Error(answer.error?.message ?? `The server refused, with status ${response.status}.`);
  return answer;
}

/** A place of the page that shows what the server answers; only the last question counts. */
export class Panel {
  #turn = 0;
  #asked = null;

  constructor(place, waiting = "Asking …") {
    this.place = place;
    this.waiting = waiting;
  }

  show(...children) { this.place.replaceChildren(...children.filter((child) => child !== null)); }

  /** Forget the question that is out, if any, and its answer. */
  drop() {
    this.#turn += 1;
    this.#asked?.abort();
    this.place.removeAttribute("aria-busy");
  }

  /** Ask with `question(signal)` and hand the answer to `render`, unless a newer one was asked. */
  async ask(question, render) {
    this.drop();
    const turn = this.#turn;
    this.#asked = new AbortController();
    this.place.setAttribute("aria-busy", "true");
    if (this.waiting && !this.place.querySelector(".rows")) this.show(el("p", { class: "small" }, this.waiting));
    try {
      const answer = await question(this.#asked.signal);
      if (turn === this.#turn) render(answer);
    } catch (error) {
      if (turn === this.#turn) this.#fail(error, () => this.ask(question, render));
    } finally {
      if (turn === this.#turn) this.place.removeAttribute("aria-busy");
    }
  }

  #fail(error, again) {
    this.show(el("div", { class: "trouble" }, error.message, el("button", { onclick: again }, "Try again")));
    say(error.message);
  }
}
