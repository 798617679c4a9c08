/** The map pane: one map, or two with the same view, and the legend of their colours. */

import { h, replace, segmented } from './dom.js';
import { gradient } from './colours.js';
import { number, tick } from './format.js';
import { createMapView } from './map_view.js';
import { marks } from './scale.js';

const SCALES = [
  ['log', 'log', 'Colours by the logarithm of the weight'],
  ['linear', 'linear', 'Colours in proportion to the weight'],
];

/** @param {Object} context */
export function createMapPane(context) {
  const { store, data, ui } = context;
  const scales = segmented('Scale of colours', SCALES, (scale) => store.set({ scale }));
  const legend = h('div', { class: 'map-legend', role: 'img' });
  const note = h('span', { class: 'quiet note' });
  const whole = h(
    'button',
    {
      type: 'button',
      class: 'plain',
      title: 'Show the whole context (0)',
      onclick: () => store.set({ view: null }, { push: true }),
    },
    'whole',
  );
  const maps = h('div', { class: 'maps' });
  const node = h(
    'section',
    { class: 'map-pane', 'aria-label': 'Map' },
    maps,
    h('div', { class: 'map-foot' }, legend, note, whole, scales.node),
  );
  let views = [];
  let ranges = [];

  /** One range for all maps, so that their colours can be compared. */
  function range() {
    const known = ranges.filter(Boolean);
    if (!known.length) return null;
    return { low: Math.min(...known.map((one) => one.low)), high: Math.max(...known.map((one) => one.high)) };
  }

  function showLegend() {
    const now = range();
    legend.hidden = !now;
    if (!now) return;
    const strip = h('span', { class: 'strip' });
    strip.style.background = gradient(ui.theme());
    const numbers = marks(now, store.get().scale).map(([value, level]) => {
      const text = h('span', { class: 'tick' }, tick(value));
      text.style.left = `${100 * level}%`;
      return text;
    });
    replace(legend, strip, numbers);
    legend.setAttribute('aria-label', `Colours from ${number(now.low)} to ${number(now.high)}, mean weight per cell`);
    legend.title = 'Mean attention weight per cell; the range follows what is shown';
  }

  function arrived(index, found) {
    const before = JSON.stringify(range());
    ranges[index] = found ?? ranges[index];
    const tile = views[0]?.shown().tile;
    note.title = note.textContent = context.offline && tile?.fine > 1.01 ? 'this file holds no finer cells' : '';
    if (JSON.stringify(range()) === before) return;
    showLegend();
    views.forEach((view) => view.draw());
  }

  const sameHead = (view, slot) => view.slot.layer === slot.layer && view.slot.head === slot.head;

  function slotsChanged() {
    const kept = data.slots.map((slot, i) => (views[i] && sameHead(views[i], slot) ? views[i] : null));
    views.forEach((view, i) => kept[i] !== view && view.close());
    ranges = data.slots.map((_, i) => (kept[i] ? ranges[i] : null));
    views = data.slots.map((slot, i) => kept[i] ?? createMapView(context, slot, i, { range, arrived }));
    maps.dataset.count = views.length;
    const title = (view, i) => h('h3', { class: `slot-title slot-${i}` }, ui.slotTitle(view.slot));
    replace(
      maps,
      views.map((view, i) => h('div', { class: 'map-slot' }, views.length > 1 && title(view, i), view.node)),
    );
  }

  const draw = () => views.forEach((view) => view.draw());
  const load = () => views.forEach((view) => view.load());
  function viewChanged() {
    views.forEach((view) => {
      view.draw();
      view.loadSoon();
    });
    whole.disabled = !store.get().view;
  }

  function lookChanged() {
    scales.show(store.get().scale);
    whole.disabled = !store.get().view;
    showLegend();
    views.forEach((view) => view.arrived());
  }

  return {
    node,
    draw,
    load,
    slotsChanged,
    viewChanged,
    lookChanged,
    views: () => views,
    range,
    close: () => views.forEach((view) => view.close()),
  };
}
