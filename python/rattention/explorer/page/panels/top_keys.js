/** The strongest passages for the selection (or those that receive most). */

import { afterDrawing, h, later, replace } from '../dom.js';
import { hue } from '../colours.js';
import { count, percent, snippet } from '../format.js';

const MOST = 24;
/** Entries that are in sight without scrolling are there first: laying all out takes a frame. */
const FIRST = 8;

const TITLES = {
  reads: 'What the selection reads, strongest first',
  readers: 'What reads the selection, strongest first',
  received: 'What receives most attention',
};

/** @param {Object} context */
export function createTopKeys({ store, data, ui }) {
  const { tokens } = data;
  const waiting = [];
  const title = h('h3', {});
  const lists = h('div', { class: 'top-lists' });
  const node = h('div', {}, title, lists);

  function around({ first, stop }) {
    const [from, to] = [tokens.starts[first], Math.max(tokens.starts[first], tokens.ends[stop - 1])];
    const begin = (at) => tokens.starts[tokens.tokenAt(Math.max(0, Math.min(tokens.text.length, at)))] ?? 0;
    const before = snippet(tokens.text.slice(Math.min(from, begin(from - 24)), from), 40);
    const after = snippet(tokens.text.slice(to, Math.max(to, begin(to + 40))), 50);
    return h(
      'span',
      { class: 'around', dir: 'ltr' },
      h('bdi', {}, before),
      h('b', { class: first >= tokens.written ? 'generated' : null }, h('bdi', {}, snippet(tokens.textOf(first, stop) || '⟨special⟩', 70))),
      h('bdi', {}, after),
    );
  }

  function entry(unit, most, show) {
    const bar = h('i', { class: 'bar' });
    bar.style.width = `${(100 * unit.share) / most}%`;
    bar.style.backgroundColor = hue(show, ui.theme());
    const go = () => ui.goto(unit.first, 'middle');
    const choose = () => store.set({ selection: [unit.first, unit.stop] }, { push: true });
    return h('li', {},
      h('button', { type: 'button', title: 'Go there; double click selects it', onclick: go, ondblclick: choose },
        h('span', { class: 'share' }, percent(unit.share)), h('span', { class: 'bar-track' }, bar),
        h('span', { class: 'place' }, count(unit.first)), around(unit)));
  }

  function list(slot, i) {
    const { marks } = slot;
    const heading = data.slots.length > 1 ? h('h4', { class: `slot-title slot-${i}` }, ui.slotTitle(slot)) : null;
    if (!marks) return h(
      'div',
      {},
      heading,
      h('p', { class: 'quiet' }, tokens.n ? 'Reading…' : 'There is nothing to list.'),
    );
    const items = (from, stop) => marks.strongest.slice(from, stop).map((unit) => entry(unit, marks.most, marks.show));
    if (!marks.strongest.length) return h('div', {}, heading, h('p', { class: 'quiet' }, 'No attention beyond the sinks.'));
    const entries = h('ol', { class: 'top' }, items(0, FIRST));
    waiting.push(() => entries.append(...items(FIRST, MOST)));
    return h('div', {}, heading, entries);
  }

  const addRest = later(60, () => waiting.splice(0).forEach((add) => add()));

  function fill() {
    const [slot] = data.slots;
    const whole = slot?.marks?.selection && slot.reads?.unit;
    replace(
      title,
      TITLES[slot?.marks?.show ?? store.get().show],
      whole && h('span', { class: 'quiet' }, `; shares are those of whole ${whole}s here`),
    );
    waiting.length = 0;
    replace(lists, data.slots.map(list));
    addRest();
  }
  return { node, refresh: afterDrawing(fill) };
}
