// Elements, text and numbers.

export const $ = (id) => document.getElementById(id);
const PAUSE = 120; // milliseconds without a change before a request is sent
export const MARKS = { // in drawing order; each has its own shape, so that colour is not needed
  near: ["neighbour", "M0-6.5 6.5 0 0 6.5-6.5 0Z"],
  recommended: ["recommended", "M0-7 6.5 5H-6.5Z"],
  taste: ["taste", "M-5-5H5V5H-5Z"],
  position: ["position", "M0-11 2.5-2.5 11 0 2.5 2.5 0 11-2.5 2.5-11 0-2.5-2.5Z"],
  chosen: ["the item", "M7 0A7 7 0 1 1-7 0 7 7 0 1 1 7 0ZM0-12V-4M0 4V12M-12 0H-4M4 0H12"],
};

/** Create an element. Children are elements or text; text is never parsed as HTML. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") made.style.cssText = value; // the policy does not allow the attribute
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const markOf = (kind) => svg("svg", { class: `mark mark-${kind}`, viewBox: "-12 -12 24 24", "aria-hidden": "true" },
  svg("path", { d: MARKS[kind][1] }));
export const whole = (n) => Number(n).toLocaleString("en");
export const counted = (n, one) => `${whole(n)} ${one}${n === 1 ? "" : "s"}`;
export const figure = (x) => Number.isInteger(x) ? whole(x) : x.toFixed(Math.abs(x) < 10 ? 4 : 1);
export const cut = (text, n) => text.length > n ? `${text.slice(0, n - 1).trimEnd()}…` : text;
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** Call `work` once, after `PAUSE` without a further call. */
export function settled(work) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(work, PAUSE); };
}

/** Announce a message to screen readers. */
export function say(text) { $("live").textContent = text; }
