/** How numbers and snippets of text are written. */

import { withSigns } from './visible.js';

const whole = new Intl.NumberFormat('en-US');

export const count = (n) => whole.format(n);

/** A share as per cent with two or three significant digits. */
export function percent(share) {
  if (!Number.isFinite(share)) return '–';
  const value = 100 * share;
  if (value === 0) return '0 %';
  if (value < 0.001) return '< 0.001 %';
  return `${value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : +value.toPrecision(2)} %`;
}

const RAISED = '⁰¹²³⁴⁵⁶⁷⁸⁹';
const raised = (power) => String(power).replace('-', '⁻').replace(/\d/g, (digit) => RAISED[digit]);

function scientific(value) {
  const [digits, power] = value.toExponential(1).split('e');
  return `${digits.replace('.0', '')}·10${raised(Number(power))}`;
}

/** A number with three significant digits; a dash where there is none. */
export function number(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return scientific(value);
  return String(+value.toPrecision(3));
}

/** A number for a legend: whole powers of ten as such. */
export function tick(value) {
  const power = Math.round(Math.log10(value));
  if (value >= 0.001 || Math.abs(Math.log10(value) - power) > 1e-6) return number(value);
  return `10${raised(power)}`;
}

/** A value with its unit; shares as per cent. */
export function measured(value, unit) {
  if (unit === '%' || unit === 'share') return percent(value);
  return unit && Number.isFinite(value) ? `${number(value)} ${unit}` : number(value);
}

/** What a head is called, or the mean of several. */
export const headName = (layer, head) =>
  [layer === 'mean' ? 'all layers' : `layer ${layer}`, head === 'mean' ? 'all heads' : `head ${head}`].join(', ');

const SIGNS = { '\n': '↵', '\t': '⇥', '\r': '␍' };

/** Text on one line, control characters made visible, at most `most` characters. */
export function snippet(text, most = 60) {
  const cut = text.length > most ? `${[...text.slice(0, most)].slice(0, -1).join('')}…` : text;
  return withSigns(cut.replaceAll('\t', SIGNS['\t']), (sign) => SIGNS[sign] ?? '·');
}
