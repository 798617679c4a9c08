/** The explorer: mounts into any element, with any source of answers. */

import { h, later, replace } from './dom.js';
import { createAsker } from './asker.js';
import { followAddress } from './address.js';
import { createBar } from './bar.js';
import { createData } from './data.js';
import { createGrid } from './grid_view.js';
import { snippet } from './format.js';
import { fit, readHash } from './hash.js';
import { listenKeyboard } from './keyboard.js';
import { createMapPane } from './map_pane.js';
import { createProgress } from './progress.js';
import { createSearch } from './search.js';
import { createStore } from './store.js';
import { createTextPane } from './text_pane.js';
import { createTheme } from './theme.js';
import { createUi } from './ui.js';
import { createTabs } from './panels/tabs.js';
import { createTopKeys } from './panels/top_keys.js';
import { createCurves } from './panels/curves.js';
import { createWindow } from './panels/window.js';
import { createCompression } from './panels/compression.js';
import { createConversation } from './panels/conversation.js';
import { createHelp } from './panels/help.js';
import { wire } from './wiring.js';

const PANELS = [
  { name: 'top', label: 'Top keys', make: createTopKeys },
  { name: 'curves', label: 'Curves', make: createCurves },
  { name: 'window', label: 'Window', make: createWindow },
  { name: 'compression', label: 'Compression', make: createCompression },
  { name: 'conversation', label: 'Conversation', make: createConversation },
  { name: 'help', label: 'Help', make: createHelp },
];

/** Whether two answers to `document` tell of the same text, read by the same model. */
function sameText(one, other) {
  const plain = ({ state: _, ...values }) => JSON.stringify(
    values,
    (name, value) => (ArrayBuffer.isView(value) ? value.length : value),
  );
  return plain(one) === plain(other);
}

/** Do what may fail; `report` says why it did. True when it did not. */
const attempting = (report) => async (action) => {
  try {
    await action();
    report(null);
    return true;
  } catch (error) {
    report(error.message);
    return false;
  }
};

/** Everything that belongs to one document; gone when another is opened. */
function build(shell, doc) {
  const { root, source, asker, useAddress } = shell;
  const store = createStore(fit(shell.state(), doc));
  const data = createData(asker, store, doc);
  const context = {
    root,
    source,
    asker,
    store,
    data,
    panes: {},
    offline: Boolean(source.offline),
    canShare: useAddress,
    reload: shell.reload,
  };
  const theme = createTheme(root, store, () => wired.look());
  context.ui = createUi(shell, context, theme);
  context.search = createSearch(
    store,
    data.tokens,
    { goto: (token) => context.ui.goto(token), changed: () => wired.found() },
  );
  const { panes } = context;
  panes.text = createTextPane(context);
  panes.map = createMapPane(context);
  panes.grid = createGrid(context);
  panes.tabs = createTabs(context, PANELS.filter(({ name }) => name !== 'conversation' || doc.conversation));
  panes.bar = createBar(context);
  const upper = h('div', { class: 'upper' }, panes.grid.node, panes.map.node);
  replace(
    shell.stage,
    panes.bar.node,
    h('div', { class: 'panes' }, panes.text.node, h('div', { class: 'right' }, upper, panes.tabs.node)),
  );
  const wired = wire(context, theme);
  const closers = [wired.close, theme.close, data.close, listenKeyboard(useAddress ? document : root, context)];
  if (useAddress) closers.push(followAddress(store, (state) => fit(state, doc)));
  data.begin();
  wired.begin();
  if (useAddress && doc.title) document.title = `${snippet(doc.title, 200)} · attention`;
  return { doc, store, data, close: () => closers.forEach((close) => close()) };
}

/**
 * Mount the explorer.
 * @param {HTMLElement} root gets the class `explorer`
 * @param {Object} source answers: `ask(question, params, signal)`
 * @param {{useAddress?: boolean}} options whether the view is kept in the page's address
 * @returns {() => void} takes it away again
 */
export function mount(root, source, { useAddress = false } = {}) {
  const stage = h('div', { class: 'stage-area' }, h('p', { class: 'empty' }, 'Reading the document…'));
  const notice = h('div', { class: 'notice', role: 'alert', hidden: true });
  const hint = h('div', { class: 'hint', 'aria-hidden': 'true' });
  const live = h('div', { class: 'unseen', 'aria-live': 'polite' });
  const shell = { root, source, stage, hint, live, useAddress };
  let built = null;
  let closed = false;
  shell.report = (message) => {
    notice.hidden = !message;
    notice.textContent = message ?? '';
  };
  const showBusy = later(200, (busy) => root.classList.toggle('busy', busy)); // most answers are there before
  shell.asker = createAsker(source, shell.report, showBusy);
  shell.state = () => built?.store.get() ?? readHash(useAddress ? location.hash : '');
  shell.attempt = attempting(shell.report);
  const progress = createProgress(
    source,
    { failed: shell.report, ready: () => shell.reload(), attempt: shell.attempt },
  );
  shell.during = progress.during;

  /** Read the document anew; `fresh` forgets the view of the one before. */
  shell.reload = async ({ fresh = false } = {}) => {
    shell.asker.forget();
    const doc = await shell.asker.ask('document');
    if (!doc || closed) return;
    if (doc.state === 'working') progress.begin();
    if (built && !fresh && sameText(doc, built.doc)) return built.data.refresh();
    built?.close();
    if (fresh && built) built.store.set(
      { selection: null, keys: null, view: null, top: 0, compare: null, find: '' },
      { quiet: true },
    );
    built = build(shell, doc);
  };

  let pointer = null;
  shell.pointer = () => pointer;
  const pointed = (event) => {
    const box = root.getBoundingClientRect();
    pointer = [event.clientX - box.left, event.clientY - box.top];
  };
  const unpointed = () => (pointer = null);
  root.addEventListener('pointermove', pointed, { capture: true, passive: true });
  root.addEventListener('keydown', unpointed, { capture: true });
  root.classList.add('explorer');
  replace(root, stage, progress.node, notice, hint, live);
  shell.reload();
  return () => {
    closed = true;
    root.removeEventListener('pointermove', pointed, { capture: true });
    root.removeEventListener('keydown', unpointed, { capture: true });
    progress.end();
    built?.close();
    source.close?.();
    replace(root);
  };
}

