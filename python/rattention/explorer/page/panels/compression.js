/** Which tokens a compressed cache would keep. */

import { h, later, replace } from '../dom.js';
import { percent } from '../format.js';

/** @param {Object} context */
export function createCompression({ store, data }) {
  const ask = later(120, (budget) => store.set({ budget }));
  const slider = h(
    'input',
    {
      type: 'range',
      min: 0.05,
      max: 1,
      step: 0.05,
      'aria-label': 'Budget',
      oninput: (event) => moved(Number(event.target.value)),
    },
  );
  const size = h('output', {});
  const list = h('div', { class: 'bars', role: 'radiogroup', 'aria-label': 'Strategy' });
  const note = h('p', { class: 'quiet' });
  const node = h('div', {},
    h(
      'p',
      { class: 'quiet' },
      'Tokens that would be dropped from the cache are struck through in the text. ' +
        'Bars: share of the newest token’s attention that is kept.',
    ),
    h('label', { class: 'slider' }, h('span', {}, 'Budget'), slider, size), list, note);

  function moved(budget) {
    size.textContent = `${percent(budget)} of the tokens`;
    ask(budget);
  }

  function choice(strategy, i) {
    const fill = h('i', { class: 'bar' });
    fill.style.width = `${100 * strategy.held}%`;
    const chosen = i === store.get().strategy;
    const choose = () => store.set({ strategy: i });
    const about = { role: 'radio', 'aria-checked': String(chosen), title: strategy.help, onclick: choose };
    return h('button', { type: 'button', class: 'bar-row', ...about },
      h('span', { class: 'name' }, strategy.label), h('span', { class: 'bar-track' }, fill),
      h('span', { class: 'share' }, percent(strategy.held)));
  }

  function refresh() {
    const { budget, strategy } = store.get();
    const answer = data.compression;
    slider.value = String(budget);
    size.textContent = `${percent(answer?.budget ?? budget)} of the tokens`;
    note.textContent = answer?.strategies[strategy]?.help ?? '';
    const focused = list.contains(list.getRootNode().activeElement);
    replace(list, answer ? answer.strategies.map(choice) : h('p', { class: 'quiet' }, 'Reading…'));
    if (focused) list.querySelector('[aria-checked="true"]')?.focus();
  }
  return { node, refresh };
}
