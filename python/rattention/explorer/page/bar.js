/** The bar on top: what this is, which head, find, sinks, theme, export, open. */

import { h, select } from './dom.js';
import { count, snippet } from './format.js';
import { exportMenu } from './export_menu.js';
import { openDialog } from './open_dialog.js';
import { offered } from './hash.js';

const THEMES = { auto: '◐', light: '☀', dark: '☾' };

const range = (n) => ['mean', ...Array.from({ length: n }, (_, i) => String(i))];
const read = (value) => (value === 'mean' ? 'mean' : Number(value));

/** @param {Object} context */
export function createBar(context) {
  const { store, data, search, source } = context;
  const { doc } = data;
  const all = (what, n) => range(n).map((value) => [value, value === 'mean' ? `all ${what}s` : `${what} ${value}`]);
  const layer = select('Layer', all('layer', doc.layers), (value) => choose({ layer: read(value) }));
  const head = select('Head', all('head', doc.heads), (value) => choose({ head: read(value) }));
  const sinks = h(
    'button',
    {
      type: 'button',
      class: 'plain',
      title: 'Leave attention sinks out of colours and shares (S)',
      onclick: () => store.set({ apart: !store.get().apart }, { push: true }),
    },
    'sinks apart',
  );
  const theme = h('button', { type: 'button', class: 'plain icon', onclick: context.ui.nextTheme });
  const dialog = doc.live && source.open ? openDialog(context) : null;
  const opener = dialog && h('button', { type: 'button', class: 'plain', onclick: dialog.show }, 'open…');
  const { n, written } = data.tokens;
  const answer = written < n && `${count(n - written)} generated, ${doc.how}`;
  const about = [doc.model, `${count(n)} tokens`, answer].filter(Boolean).join(' · ');
  const node = h('header', { class: 'bar' },
    h(
      'div',
      { class: 'titles' },
      h('h1', {}, h('bdi', {}, snippet(doc.title || 'Attention', 200))),
      h('span', { class: 'quiet' }, about),
    ),
    h('div', { class: 'heads' }, layer, head), search.node,
    h('div', { class: 'tools' }, doc.sinks?.length ? sinks : null, opener, exportMenu(context), theme), dialog?.node);

  /** A head that the file does not hold is answered by one of the same layer that it does. */
  function choose(patch) {
    const next = { ...store.get(), ...patch };
    const near = doc.choices?.find(([l, k]) => ('layer' in patch ? l === next.layer : k === next.head));
    if (!offered(doc, next.layer, next.head) && near) [next.layer, next.head] = near;
    if (offered(doc, next.layer, next.head)) store.set({ layer: next.layer, head: next.head }, { push: true });
    refresh();
  }

  function refresh() {
    const state = store.get();
    layer.value = String(state.layer);
    head.value = String(state.head);
    sinks.setAttribute('aria-pressed', String(state.apart));
    theme.textContent = THEMES[state.theme];
    theme.title = `Theme: ${state.theme} (T)`;
    theme.setAttribute('aria-label', `Theme: ${state.theme}`);
    [layer, head].forEach((box, i) => {
      const held = doc.choices && new Set(doc.choices.map((choice) => String(choice[i])));
      for (const option of box.options) option.disabled = Boolean(held) && !held.has(option.value);
    });
  }

  function step(name, by) {
    const most = doc[`${name}s`];
    const at = state(name);
    const next = (at + by + most + 1) % (most + 1);
    choose({ [name]: next === 0 ? 'mean' : next - 1 });
  }
  const state = (name) => (store.get()[name] === 'mean' ? 0 : store.get()[name] + 1);
  return { node, refresh, step };
}
