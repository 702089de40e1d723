// The chart: points, marks and names on a canvas, and navigation.

import { weightOf } from "./dial.js";
import { clamp, cut, el, MARKS, say } from "./dom.js";
import { itemOf, likedBy, meet, nameOf } from "./items.js";
import { extent, GROUPS, mixed, PARTS, press, ramp, REACH, rgb, RIM, SHADES, SIZES, word } from "./pixels.js";

export class Chart {
  known = []; // keys of the points, the most popular first
  marked = {}; // keys by kind of mark
  #x = []; #y = []; #size = []; #paint = []; #rank = [];
  #view = { x: 0, y: 0, scale: 1 };
  #fit = 1; // the scale at which everything is visible
  #stamps = [];
  #growth = 0;
  #image = null;
  #pixels = null;
  #widths = new Map();
  #wanted = 0;
  #flight = 0;
  #hover = -1; #cursor = -1; #hint = -1;
  #pointers = new Map();
  #moved = 0;

  constructor(box, doing) {
    this.box = box;
    this.doing = doing;
    this.canvas = box.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.tip = box.querySelector(".tip");
    this.colour = "popularity";
    this.only = null;
    this.resize();
    this.readColours();
    new ResizeObserver(() => this.resize()).observe(box);
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel", "pointerleave", "wheel"])
      this.canvas.addEventListener(name, (event) => this[`on${name}`](event), { passive: false });
    box.addEventListener("keydown", (event) => event.target === box && this.onkey(event));
    box.addEventListener("blur", () => this.#focus(-1));
  }

  // ---- contents

  /** Use the response of /v1/map. */
  load({ ids, titles, x, y, popularity, category }) {
    const order = [...ids.keys()].sort((a, b) => popularity[b] - popularity[a]);
    this.known = order.map((i) => String(ids[i]));
    this.#x = Float64Array.from(order, (i) => x[i]);
    this.#y = Float64Array.from(order, (i) => y[i]);
    order.forEach((i, at) => meet({ id: ids[i], title: titles?.[i] ?? null, popularity: popularity[i], category: category?.[i] ?? null, at }));
    const logs = order.map((i) => Math.log1p(popularity[i]));
    const low = logs.at(-1), span = logs[0] - low || 1;
    this.#rank = Float64Array.from(logs, (value) => (value - low) / span);
    this.#size = Uint8Array.from(this.#rank, (r) => Math.round(r * (SIZES - 1)));
    this.groups = category ? this.#grouped(order.map((i) => category[i])) : null;
    this.ends = ids.length ? [popularity[order.at(-1)], popularity[order[0]]] : [0, 0];
    this.paint("popularity");
    this.#measure();
    this.whole();
  }

  /** Group categories into the most frequent ones, by the first of lists such as "Drama | War". */
  #grouped(values) {
    const first = values.map((value) => String(value ?? "").split("|")[0].trim());
    const count = new Map();
    for (const name of first) if (name) count.set(name, (count.get(name) ?? 0) + 1);
    const names = [...count.keys()].sort((a, b) => count.get(b) - count.get(a)).slice(0, GROUPS);
    const of = Uint8Array.from(first, (name) => names.includes(name) ? names.indexOf(name) : GROUPS);
    return { names, of, others: of.includes(GROUPS) };
  }

  paint(colour, only = null) {
    this.colour = colour;
    this.only = only;
    this.#stamps = [];
    this.#paint = colour === "category" ? this.groups.of : Uint8Array.from(this.#rank, (r) => Math.round(r * (SHADES - 1)));
    this.redraw();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(["field", "ink", "soft", "line", "hair", "taste", "near", "recommended"].map((name) => [name, colour(name)]));
    this.shades = ramp(["few", "some", "many"].map((name) => rgb(colour(name))), SHADES);
    this.hues = Array.from({ length: GROUPS + 1 }, (_, i) => rgb(colour(`c${i}`)));
    this.serif = style.getPropertyValue("--serif");
    this.#stamps = [];
    this.redraw();
  }

  /** Mark items, by kind, and a position. */
  mark(marked, position) {
    this.marked = marked;
    this.position = position;
    this.redraw();
  }

