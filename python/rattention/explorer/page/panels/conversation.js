/** Turns of a conversation: say one, see how the metrics move. */

import { h, replace } from '../dom.js';
import { measured, number, snippet } from '../format.js';

const MARKS = { good: ['✓', 'good'], watch: ['△', 'watch'], bad: ['✕', 'bad'] };

/** @param {Object} context */
export function createConversation(context) {
  const { data, source, ui } = context;
  const box = h(
    'textarea',
    {
      rows: 2,
      'aria-label': 'Your turn',
      placeholder: 'Say something to the model',
      onkeydown: (event) => event.key === 'Enter' && !event.shiftKey && say(event),
    },
  );
  const send = h('button', { type: 'submit', class: 'primary' }, 'Send');
  const table = h('div', { class: 'wide' });
  const form = h('form', { class: 'say', onsubmit: say }, box, send);
  const node = h('div', {}, source.turn && form, table);

  async function say(event) {
    event.preventDefault();
    const text = box.value.trim();
    if (!text || send.disabled) return;
    send.disabled = true;
    const done = await ui.during(() => source.turn(text));
    send.disabled = false;
    if (!done) return;
    box.value = '';
    context.reload();
  }

  function change(value, before) {
    if (!Number.isFinite(before) || !Number.isFinite(value) || value === before) return null;
    return h('span', { class: 'change' }, `${value > before ? '▲' : '▼'} ${number(Math.abs(value - before))}`);
  }

  function cell(turn, before, metric) {
    const [sign, word] = MARKS[turn.marks?.[metric.name]] ?? [];
    const value = turn.metrics?.[metric.name];
    return h(
      'td',
      {},
      measured(value ?? NaN, metric.unit),
      change(value, before?.metrics?.[metric.name]),
      sign && h('span', { class: `mark ${word}` }, `${sign} ${word}`),
    );
  }

  function row(turn, i, turns) {
    const before = turns.slice(0, i).findLast((other) => other.role === turn.role);
    const said = h('bdi', { title: turn.text }, snippet(turn.text, 46));
    return h('tr', {}, h('th', { scope: 'row' }, h('span', { class: 'role' }, turn.role), said),
      h('td', {}, String(turn.tokens)), data.doc.metrics.map((metric) => cell(turn, before, metric)));
  }

  function refresh() {
    const turns = data.turns?.turns ?? [];
    if (!turns.length) return replace(table, h('p', { class: 'quiet' }, data.turns ? 'No turn yet.' : 'Reading…'));
    const heads = data.doc.metrics.map((metric) => h('th', { scope: 'col', title: metric.help }, metric.label));
    return replace(
      table,
      h(
        'table',
        {},
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'turn'), h('th', { scope: 'col' }, 'tokens'), heads)),
        h('tbody', {}, turns.map(row)),
      ),
    );
  }
  return { node, refresh };
}
