/** Answers to `map` of one head: which are held, how they are coloured, which is the best for a view. */

import { paint, rangeOf } from './scale.js';

const HELD = 12;
const DRAWN = 3;

/**
 * @typedef {Object} Tile
 * @property {[number, number]} rows query rows it covers
 * @property {[number, number]} keys
 * @property {number} height bins @property {number} width bins
 * @property {Float32Array} weights
 * @property {number} fine tokens per bin (of rows, the coarser side)
 */

function tileOf(answer) {
  const [height, width] = answer.weights.shape;
  const { rows, keys } = answer;
  const fine = Math.max((rows[1] - rows[0]) / Math.max(1, height), (keys[1] - keys[0]) / Math.max(1, width));
  return { rows, keys, height, width, weights: answer.weights.data, fine, canvas: null, look: '' };
}

const covers = (tile, [a, b, c, d]) => tile.rows[0] <= a && tile.rows[1] >= b && tile.keys[0] <= c && tile.keys[1] >= d;
const meets = (tile, [a, b, c, d]) => tile.rows[0] < b && tile.rows[1] > a && tile.keys[0] < d && tile.keys[1] > c;

/** Columns of a tile that hold a token that is left out. */
function columnsOf(tile, tokens) {
  if (!tokens) return null;
  const skip = new Uint8Array(tile.width);
  const each = tile.width / (tile.keys[1] - tile.keys[0]);
  for (let t = tile.keys[0]; t < tile.keys[1]; t++) if (tokens[t]) skip[Math.floor((t - tile.keys[0]) * each)] = 1;
  return skip;
}

/** The part of a tile that a view shows: its weights only, for a range of colours. */
function cropped(tile, [a, b, c, d]) {
  const [perRow, perKey] = [tile.height / (tile.rows[1] - tile.rows[0]), tile.width / (tile.keys[1] - tile.keys[0])];
  const [top, bottom] = [
    Math.floor(Math.max(0, a - tile.rows[0]) * perRow),
    Math.ceil(Math.min(tile.height, (b - tile.rows[0]) * perRow)),
  ];
  const [left, right] = [
    Math.floor(Math.max(0, c - tile.keys[0]) * perKey),
    Math.ceil(Math.min(tile.width, (d - tile.keys[0]) * perKey)),
  ];
  const width = Math.max(0, right - left);
  const part = new Float32Array(Math.max(0, bottom - top) * width);
  for (let row = top; row < bottom; row++) part.set(
    tile.weights.subarray(row * tile.width + left, row * tile.width + right),
    (row - top) * width,
  );
  return { part, width, left };
}

export function createTiles() {
  const tiles = [];
  let age = 0;

  /** Keep an answer; the oldest goes, but never the coarsest, which stands in for what is not there. */
  function add(answer) {
    const tile = tileOf(answer);
    if (!tile.height || !tile.width) return;
    tile.born = ++age;
    tiles.push(tile);
    tiles.sort((x, y) => y.fine - x.fine);
    if (tiles.length <= HELD) return;
    const oldest = tiles.slice(1).reduce((x, y) => (x.born < y.born ? x : y));
    tiles.splice(tiles.indexOf(oldest), 1);
  }

  /** Those to draw for a view, coarse to fine. */
  function of(view) {
    const found = tiles.filter((tile) => meets(tile, view));
    const best = found.findLastIndex((tile) => covers(tile, view));
    return found.slice(Math.max(0, best)).slice(0, 1).concat(found.slice(Math.max(0, best) + 1).slice(-(DRAWN - 1)));
  }

  /** The finest tile that covers a view, or undefined. */
  const best = (view) => tiles.findLast((tile) => covers(tile, view));

  /** A tile as a canvas, coloured anew only when its look changes. */
  function drawn(tile, range, scale, theme) {
    const look = `${range.low} ${range.high} ${scale} ${theme}`;
    if (tile.look === look) return tile.canvas;
    tile.canvas ??= Object.assign(document.createElement('canvas'), { width: tile.width, height: tile.height });
    const context = tile.canvas.getContext('2d');
    const image = context.createImageData(tile.width, tile.height);
    paint(new Uint32Array(image.data.buffer), tile.weights, range, scale, theme);
    context.putImageData(image, 0, 0);
    tile.look = look;
    return tile.canvas;
  }

  /** The finest weight known at (row, key): {weight, rows, keys}, or null. */
  function at(row, key) {
    const tile = tiles.findLast((one) => meets(one, [row, row + 1e-6, key, key + 1e-6]));
    if (!tile) return null;
    const [perRow, perKey] = [(tile.rows[1] - tile.rows[0]) / tile.height, (tile.keys[1] - tile.keys[0]) / tile.width];
    const [y, x] = [Math.floor((row - tile.rows[0]) / perRow), Math.floor((key - tile.keys[0]) / perKey)];
    return { weight: tile.weights[y * tile.width + x], rows: perRow, keys: perKey };
  }

  /** A range of colours for what a view shows; null while nothing covers it. */
  function range(view, sinks) {
    const tile = best(view);
    if (!tile) return null;
    const { part, width, left } = cropped(tile, view);
    const skip = columnsOf(tile, sinks)?.subarray(left);
    return rangeOf(part, Math.max(1, width), skip);
  }

  return { add, of, best, drawn, at, range };
}
