/** Keys, and where the numbers come from. */

import { h } from '../dom.js';

const KEYS = [
  ['/', 'find in the text (Enter next, Shift+Enter previous)'],
  ['← → ↑ ↓', 'in the text: move by unit and line; Enter selects, Shift extends, Esc clears'],
  ['+ − 0, arrows', 'in the map: zoom, whole, move; Enter selects the middle; double click zooms in'],
  ['Shift + drag', 'in the map: select rows and keys, the text goes there'],
  ['Enter, C', 'in the grid: choose a head, compare with it'],
  ['[ ]  , .', 'previous and next layer, previous and next head'],
  ['M', 'mean over all layers and heads'],
  ['U', 'token, word, sentence'],
  ['R', 'reads, is read by, received'],
  ['S', 'show attention sinks apart'],
  ['T', 'light, dark, as the system'],
  ['?', 'this help'],
];

/** @param {Object} context */
export function createHelp({ data }) {
  const key = ([name, what]) => [h('dt', {}, h('kbd', {}, name)), h('dd', {}, what)];
  const about = data.doc.metrics.filter((metric) => metric.help).map((metric) => [
    h('dt', {}, metric.label),
    h('dd', {}, metric.help),
  ]);
  const { n, parts, written } = data.tokens;
  if (parts.length) about.push([
    h('dt', {}, 'Episodes'),
    h('dd', {}, 'the map has dashed lines where one begins'),
  ]);
  if (written < n) about.push([
    h('dt', {}, 'Generated'),
    h(
      'dd',
      {},
      `tokens that the model wrote (${data.doc.how}): a dashed line under the text; maps and curves have one where they begin`,
    ),
  ]);
  const remarks = (data.doc.remarks ?? []).map((text) => h('li', {}, text));
  const node = h('div', { class: 'help' },
    h('div', {}, h('h3', {}, 'Keys'), h('dl', {}, KEYS.flatMap(key))),
    h('div', {}, h('h3', {}, 'Numbers'), h('dl', {}, about.flat()), remarks.length ? [h('h3', {}, 'Remarks'), h('ul', {}, remarks)] : null));
  return { node, refresh: () => {} };
}
