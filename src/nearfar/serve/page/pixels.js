// Colours and pixels.

export const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
export const mixed = (from, to, share) => from.map((low, i) => Math.round(low + (to[i] - low) * share));
export const word = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0; // a pixel in memory order

/** n colours from the first to the last of `stops`. */
export function ramp(stops, n) {
  return Array.from({ length: n }, (_, i) => {
    const along = i / (n - 1) * (stops.length - 1), from = Math.min(Math.floor(along), stops.length - 2);
    return mixed(stops[from], stops[from + 1], along - from);
  });
}

export const SHADES = 24; // number of colours for popularity
export const SIZES = 8;
export const PARTS = 4; // positions of a point within a pixel, per axis
export const RIM = 0.8; // pixels of background around a point, which separate it from others
export const GROUPS = 7; // number of categories with their own colour; the others share one
export const REACH = 13; // distance in pixels within which a click selects a point

/** Draw a stamp into a picture with its corner at a pixel, clipped at the edges. */
export function press(picture, width, height, { side, cover, pixels }, left, top) {
  const from = Math.max(0, -left), to = Math.min(side, width - left), bottom = Math.min(side, height - top);
  for (let row = Math.max(0, -top); row < bottom; row += 1)
    for (let k = row * side + from, at = (top + row) * width + left + from; k < row * side + to; k += 1, at += 1) {
      const over = cover[k];
      if (over === 255) picture[at] = pixels[k];
      else if (over) picture[at] = blend(picture[at], pixels[k], over);
    }
}

/** Blend one pixel over another with opacity `over` / 255; two channels in one product. */
function blend(below, above, over) {
  const under = 255 - over;
  const red = ((below & 0xff00ff) * under + (above & 0xff00ff) * over >>> 8) & 0xff00ff;
  const green = ((below >>> 8 & 0xff) * under + (above >>> 8 & 0xff) * over) / 255 & 0xff;
  return (0xff000000 | red | green << 8) >>> 0;
}

/** The centre and the width of the range of values. */
export function extent(values) {
  if (!values.length) return [0, 0];
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  return [(low + high) / 2, high - low];
}
