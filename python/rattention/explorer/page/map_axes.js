/** Axes of the map: positions, token labels where there is room, what the text shows, what is selected. */

import { count, snippet } from './format.js';

export const LEFT = 64;
export const TOP = 52;
const FONT = '12px system-ui, sans-serif';

/** Round positions for an axis: at most `most` of them in [from, to). */
function ticks(from, to, most) {
  const rough = Math.max(1, (to - from) / Math.max(1, most));
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough));
  const found = [];
  for (let at = Math.ceil(from / step) * step; at < to; at += step) found.push(at);
  return found;
}

const short = (at) => (at >= 10000 && at % 1000 === 0 ? `${at / 1000}k` : count(at));

function labels(draw, from, to, size, each) {
  const cell = size / (to - from);
  if (cell >= 13) for (let t = Math.max(0, Math.floor(from)); t < to; t++) each(
    t,
    (t + 0.5 - from) * cell,
    draw.tokenName(t),
  );
  else for (const t of ticks(from, to, size / 70)) each(t, (t - from) * cell, null);
}

function leftAxis(context, draw, { view, height }) {
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  labels(draw, view[0], view[1], height, (at, y, name) => {
    if (y < 4 || y > height - 2) return;
    context.fillText(name ?? short(at), LEFT - 9, TOP + y, LEFT - 12);
    if (!name) context.fillRect(LEFT - 6, TOP + y - 0.5, 4, 1);
  });
}

function topAxis(context, draw, { view, width }) {
  context.textBaseline = 'middle';
  labels(draw, view[2], view[3], width, (at, x, name) => {
    if (x > width - 2) return;
    if (name === null) {
      context.textAlign = x < 14 ? 'left' : x > width - 18 ? 'right' : 'center';
      context.fillText(short(at), LEFT + x, TOP - 16);
      context.fillRect(LEFT + x - 0.5, TOP - 6, 1, 4);
      return;
    }
    context.save();
    context.translate(LEFT + x, TOP - 8);
    context.rotate(-Math.PI / 2.6);
    context.textAlign = 'left';
    context.fillText(name, 0, 0, 50);
    context.restore();
  });
}

function titles(context, draw, { view, width, height }) {
  const wide = width / (view[3] - view[2]) >= 13;
  context.fillStyle = draw.colour('--quiet');
  context.textBaseline = 'alphabetic';
  context.textAlign = 'right';
  if (!wide) context.fillText('key: what is read →', LEFT + width, 14);
  context.save();
  context.translate(12, TOP + height);
  context.rotate(-Math.PI / 2);
  context.textAlign = 'left';
  if (height / (view[1] - view[0]) < 13) context.fillText('← query: who reads', 0, 0);
  context.restore();
}

/** A range of tokens as a bar along both axes. */
function bars(context, range, { view, width, height }, across, thick, key = range) {
  const y = (t) => TOP + (Math.min(Math.max(t, view[0]), view[1]) - view[0]) * (height / (view[1] - view[0]));
  const x = (t) => LEFT + (Math.min(Math.max(t, view[2]), view[3]) - view[2]) * (width / (view[3] - view[2]));
  if (range && range[1] > view[0] && range[0] < view[1]) context.fillRect(
    LEFT - across,
    y(range[0]),
    thick,
    Math.max(2, y(range[1]) - y(range[0])),
  );
  if (key && key[1] > view[2] && key[0] < view[3]) context.fillRect(
    x(key[0]),
    TOP - across,
    Math.max(2, x(key[1]) - x(key[0])),
    thick,
  );
}

/** Outlines of the selected rows and keys across the map. */
function outlines(context, draw, { view, width, height }) {
  const { selection, keys } = draw;
  context.save();
  context.beginPath();
  context.rect(LEFT, TOP, width, height);
  context.clip();
  context.strokeStyle = draw.colour('--accent');
  context.lineWidth = 1;
  const [dy, dx] = [height / (view[1] - view[0]), width / (view[3] - view[2])];
  const line = (x0, y0, w, h) => context.strokeRect(
    Math.round(x0) + 0.5,
    Math.round(y0) + 0.5,
    Math.round(w),
    Math.max(1, Math.round(h)),
  );
  if (selection) line(LEFT - 4, TOP + (selection[0] - view[0]) * dy, width + 8, (selection[1] - selection[0]) * dy);
  if (keys) line(LEFT + (keys[0] - view[2]) * dx, TOP - 4, (keys[1] - keys[0]) * dx, height + 8);
  context.restore();
}

/** Pixels between two parts at least: closer ones would hide the map. */
const APART = 4;

/** Dashed lines across and down at a token. */
function dashedAt(context, token, colour, { view, width, height }) {
  const y = (token - view[0]) * (height / (view[1] - view[0]));
  const x = (token - view[2]) * (width / (view[3] - view[2]));
  context.fillStyle = colour;
  const dashes = (size, dash) => {
    for (let at = 0; at < size; at += 8) dash(at, Math.min(5, size - at));
  };
  if (y > 0 && y < height) dashes(width, (at, long) => context.fillRect(LEFT + at, Math.round(TOP + y), long, 1));
  if (x > 0 && x < width) dashes(height, (at, long) => context.fillRect(Math.round(LEFT + x), TOP + at, 1, long));
}

/** Where parts begin, and where the model began to write. */
function beginnings(context, { written, parts, colour }, frame) {
  const { view, width, height } = frame;
  const tokens = Math.max((view[1] - view[0]) / height, (view[3] - view[2]) / width) * APART;
  let last = -Infinity;
  for (const part of parts) {
    if (part === 0 || part - last < tokens) continue;
    last = part;
    dashedAt(context, part, colour('--soft'), frame);
  }
  dashedAt(context, written, colour('--written'), frame);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Object} draw colour(name), tokenName(t), sight, selection, keys, written, parts
 * @param {{view: number[], width: number, height: number}} frame the part shown and its size in pixels
 */
export function drawAxes(context, draw, frame) {
  context.font = FONT;
  context.fillStyle = draw.colour('--soft');
  leftAxis(context, draw, frame);
  topAxis(context, draw, frame);
  titles(context, draw, frame);
  context.fillStyle = draw.colour('--faint');
  bars(context, draw.sight, frame, 4, 3);
  context.fillStyle = draw.colour('--accent');
  bars(context, draw.selection, frame, 4, 3, draw.keys ?? draw.selection);
  beginnings(context, draw, frame);
  outlines(context, draw, frame);
  context.strokeStyle = draw.colour('--line');
  context.strokeRect(LEFT - 0.5, TOP - 0.5, frame.width + 1, frame.height + 1);
}

/** Names of tokens for axes: short, control characters shown. */
export const tokenNames = (tokens) => (t) => (tokens.special(t) ? '◇' : snippet(tokens.nameOf(t, t + 1), 9) || '␣');
