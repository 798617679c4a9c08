/** The view's state as the hash of the address, and back. Defaults are left out; what cannot be read is ignored. */

const DEFAULTS = Object.freeze({
  layer: 'mean',
  head: 'mean',
  compare: null,
  unit: 'word',
  selection: null,
  keys: null,
  show: 'reads',
  view: null,
  scale: 'log',
  apart: true,
  tab: 'top',
  curves: 'whole',
  top: 0,
  metric: 0,
  budget: 0.5,
  strategy: 0,
  window: null,
  theme: 'auto',
  find: '',
});

const whole = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : undefined);
const index = (text) => (text === 'mean' ? 'mean' : whole(text));
const among = (...names) => (text) => (names.includes(text) ? text : undefined);
const share = (text) => (Number(text) > 0 && Number(text) <= 1 ? Number(text) : undefined);

function span(text) {
  const found = /^(\d{1,9})-(\d{1,9})$/.exec(text);
  return found && Number(found[1]) < Number(found[2]) ? [Number(found[1]), Number(found[2])] : undefined;
}

function pair(text) {
  const [layer, head] = text.split('.').map(index);
  return layer === undefined || head === undefined ? undefined : [layer, head];
}

function corners(text) {
  const view = text.split('_').map(Number);
  return view.length === 4 && view.every(Number.isFinite) && view[0] < view[1] && view[2] < view[3] ? view : undefined;
}

const plain = String;
const dashed = (value) => value.join('-');

/** name in the hash: [field, how to read, how to write] */
const FIELDS = {
  l: ['layer', index, plain],
  h: ['head', index, plain],
  c: ['compare', pair, (value) => value.join('.')],
  u: ['unit', among('token', 'word', 'sentence'), plain],
  s: ['selection', span, dashed],
  k: ['keys', span, dashed],
  d: ['show', among('reads', 'readers', 'received'), plain],
  m: ['view', corners, (value) => value.map((x) => +x.toFixed(2)).join('_')],
  g: ['scale', among('log', 'linear'), plain],
  a: ['apart', (text) => text === '1', (value) => (value ? '1' : '0')],
  t: ['tab', among('top', 'curves', 'window', 'compression', 'conversation', 'help'), plain],
  o: ['curves', among('whole', 'answer'), plain],
  y: ['top', whole, plain],
  v: ['metric', whole, plain],
  b: ['budget', share, plain],
  p: ['strategy', whole, plain],
  w: ['window', whole, plain],
  e: ['theme', among('auto', 'light', 'dark'), plain],
  f: ['find', plain, plain],
};

/** The hash of a state, without '#'. */
export function writeHash(state) {
  const parts = new URLSearchParams();
  for (const [short, [name, , write]] of Object.entries(FIELDS)) {
    const value = state[name];
    if (value != null && JSON.stringify(value) !== JSON.stringify(DEFAULTS[name])) parts.set(short, write(value));
  }
  return parts.toString();
}

/** The state a hash names; every field is there. */
export function readHash(hash) {
  const state = { ...DEFAULTS };
  for (const [short, text] of new URLSearchParams(hash.replace(/^#/, ''))) {
    const [name, read] = Object.hasOwn(FIELDS, short) ? FIELDS[short] : [];
    const value = name && read(text);
    if (value !== undefined && name) state[name] = value;
  }
  return state;
}

const bounded = (range, n) => (range && range[0] < n ? [range[0], Math.min(range[1], n)] : null);
const inside = (value, count) => (value === 'mean' || value < count ? value : 'mean');

function fitView(view, n) {
  if (!view || !n) return null;
  const [a, b, c, d] = view.map((x) => Math.min(Math.max(x, 0), n));
  return a < b && c < d ? [a, b, c, d] : null;
}

/** The pairs of layer and head that may be asked for; null = all. */
export const offered = (doc, layer, head) =>
  !doc.choices || doc.choices.some(([l, k]) => l === layer && k === head);

function fitHeads(state, doc) {
  let [layer, head] = [inside(state.layer, doc.layers), inside(state.head, doc.heads)];
  if (!offered(doc, layer, head)) [layer, head] = doc.choices[0] ?? ['mean', 'mean'];
  const compare = state.compare && [inside(state.compare[0], doc.layers), inside(state.compare[1], doc.heads)];
  return { layer, head, compare: compare && offered(doc, ...compare) ? compare : null };
}

/** The state with everything that this document does not have left out. */
export function fit(state, doc) {
  const n = doc.starts.data.length;
  return {
    ...state,
    ...fitHeads(state, doc),
    selection: bounded(state.selection, n),
    keys: bounded(state.keys, n),
    view: fitView(state.view, n),
    top: Math.min(state.top, Math.max(0, n - 1)),
    metric: state.metric < doc.metrics.length ? state.metric : 0,
    tab: state.tab === 'conversation' && !doc.conversation ? 'top' : state.tab,
  };
}
