/** The metrics of every token that the model wrote, as a table. */

import { h, replace } from '../dom.js';
import { count, measured, snippet } from '../format.js';

/** Rows at most; exports have all. */
const MOST = 500;

/** @param {{data: Object, ui: Object}} context */
export function createAnswerTable({ data, ui }) {
  const { doc, tokens } = data;
  const node = h('div', { class: 'wide answer-table' });

  function row(token, columns) {
    const name = snippet(tokens.nameOf(token, token + 1), 24).trim() || '␣';
    const go = h('button', { type: 'button', title: 'Go there', onclick: () => ui.goto(token, 'middle') }, h('bdi', {}, name));
    const cell = (series, m) => {
      const values = series.map((own) => measured(own[token - tokens.written], doc.metrics[m].unit));
      return h('td', {}, values.join(' | '));
    };
    return h('tr', {}, h('th', { scope: 'row' }, go), h('td', {}, count(token)), columns.map(cell));
  }

  /** @param {Float32Array[][]|null} columns of every metric the values of each head on show; null shows nothing */
  function show(columns) {
    if (!columns?.[0]?.length) return replace(node);
    const shown = Math.min(MOST, tokens.n - tokens.written);
    const heads = doc.metrics.map((metric) => h('th', { scope: 'col', title: metric.help }, metric.label));
    const rows = Array.from({ length: shown }, (_, i) => row(tokens.written + i, columns));
    const more = tokens.n - tokens.written - shown;
    return replace(
      node,
      h(
        'table',
        { 'aria-label': 'Metrics of the tokens that the model wrote' },
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'token'), h('th', { scope: 'col' }, 'position'), heads)),
        h('tbody', {}, rows),
      ),
      more > 0 && h('p', { class: 'quiet' }, `${count(more)} more are in the curves only.`),
    );
  }
  return { node, show };
}
