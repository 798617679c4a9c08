/** What the views show: answers for the state of the view, asked when that changes. */

import { drawn } from './dom.js';
import { createEvents } from './store.js';
import { flags, marksOf } from './marks.js';
import { createTokens } from './tokens.js';

/** Whether marks belong to what is selected now, not to what was before and is still shown. */
export const timely = (marks, { selection, show }) =>
  Boolean(marks) && marks.selection === (show === 'received' ? null : selection);

/**
 * @typedef {Object} Slot one head on show
 * @property {number|'mean'} layer
 * @property {number|'mean'} head
 * @property {Object|null} overview
 * @property {Object|null} reads answers for the selection, in both directions
 * @property {Object|null} marks what (Marks of marks.js) the text shows
 */

const slotOf = ([layer, head]) => ({ layer, head, overview: null, reads: null, marks: null });

/** @param {Object} asker @param {Object} store @param {Object} doc the answer to `document` */
export function createData(asker, store, doc) {
  const events = createEvents();
  const tokens = createTokens(doc);
  const sinks = flags(doc.sinks, tokens.n);
  const data = { doc, tokens, sinks, slots: [], grid: null, window: null, compression: null, turns: null };

  const wanted = ({ layer, head, compare }) => [[layer, head], ...(compare ? [compare] : [])];

  function markSlot(slot) {
    const { unit, show, apart } = store.get();
    const reads = show !== 'received' && slot.reads;
    const from = reads ? slot.reads[show] : slot.overview?.received;
    if (!from || from.data.length !== tokens.n) return null;
    const left = apart && (show === 'reads' || !reads) ? sinks : null;
    const options = { left, sum: Boolean(reads) && show === 'reads', shares: Boolean(reads) && show === 'reads' };
    return {
      ...marksOf(from.data, tokens.edges[unit], options),
      show: reads ? show : 'received',
      selection: reads ? slot.readFor : null,
    };
  }

  function mark() {
    for (const slot of data.slots) slot.marks = markSlot(slot);
    events.tell('marks');
  }

  async function askOverview(slot, i) {
    const answer = await asker.ask('overview', { layer: slot.layer, head: slot.head }, `overview${i}`);
    slot.overview = answer ?? slot.overview;
    if (data.slots[i] === slot) events.tell('overview');
  }

  /** Asks for one direction of a selection; false where that was superseded or refused. */
  async function askDirection(question, slot, i, selection) {
    const superseded = () => data.slots[i] !== slot || store.get().selection !== selection;
    if (superseded()) return false;
    const params = { layer: slot.layer, head: slot.head, start: selection[0], stop: selection[1] };
    const answer = await asker.ask(question, params, `${question}${i}`);
    if (superseded()) return false;
    slot.reads = answer && { ...(slot.readFor === selection ? slot.reads : null), ...answer };
    slot.readFor = selection;
    return Boolean(answer);
  }

  /** What is shown first, and the other direction once that is drawn: to compute both would slow the drawing. */
  async function askReads(slot, i) {
    const { selection, show } = store.get();
    if (!selection) {
      slot.reads = null;
      return;
    }
    const [first, other] = show === 'readers' ? ['readers', 'reads'] : ['reads', 'readers'];
    if (!(await askDirection(first, slot, i, selection))) return;
    askOther(other, slot, i, selection);
  }

  async function askOther(question, slot, i, selection) {
    await drawn();
    if ((await askDirection(question, slot, i, selection)) && store.get().show === question) mark();
  }

  /** Ask for every head on show; what arrives is shown, whatever is still on its way. */
  function askSlots(questions) {
    const ask = async (question, slot, i) => {
      await question(slot, i);
      if (data.slots[i] === slot) mark();
    };
    data.slots.forEach((slot, i) => questions.forEach((question) => ask(question, slot, i)));
  }

  async function load(question, params, name = question) {
    data[name] = (await asker.ask(question, params, question)) ?? data[name];
    events.tell(name);
  }

  const loadTab = ({ tab, budget }) => {
    if (tab === 'window' && !data.window) load('window');
    if (tab === 'compression') load('compression', { budget });
    if (tab === 'conversation') load('turns', {}, 'turns');
  };

  function changed(state, names) {
    const heads = ['layer', 'head', 'compare'].some((name) => names.has(name));
    if (heads) data.slots = wanted(state).map(slotOf);
    if (heads) events.tell('slots');
    if (heads) askSlots(tokens.n ? [askOverview, askReads] : []);
    else if (names.has('selection')) askSlots([askReads]);
    else if (['unit', 'show', 'apart'].some((name) => names.has(name))) mark();
    if (names.has('tab') || (names.has('budget') && state.tab === 'compression')) loadTab(state);
  }

  function begin() {
    const state = store.get();
    data.slots = wanted(state).map(slotOf);
    events.tell('slots');
    load('grid');
    if (tokens.n) askSlots([askOverview, askReads]);
    loadTab(state);
  }

  /** Ask again for what grows while the work goes on; what is shown stays until then. */
  function refresh() {
    load('grid');
    if (tokens.n) askSlots([askOverview, askReads]);
    data.window = null;
    loadTab(store.get());
    events.tell('refresh');
  }

  const close = store.listen(changed);
  return Object.assign(data, { on: events.on, begin, refresh, close });
}
