/** One sentence above the text: what is selected, how much goes to sinks, what the shades mean. */

import { h, replace } from './dom.js';
import { shade } from './colours.js';
import { timely } from './data.js';
import { count, percent, snippet } from './format.js';

const VERBS = { reads: 'reads', readers: 'is read by', received: 'received' };
const DOES = { reads: 'gets', readers: 'gives', received: 'receives' };
const SCALE_HELP = {
  reads: 'Share of the attention of the selected rows, mean over them. The shade grows with the square root.',
  readers: 'Share of its attention that a place gives to the selection. The shade grows with the square root.',
  received: 'Mean weight from all rows that may see a token. The shade grows with the square root.',
};

/** @param {Object} context */
export function createSummary({ store, data, ui }) {
  const { tokens } = data;
  const line = h('div', { class: 'summary-line' });
  const legend = h('div', { class: 'shade-legend' });
  const node = h('div', { class: 'summary' }, line, legend);

  const place = ([first, stop]) => (stop - first === 1 ? `position ${count(first)}` : `positions ${count(first)}–${count(stop - 1)}`);
  const quoted = (range, most) => h('bdi', { class: 'quoted' }, snippet(tokens.nameOf(...range), most));

  function sinkNotes() {
    const masses = data.slots.map(({ marks }) => (timely(marks, store.get()) ? marks.sinks : 0)).filter((share) => share > 0);
    if (!masses.length) return null;
    const help = `Share of the selection's attention on ${data.doc.sinks.length} sink token(s), left out of the shades and of the shares.`;
    return h('span', { class: 'chip sink', title: help }, `sink ${masses.map(percent).join(' | ')}`);
  }

  function selectionLine(selection, show) {
    const { marks } = data.slots[0] ?? {};
    const others = timely(marks, store.get()) ? marks.strongest : [];
    const best = others.find(({ first, stop }) => stop <= selection[0] || first >= selection[1]);
    const parts = [
      quoted(selection, 48),
      h('span', { class: 'quiet' }, place(selection)),
      selection[0] >= tokens.written && h('span', { class: 'chip' }, 'generated'),
      h('span', { class: `verb ${show}` }, VERBS[show]),
    ];
    if (best && show !== 'received') parts.push(h(
      'span',
      {},
      'most: ',
      quoted([best.first, best.stop], 28),
      ` ${percent(best.share)}`,
    ));
    return parts;
  }

  function lineParts() {
    const { selection, show } = store.get();
    if (!tokens.n) return [];
    if (!selection) return [h(
      'span',
      { class: 'quiet' },
      `${data.slots[0]?.marks ? 'Shaded by attention received. ' : ''}Click a word to see what it reads.`,
    )];
    return selectionLine(selection, show);
  }

  function legendParts() {
    const marks = data.slots[0]?.marks;
    if (!marks || !(marks.most > 0)) return [];
    const steps = [0.2, 0.4, 0.6, 0.8, 1].map((level) => {
      const swatch = h('i', { class: 'swatch' });
      swatch.style.backgroundColor = shade(level, marks.show, ui.theme());
      return swatch;
    });
    return [h(
      'span',
      { class: 'scale', title: SCALE_HELP[marks.show] },
      '0',
      h('span', { class: 'swatches' }, steps),
      percent(marks.most),
    )];
  }

  function refresh() {
    replace(line, lineParts(), sinkNotes());
    replace(legend, legendParts());
  }

  /** Text of the hint for a unit under the pointer. */
  function describe(range) {
    const { marks } = data.slots[0];
    const share = marks.shares[range[0]];
    const origin = range[0] >= tokens.written ? ['generated'] : [];
    return [snippet(tokens.nameOf(...range), 40), place(range), ...origin, `${DOES[marks.show]} ${percent(share)}`].join(' · ');
  }

  return { node, refresh, describe };
}
