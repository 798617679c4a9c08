/** Tabs under the map: one panel at a time. */

import { h, replace } from '../dom.js';

/**
 * @param {Object} context
 * @param {{name: string, label: string, make: (context: Object) => {node: Node, refresh: Function}}[]} entries
 */
export function createTabs(context, entries) {
  const { store } = context;
  const body = h('div', { class: 'tab-body', role: 'tabpanel', tabindex: 0 });
  const button = ({ name, label }) =>
    h(
      'button',
      {
        type: 'button',
        class: 'tab',
        role: 'tab',
        'data-tab': name,
        onclick: () => store.set({ tab: name }, { push: true }),
      },
      label,
    );
  const buttons = entries.map(button);
  const bar = h('div', { class: 'tab-bar', role: 'tablist', 'aria-label': 'Panels', onkeydown: step }, buttons);
  const node = h('section', { class: 'tabs' }, bar, body);
  const made = new Map();

  function step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    const at = entries.findIndex(({ name }) => name === store.get().tab);
    const next = entries[(at + move + entries.length) % entries.length];
    store.set({ tab: next.name }, { push: true });
    buttons[entries.indexOf(next)].focus();
  }

  function panel(name) {
    const entry = entries.find((one) => one.name === name) ?? entries[0];
    if (!made.has(entry.name)) made.set(entry.name, entry.make(context));
    return made.get(entry.name);
  }

  function show() {
    const { tab } = store.get();
    entries.forEach(({ name }, i) => {
      buttons[i].setAttribute('aria-selected', String(name === tab));
      buttons[i].tabIndex = name === tab ? 0 : -1;
    });
    body.setAttribute('aria-label', entries.find(({ name }) => name === tab)?.label ?? '');
    replace(body, panel(tab).node);
    refresh();
  }

  const refresh = () => panel(store.get().tab).refresh();
  return { node, show, refresh };
}
