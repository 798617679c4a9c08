/** Keys that work everywhere in the page, unless one is typing. */

const UNITS = ['token', 'word', 'sentence'];
const SHOWS = ['reads', 'readers', 'received'];
const after = (list, value) => list[(list.indexOf(value) + 1) % list.length];

const typing = (event) => event.composedPath()[0]?.matches?.('input, textarea, select, [contenteditable]');

/** @param {EventTarget} root the whole page, or the widget alone @param {Object} context */
export function listenKeyboard(root, { store, search, panes, ui }) {
  const push = { push: true };
  const state = () => store.get();
  const actions = {
    '/': () => search.focus(),
    '[': () => panes.bar.step('layer', -1),
    ']': () => panes.bar.step('layer', 1),
    ',': () => panes.bar.step('head', -1),
    '.': () => panes.bar.step('head', 1),
    m: () => store.set({ layer: 'mean', head: 'mean' }, push),
    u: () => store.set({ unit: after(UNITS, state().unit) }),
    r: () => store.set({ show: after(SHOWS, state().show) }),
    s: () => store.set({ apart: !state().apart }, push),
    t: () => ui.nextTheme(),
    '?': () => store.set({ tab: 'help' }, push),
    Escape: () => store.set({ selection: null, keys: null }, push),
  };
  const pressed = (event) => {
    const find = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'f' && !typing(event);
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event);
    const action = find ? actions['/'] : plain && actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.defaultPrevented) return;
    event.preventDefault();
    action();
  };
  root.addEventListener('keydown', pressed);
  return () => root.removeEventListener('keydown', pressed);
}
