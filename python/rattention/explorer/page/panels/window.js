/** What a sliding window would cut off, layer by layer. */

import { h, replace } from '../dom.js';
import { count, percent } from '../format.js';

/** @param {Object} context */
export function createWindow({ store, data }) {
  const slider = h(
    'input',
    {
      type: 'range',
      min: 0,
      step: 1,
      'aria-label': 'Window size',
      oninput: (event) => store.set({ window: Number(event.target.value) }),
    },
  );
  const size = h('output', {});
  const total = h('output', { class: 'big' });
  const bars = h('div', { class: 'bars' });
  const node = h('div', { class: 'window-panel' },
    h(
      'p',
      { class: 'quiet' },
      'Share of the attention that a window of this many tokens would cut off, mean over heads and rows.',
    ),
    h('label', { class: 'slider' }, h('span', {}, 'Window'), slider, size), h('p', {}, total, ' lost over all layers'), bars);

  function bar(lost, layer) {
    const fill = h('i', { class: 'bar' });
    fill.style.width = `${100 * (Number.isFinite(lost) ? lost : 0)}%`;
    const own = data.doc.windows?.[layer];
    const title = own ? `layer ${layer} already has a window of ${count(own)}` : null;
    return h(
      'div',
      { class: 'bar-row', title },
      h('span', { class: 'place' }, `layer ${layer}${own ? ' ▪' : ''}`),
      h('span', { class: 'bar-track' }, fill),
      h('span', { class: 'share' }, percent(lost)),
    );
  }

  function refresh() {
    const answer = data.window;
    if (!answer) return replace(bars, h('p', { class: 'quiet' }, 'Reading…'));
    const edges = answer.edges.data;
    if (!edges.length) return replace(bars, h('p', { class: 'quiet' }, 'There are no windows to try.'));
    slider.max = String(edges.length - 1);
    const at = Math.min(store.get().window ?? Math.floor(edges.length / 2), edges.length - 1);
    slider.value = String(at);
    size.textContent = `${count(edges[at])} tokens`;
    const lost = Array.from(
      { length: answer.lost.shape[0] },
      (_, layer) => answer.lost.data[layer * edges.length + at],
    );
    const known = lost.filter(Number.isFinite);
    total.textContent = percent(known.reduce((sum, x) => sum + x, 0) / known.length);
    replace(bars, lost.map(bar));
  }
  return { node, refresh };
}
