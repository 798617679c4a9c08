/** Which pane is drawn anew after what. */

import { headName, percent, snippet } from './format.js';

/** The result of a selection as a sentence. */
function summaryOfSlot({ marks }, tokens, selection) {
  if (!selection || !marks || marks.show === 'received') return '';
  const verb = marks.show === 'reads' ? 'reads' : 'is read by';
  const strongest = marks.strongest.slice(0, 3);
  const named = strongest.map(({ first, stop, share }) => `${snippet(tokens.nameOf(first, stop), 30)} ${percent(share)}`);
  const sink = marks.sinks > 0 ? `, sinks ${percent(marks.sinks)}` : '';
  const origin = selection[0] >= tokens.written ? ' (generated)' : '';
  return `${snippet(tokens.nameOf(...selection), 40)}${origin} ${verb}: ${named.join(', ')}${sink}`;
}

const SHOWN = { reads: 'what the selection reads', readers: 'what reads the selection', received: 'what each place receives' };

/** What is announced of a change of the view. */
const NEWS = {
  head: ({ layer, head }) => headName(layer, head),
  compare: ({ compare }) => (compare ? `compared with ${headName(...compare)}` : 'no longer compared'),
  unit: ({ unit }) => `unit ${unit}`,
  show: ({ show }) => `shaded: ${SHOWN[show]}`,
  apart: ({ apart }) => `attention sinks ${apart ? 'apart' : 'included'}`,
  scale: ({ scale }) => `${scale} colours`,
  theme: ({ theme }) => `theme ${theme}`,
  tab: ({ tab }) => `panel ${tab}`,
};

/** One sentence of all that changed; empty where nothing is to be said. */
function news(state, names) {
  const changed = names.has('layer') ? new Set([...names, 'head']) : names;
  return Object.keys(NEWS).filter((name) => changed.has(name)).map((name) => NEWS[name](state)).join(', ');
}

const any = (names, ...wanted) => wanted.some((name) => names.has(name));

/** @param {Object} context @param {Object} theme */
export function wire(context, theme) {
  const { store, data, panes, search, ui } = context;

  function marksChanged() {
    panes.text.refresh();
    panes.text.summary.refresh();
    panes.text.minimap.draw();
    if (any(new Set([store.get().tab]), 'top', 'curves')) panes.tabs.refresh();
    const said = data.slots[0] && summaryOfSlot(data.slots[0], data.tokens, store.get().selection);
    if (said) ui.say(said);
  }

  function slotsChanged() {
    panes.text.slotsChanged();
    panes.map.slotsChanged();
    panes.bar.refresh();
    panes.grid.refresh();
  }

  function look() {
    panes.text.paint();
    panes.text.summary.refresh();
    panes.text.minimap.draw();
    panes.map.lookChanged();
    panes.grid.refresh();
    panes.tabs.refresh();
    panes.bar.refresh();
  }

  function found() {
    panes.text.paint();
    panes.text.minimap.draw();
  }

  function changed(state, names, { back }) {
    const told = news(state, names);
    if (told) ui.say(told, 'view');
    if (names.has('theme')) theme.apply();
    if (names.has('view')) panes.map.viewChanged();
    if (any(names, 'scale', 'apart')) panes.map.lookChanged();
    if (any(names, 'selection', 'keys')) panes.map.draw();
    if (any(names, 'selection', 'keys', 'unit', 'show', 'strategy', 'tab')) panes.text.refresh();
    if (any(names, 'selection', 'show')) panes.text.summary.refresh();
    if (names.has('tab')) panes.tabs.show();
    if (any(names, 'window', 'strategy', 'curves')) panes.tabs.refresh();
    if (names.has('metric')) panes.grid.refresh();
    if (names.has('apart')) panes.bar.refresh();
    if (back) restore(state, names);
  }

  function restore(state, names) {
    search.restore();
    if (names.has('top')) panes.text.goto(state.top, 'top');
  }

  const off = [
    store.listen(changed),
    data.on('marks', marksChanged),
    data.on('slots', slotsChanged),
    data.on('overview', () => store.get().tab === 'curves' && panes.tabs.refresh()),
    data.on('grid', panes.grid.refresh),
    data.on('refresh', panes.map.load),
    ...['window', 'turns'].map((name) => data.on(name, panes.tabs.refresh)),
    data.on('compression', () => {
      panes.tabs.refresh();
      panes.text.paint();
    }),
    ui.events.on('sight', panes.map.draw),
  ];

  function begin() {
    panes.tabs.show();
    search.restore();
    look();
  }
  const close = () => {
    off.forEach((stop) => stop());
    [panes.text, panes.text.minimap, panes.map, panes.grid].forEach((pane) => pane.close());
  };
  return { look, found, begin, close };
}
