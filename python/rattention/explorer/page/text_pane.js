/** The text pane: switches, what is selected, one text (two when heads are compared) and the minimap. */

import { h, replace, segmented } from './dom.js';
import { count } from './format.js';
import { createMinimap } from './minimap.js';
import { createTextView } from './text_view.js';
import { listenKeys, listenPointer } from './text_keys.js';
import { createSummary } from './summary.js';

const UNITS = [
  ['token', 'token', 'Choose single tokens'],
  ['word', 'word', 'Choose whole words'],
  ['sentence', 'sentence', 'Choose whole sentences'],
];
const SHOWS = [
  ['reads', 'reads', 'Shade what the selection attends to'],
  ['readers', 'is read by', 'Shade what attends to the selection'],
  ['received', 'received', 'Shade how much attention every place receives from all later text'],
];

/** @param {Object} context {store, data, search, ui} */
export function createTextPane(context) {
  const { store, data } = context;
  const { tokens } = data;
  const units = segmented('Unit of text', UNITS, (unit) => store.set({ unit }));
  const shows = segmented('What is shaded', SHOWS, (show) => store.set({ show }));
  const summary = createSummary(context);
  const minimap = createMinimap(context, (token) => views.forEach((view) => view.scrollTo(token, 'middle')));
  const texts = h('div', { class: 'texts' });
  const node = h('section', { class: 'text-pane', 'aria-label': 'Text' },
    h('div', { class: 'text-head' }, h('div', { class: 'switches' }, units.node, shows.node, answerLegend()), summary.node),
    h('div', { class: 'text-body' }, texts, minimap.node),
  );
  let views = [];
  let hovered = null;
  let cursor = 0;
  let following = false;

  const state = () => store.get();

  /** What generated tokens look like, and how many there are; a click goes to the first. */
  function answerLegend() {
    if (tokens.written >= tokens.n) return null;
    const what = `${count(tokens.n - tokens.written)} generated`;
    const about = { title: `Written by the model, ${data.doc.how}. Click to go to where it begins` };
    const sample = h('span', { class: 'token generated begins', 'aria-hidden': 'true' }, 'abc');
    const go = () => goto(tokens.written, 'middle');
    return h('button', { type: 'button', class: 'answer-legend', ...about, onclick: go }, sample, what);
  }
  const within = (range, first, stop) => range && first < range[1] && stop > range[0];

  const chosenAs = ([from, to], first, stop) => ` chosen${first <= from ? ' from' : ''}${stop >= to ? ' to' : ''}`;

  function classesFor(slot) {
    const { selection, keys, tab, strategy } = state();
    const ranked = slot?.marks?.strongest.slice(0, 6) ?? [];
    const tops = slot?.marks?.show === 'received' ? [] : ranked;
    const kept = tab === 'compression' && data.compression?.kept;
    const offset = strategy * tokens.n;
    return (first, stop) =>
      (within(selection, first, stop) ? chosenAs(selection, first, stop) : '') +
      (within(hovered, first, stop) ? ' hovered' : '') +
      (within(keys, first, stop) ? ' keyed' : '') +
      (tops.some((unit) => within([unit.first, unit.stop], first, stop)) ? ' strong' : '') +
      (context.search.marks(first, stop)) +
      (kept && kept.data[offset + first] === 0 ? ' dropped' : '') +
      (first >= tokens.written ? ' generated' : '') +
      (first === tokens.written ? ' begins' : '') +
      (first <= cursor && cursor < stop ? ' cursor' : '');
  }

  function paint() {
    views.forEach((view, i) => {
      const slot = data.slots[i];
      const theme = context.ui.theme();
      view.paint({
        levels: slot?.marks?.levels ?? null,
        show: slot?.marks?.show ?? 'reads',
        theme,
        classOf: classesFor(slot),
      });
    });
  }

  function scrolled(view) {
    if (following) return;
    following = true;
    const { scrollTop } = view.node;
    for (const { node: other } of views) if (other.scrollTop !== scrollTop) other.scrollTop = scrollTop;
    following = false;
    const range = view.range();
    context.ui.sight = range;
    minimap.sight(range);
    context.ui.events.tell('sight', range);
    context.ui.remember(view.topToken());
  }

  function choose(range, extend) {
    const { selection } = state();
    const wider = extend && selection ? [Math.min(selection[0], range[0]), Math.max(selection[1], range[1])] : range;
    const again = !extend && selection && selection[0] === wider[0] && selection[1] === wider[1];
    [cursor] = range;
    context.ui.hint(null);
    store.set({ selection: again ? null : wider, keys: null }, { push: true });
    paint();
  }

  function point(token) {
    cursor = token;
    views.forEach((view) => view.scrollTo(token, 'near'));
    paint();
    const [first, stop] = tokens.unitAt(state().unit, token);
    context.ui.say(`${tokens.nameOf(first, stop)}, position ${first}${first >= tokens.written ? ', generated' : ''}`);
  }

  function hover(range) {
    hovered = range;
    paint();
    context.ui.slowHint(range && data.slots[0]?.marks ? summary.describe(range) : null);
  }

  function makeView(slot, i) {
    const wrote = tokens.written < tokens.n ? `; from position ${count(tokens.written)} on the model wrote it` : '';
    const label = `Text: arrow keys move by unit, Enter selects${wrote}`;
    const view = createTextView(tokens, { label, onscroll: () => scrolled(view) });
    const unit = () => state().unit;
    listenPointer(view, tokens, unit, { choose, hover });
    const clear = () => store.set({ selection: null, keys: null }, { push: true });
    listenKeys(view, tokens, unit, { choose, point, clear, cursor: () => cursor });
    view.node.dataset.slot = i;
    return view;
  }

  function rebuild() {
    const top = views.length ? views[0].topToken() : state().top;
    views.forEach((view) => view.close());
    views = data.slots.map(makeView);
    const titles = data.slots.map((slot) => context.ui.slotTitle(slot));
    replace(
      texts,
      views.map((view, i) => h(
        'div',
        { class: 'text' },
        views.length > 1 && h('h3', { class: `slot-title slot-${i}` }, titles[i]),
        view.node,
      )),
    );
    if (!tokens.n) replace(texts, h('p', { class: 'empty' }, 'There is no text to read.'));
    if (tokens.n) views.forEach((view) => view.layout());
    views.forEach((view) => view.scrollTo(top, 'top'));
    paint();
  }

  function slotsChanged() {
    if (views.length !== data.slots.length) rebuild();
    else node.querySelectorAll('.slot-title').forEach((title, i) => (title.textContent = context.ui.slotTitle(data.slots[i])));
  }

  function goto(token, where = 'near') {
    cursor = token;
    views.forEach((view) => view.scrollTo(token, where));
    paint();
  }

  function refresh() {
    const { unit, show } = state();
    units.show(unit);
    shows.show(show);
    paint();
  }

  node.addEventListener('copy', (event) => {
    const { selection } = state();
    if (!selection || !getSelection()?.isCollapsed) return;
    event.clipboardData.setData('text/plain', tokens.textOf(...selection));
    event.preventDefault();
  });
  return {
    node,
    minimap,
    summary,
    paint,
    goto,
    refresh,
    slotsChanged,
    views: () => views,
    close: () => views.forEach((view) => view.close()),
  };
}
