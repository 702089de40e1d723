// Requests to the server, and panels that show the responses.

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
    throw new Error(`The server's response (status ${response.status}) cannot be read.`);
  }
  if (!response.ok) throw new Error(answer.error?.message ?? `The server refused the request with status ${response.status}.`);
  return answer;
}

/** A part of the page that shows a response; only the latest request counts. */
export class Panel {
  #turn = 0;
  #asked = null;

  constructor(place, waiting = "Loading …") {
    this.place = place;
    this.waiting = waiting;
  }

  show(...children) { this.place.replaceChildren(...children.filter((child) => child !== null)); }

  /** Abort the current request, if any, and ignore its response. */
  drop() {
    this.#turn += 1;
    this.#asked?.abort();
    this.place.removeAttribute("aria-busy");
  }

  /** Send `question(signal)` and pass the response to `render`, unless a newer request was sent. */
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