  hint(key) {
    this.#hint = key === null ? -1 : itemOf(key).at ?? -1;
    this.redraw();
  }

  // ---- the view

  resize() {
    const { width, height } = this.box.getBoundingClientRect();
    this.width = width;
    this.height = height;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(Math.round(width * this.ratio), 1);
    this.canvas.height = Math.max(Math.round(height * this.ratio), 1);
    this.#stamps = [];
    this.#image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.#pixels = new Uint32Array(this.#image.data.buffer);
    const zoomed = this.#view.scale / this.#fit;
    this.#measure();
    this.#view.scale = this.#fit * zoomed;
    this.redraw();
  }

  #measure() { this.#fit = this.#home().scale; }

  /** The view of everything. */
  #home() {
    const [x, wide] = extent(this.#x), [y, high] = extent(this.#y);
    return { x, y, scale: Math.min((this.width - 48) / (wide || 1), (this.height - 48) / (high || 1)) };
  }

  whole(smoothly = false) {
    if (smoothly) this.fly(this.#home());
    else { this.#view = this.#home(); this.redraw(); }
  }

  fly(target) {
    cancelAnimationFrame(this.#flight);
    const from = this.#view, start = performance.now();
    const time = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 420;
    const step = (now) => {
      const done = time ? clamp((now - start) / time, 0, 1) : 1, t = done * done * (3 - 2 * done);
      const mixed = (name) => from[name] + (target[name] - from[name]) * t;
      const between = { x: mixed("x"), y: mixed("y"), scale: from.scale * (target.scale / from.scale) ** t };
      this.#view = done < 1 ? between : target;
      this.redraw();
      if (done < 1) this.#flight = requestAnimationFrame(step);
    };
    step(start);
  }

  /** Show items, all of them and large, if the first is on the map. */
  frame(keys) {
    const shown = keys.map((key) => itemOf(key).at).filter((at) => at !== null);
    if (!shown.length || itemOf(keys[0]).at === null) return;
    const [x, wide] = extent(shown.map((at) => this.#x[at])), [y, high] = extent(shown.map((at) => this.#y[at]));
    const scale = Math.min((this.width - 220) / wide, (this.height - 120) / high);
    this.fly({ x, y, scale: clamp(scale, this.#fit, 12 * this.#fit) });
  }

  /** Move to a position, if it is not visible. */
  reveal({ x, y }) {
    const [left, top] = this.#screen(x, y);
    if (left < 24 || top < 24 || left > this.width - 24 || top > this.height - 24) this.fly({ ...this.#view, x, y });
  }

  zoom(factor, left = this.width / 2, top = this.height / 2) {
    cancelAnimationFrame(this.#flight);
    const { x, y, scale } = this.#view;
    const to = clamp(scale * factor, this.#fit * 0.6, this.#fit * 80);
    const across = (left - this.width / 2) * (1 / scale - 1 / to), up = (this.height / 2 - top) * (1 / scale - 1 / to);
    this.#view = { x: x + across, y: y + up, scale: to };
    this.redraw();
  }

  pan(across, down) {
    cancelAnimationFrame(this.#flight);
    this.#view = { ...this.#view, x: this.#view.x - across / this.#view.scale, y: this.#view.y + down / this.#view.scale };
    this.redraw();
  }

  #screen(x, y) {
    const { x: cx, y: cy, scale } = this.#view;
    return [(x - cx) * scale + this.width / 2, (cy - y) * scale + this.height / 2];
  }

  // ---- drawing

  redraw() {
    if (!this.#wanted) this.#wanted = requestAnimationFrame(() => { this.#wanted = 0; this.draw(); });
  }

  draw() {
    this.#pixels.fill(word(rgb(this.colours.field)));
    this.#net();
    this.#points();
    this.context.putImageData(this.#image, 0, 0);
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.#drawMarks();
    this.#labels();
    this.#frame();
  }

  /** Grid lines that move with the map. */
  #net() {
    const pixels = this.#pixels, { width, height } = this.#image, unit = this.#unit() * 4, line = word(rgb(this.colours.hair));
    for (const left of this.#ticks(0, unit).map((at) => Math.floor(at * this.ratio)))
      if (left >= 0 && left < width) for (let at = left; at < pixels.length; at += width) pixels[at] = line;
    for (const top of this.#ticks(1, unit).map((at) => Math.floor(at * this.ratio)))
      if (top >= 0 && top < height) pixels.fill(line, top * width, (top + 1) * width);
  }

  /** A step of the frame in the map's unit: a power of two, 26 to 52 pixels long. */
  #unit() { return 2 ** Math.ceil(Math.log2(26 / this.#view.scale)); }

  /** Positions of multiples of `unit` along an axis, in pixels, starting before the edge. */
  #ticks(axis, unit) {
    const length = axis ? this.height : this.width, middle = axis ? -this.#view.y : this.#view.x, { scale } = this.#view;
    const first = Math.floor((middle - length / 2 / scale) / unit / 2) * 2 * unit, found = [];
    for (let at = first, n = 0; (at - middle) * scale < length / 2 && n < 400; n += 1, at = first + n * unit)
      found.push(Math.round((at - middle) * scale + length / 2) + 0.5);
    return found;
  }

  /** A graduated frame that moves with the map and shows how far the map has moved. */
  #frame() {
    const pen = this.context, wide = 5, unit = this.#unit(), { width: w, height: h } = this;
    pen.fillStyle = this.colours.field;
    for (const edge of [[0, 0, w, wide], [0, h - wide, w, wide], [0, 0, wide, h], [w - wide, 0, wide, h]]) pen.fillRect(...edge);
    pen.fillStyle = this.colours.ink;
    const across = this.#ticks(0, unit), down = this.#ticks(1, unit);
    for (let i = 0; i < across.length; i += 2)
      for (const top of [0, h - wide]) pen.fillRect(across[i], top, (across[i + 1] ?? w) - across[i], wide);
    for (let i = 0; i < down.length; i += 2)
      for (const left of [0, w - wide]) pen.fillRect(left, down[i], wide, (down[i + 1] ?? h) - down[i]);
    pen.strokeStyle = this.colours.ink;
    pen.lineWidth = 1;
    pen.strokeRect(0.5, 0.5, w - 1, h - 1);
    pen.strokeRect(wide + 0.5, wide + 0.5, w - 2 * wide - 1, h - 2 * wide - 1);
  }

  /** A point as pixels: the opacity and the colour of each. */
  #stamp(paint, size, right, down) {
    const crowd = clamp(Math.sqrt(2500 / this.known.length), 0.55, 1);
    const radius = (1.5 + 3.6 * size / (SIZES - 1)) * crowd * this.#growth * this.ratio, rim = RIM * this.ratio;
    const half = Math.ceil(radius + rim + 1), side = 2 * half + 1, field = rgb(this.colours.field);
    const plain = this.colour === "category" ? this.hues[paint] : this.shades[paint];
    const colour = this.only === null || this.only === paint ? plain : mixed(field, plain, 0.15);
    const cover = new Uint8Array(side * side), pixels = new Uint32Array(side * side);
    for (let i = 0; i < side * side; i += 1) {
      const off = Math.hypot(i % side - half - right / PARTS, Math.floor(i / side) - half - down / PARTS);
      const outer = clamp(radius + rim + 0.5 - off, 0, 1), inner = clamp(radius + 0.5 - off, 0, 1);
      cover[i] = Math.round(255 * outer);
      pixels[i] = word(mixed(field, colour, inner));
    }
    return { half, side, cover, pixels };
  }

  /**
   * Stamp all points into the picture, the most popular last. Without a graphics card, this is
   * several times as fast as drawing 20,000 circles or small images on a canvas.
   */
  #points() {
    const { x: cx, y: cy, scale } = this.#view, { ratio } = this, { width, height } = this.#image, pixels = this.#pixels;
    const growth = Math.round(8 * clamp((scale / this.#fit) ** 0.3, 0.8, 2)) / 8;
    if (growth !== this.#growth) this.#stamps = [];
    this.#growth = growth;
    for (let i = this.#x.length - 1; i >= 0; i -= 1) {
      const left = ((this.#x[i] - cx) * scale + this.width / 2) * ratio, top = ((cy - this.#y[i]) * scale + this.height / 2) * ratio;
      if (!(left > 0 && top > 0 && left < width && top < height)) continue;
      const column = Math.floor(left), row = Math.floor(top);
      const right = Math.floor((left - column) * PARTS), down = Math.floor((top - row) * PARTS);
      const which = ((this.#paint[i] * SIZES + this.#size[i]) * PARTS + down) * PARTS + right;
      const stamp = this.#stamps[which] ??= this.#stamp(this.#paint[i], this.#size[i], right, down);
      press(pixels, width, height, stamp, column - stamp.half, row - stamp.half);
    }
  }

  #drawMarks() {
    for (const kind of Object.keys(MARKS))
      for (const key of this.marked[kind] ?? []) {
        const { at } = itemOf(key);
        if (at !== null) this.#shape(kind, this.#x[at], this.#y[at]);
      }
    if (this.position) this.#shape("position", this.position.x, this.position.y);
    for (const at of [this.#hint, this.#cursor, this.#hover]) if (at >= 0) this.#ring(at);
  }

  #shape(kind, x, y) {
    const pen = this.context, [left, top] = this.#screen(x, y), path = new Path2D(MARKS[kind][1]);
    const colour = { chosen: this.colours.ink, position: this.colours.taste }[kind] ?? this.colours[kind];
    pen.save();
    pen.translate(left, top);
    pen.lineJoin = "round";
    pen.strokeStyle = this.colours.field;
    pen.lineWidth = 5;
    pen.stroke(path);
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 2;
    if (kind === "near" || kind === "chosen") pen.stroke(path);
    else pen.fill(path);
    pen.restore();
  }

  #ring(at) {
    const pen = this.context, [left, top] = this.#screen(this.#x[at], this.#y[at]);
    for (const [colour, wide] of [[this.colours.field, 5], [this.colours.taste, 2]]) {
      pen.beginPath();
      pen.arc(left, top, 13, 0, 7);
      pen.strokeStyle = colour;
      pen.lineWidth = wide;
      pen.stroke();
    }
  }

  /** Titles, as far as there is space: first of marked items, then of the most popular. */
  #labels() {
    const boxes = [], room = clamp(this.width * this.height / 20000, 6, 36), marks = Object.values(this.marked).flat();
    const first = [this.#hint, this.#cursor, ...marks.map((key) => itemOf(key).at ?? -1).reverse()].filter((at) => at >= 0);
    this.context.font = `italic 13px ${this.serif}`;
    this.context.lineJoin = "round";
    for (const at of first) this.#label(at, boxes, this.colours.ink);
    for (let at = 0, tried = 0; at < this.known.length && boxes.length < room && tried < 160; at += 1) {
      if (this.only !== null && this.#paint[at] !== this.only) continue;
      const [left, top] = this.#screen(this.#x[at], this.#y[at]);
      if (left < 0 || top < 0 || left > this.width || top > this.height) continue;
      tried += 1;
      if (!first.includes(at)) this.#label(at, boxes, this.colours.soft);
    }
  }

  #label(at, boxes, colour) {
    const pen = this.context, text = cut(nameOf(this.known[at]), 30), [x, y] = this.#screen(this.#x[at], this.#y[at]);
    if (!this.#widths.has(text)) this.#widths.set(text, pen.measureText(text).width);
    const width = this.#widths.get(text), off = colour === this.colours.ink ? 15 : 11,
      left = x + off + width > this.width - 8 ? x - off - width : x + off;
    const box = [left - 3, y - 9, left + width + 3, y + 9];
    if (left < 8 || y < 14 || y > this.height - 14) return;
    if (boxes.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) return;
    boxes.push(box);
    pen.strokeStyle = this.colours.field;
    pen.lineWidth = 4;
    pen.strokeText(text, left, y + 4);
    pen.fillStyle = colour;
    pen.fillText(text, left, y + 4);
  }

  // ---- mouse and touch

  #nearest(left, top) {
    let best = -1, least = REACH ** 2;
    for (let i = 0; i < this.#x.length; i += 1) {
      const [x, y] = this.#screen(this.#x[i], this.#y[i]), off = (x - left) ** 2 + (y - top) ** 2;
      if (off < least && (this.only === null || this.#paint[i] === this.only)) [best, least] = [i, off];
    }
    return best;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  onpointerdown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#at(event));
    this.#moved = this.#pointers.size > 1 ? Infinity : 0;
  }

  onpointermove(event) {
    const now = this.#at(event), before = this.#pointers.get(event.pointerId);
    if (!before) return this.#point(this.#nearest(...now));
    const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.#moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    this.#pointers.set(event.pointerId, now);
    if (other) {
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
      this.zoom(apart(now) / (apart(before) || 1), ...other);
    } else if (this.#moved > 4) {
      this.#point(-1);
      this.pan(now[0] - before[0], now[1] - before[1]);
    }
    return undefined;
  }

  onpointerup(event) {
    this.#pointers.delete(event.pointerId);
    if (this.#moved > 4) return;
    const hit = this.#nearest(...this.#at(event));
    if (hit >= 0) this.doing(this.known[hit], event.shiftKey);
  }

  onpointercancel(event) { this.#pointers.delete(event.pointerId); }

  onpointerleave() { this.#point(-1); }

  onwheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 100][event.deltaMode];
    this.zoom(Math.exp(-clamp(pixels, -240, 240) * (event.ctrlKey ? 0.01 : 0.002)), ...this.#at(event));
  }

  #point(at) {
    if (at === this.#hover) return;
    this.#hover = at;
    this.box.classList.toggle("hit", at >= 0);
    this.#showTip(at);
    this.redraw();
  }

  #showTip(at) {
    this.tip.hidden = at < 0;
    if (at < 0) return;
    const key = this.known[at], [left, top] = this.#screen(this.#x[at], this.#y[at]);
    const weight = weightOf(itemOf(key));
    const facts = [likedBy(itemOf(key)), itemOf(key).category, weight === null ? null : `weight ${weight.toFixed(3)}`].filter(Boolean).join(" · ");
    this.tip.replaceChildren(el("div", { class: "title" }, nameOf(key)), el("div", { class: "small title" }, facts));
    const { width, height } = this.tip.getBoundingClientRect();
    const below = top + 18 + height < this.height;
    this.tip.style.transform = `translate(${clamp(left - width / 2, 8, this.width - width - 8)}px, ${below ? top + 18 : top - 18 - height}px)`;
  }

  // ---- keys

  onkey(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way && event.shiftKey) this.pan(-80 * way[0], -80 * way[1]);
    else if (way) this.#step(...way);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.whole(true);
    else if (event.key === "Enter" && this.#cursor >= 0) this.doing(this.known[this.#cursor], event.shiftKey);
    else if (event.key.toLowerCase() === "a" && this.#cursor >= 0) this.doing(this.known[this.#cursor], true);
    else return;
    event.preventDefault();
  }

  /** Move to the nearest point in a direction; at first, to the point nearest to the centre. */
  #step(across, down) {
    const from = this.#cursor < 0 ? [this.width / 2, this.height / 2] : this.#screen(this.#x[this.#cursor], this.#y[this.#cursor]);
    let best = -1, least = Infinity;
    for (let i = 0; i < this.#x.length; i += 1) {
      const [x, y] = this.#screen(this.#x[i], this.#y[i]), right = x - from[0], under = y - from[1];
      const along = across * right + down * under, aside = Math.abs(across * under) + Math.abs(down * right);
      const cost = this.#cursor < 0 ? Math.hypot(right, under) : along >= 6 && aside <= along ? along + 2 * aside : Infinity;
      if (cost < least) [best, least] = [i, cost];
    }
    if (best < 0) return;
    this.#focus(best);
    this.reveal({ x: this.#x[best], y: this.#y[best] });
    say([nameOf(this.known[best]), likedBy(itemOf(this.known[best]))].filter(Boolean).join(", "));
  }

  #focus(at) {
    this.#cursor = at;
    this.redraw();
  }
}
