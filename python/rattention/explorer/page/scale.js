/** From weights to levels in 0..1 and to pixels: logarithmic or linear, with a range of round numbers. */

import { colours } from './colours.js';

const STEPS = [1, 2, 5, 10];

/** The largest (down) or smallest (up) of 1, 2, 5 times a power of ten around x > 0. */
export function round(x, up) {
  const power = 10 ** Math.floor(Math.log10(x));
  const steps = STEPS.map((step) => +(step * power).toPrecision(3));
  return up ? steps.find((step) => step >= x * 0.999999) ?? steps[3] : steps.findLast((step) => step <= x * 1.000001) ?? power;
}

function sample(weights, columns, skip) {
  const found = [];
  const stride = Math.max(1, Math.floor(weights.length / 20011));
  for (let i = 0; i < weights.length; i += stride) {
    if (weights[i] > 0 && !skip?.[i % columns]) found.push(weights[i]);
  }
  return found.sort((a, b) => a - b);
}

/**
 * A range for weights: from their 5th to their 99.8th percentile, rounded outwards.
 * @param {Float32Array} weights
 * @param {number} columns how many make a row
 * @param {Uint8Array|null} skip columns to leave out
 */
export function rangeOf(weights, columns, skip = null) {
  const found = sample(weights, columns, skip);
  if (!found.length) return { low: 1e-4, high: 1 };
  const high = round(found[Math.floor((found.length - 1) * 0.998)], true);
  const low = round(Math.max(found[Math.floor((found.length - 1) * 0.05)], high * 1e-5), false);
  return { low: Math.min(low, high / 10), high };
}

/** A function from weight to level. */
function levelOf({ low, high }, scale) {
  if (scale === 'linear') return (weight) => weight / high;
  const base = Math.log(low);
  const span = Math.log(high) - base || 1;
  return (weight) => (weight > 0 ? (Math.log(weight) - base) / span : 0);
}

/** Numbers for a legend, with their levels. */
export function marks({ low, high }, scale) {
  if (scale === 'linear') return [0, high / 2, high].map((value) => [value, value / high]);
  const level = levelOf({ low, high }, 'log');
  const decades = Math.log10(high / low);
  const stride = Math.max(1, Math.ceil(decades / 3));
  const found = [];
  for (let p = Math.ceil(Math.log10(low) - 1e-9); 10 ** p <= high * 1.0001; p += stride) found.push([
    10 ** p,
    level(10 ** p),
  ]);
  return found.length > 1 ? found : [low, high].map((value) => [value, level(value)]);
}

/** Pixels (RGBA words) of weights; what is 0 or not a number stays transparent. */
export function paint(pixels, weights, range, scale, theme) {
  const words = colours(theme);
  const level = levelOf(range, scale);
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i];
    pixels[i] = weight > 0 ? words[Math.max(0, Math.min(255, Math.round(255 * level(weight))))] : 0;
  }
}
