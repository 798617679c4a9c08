/** Metrics over positions, one small chart each; of what the model wrote itself, also token by token. */

import { h, replace, s, segmented } from '../dom.js';
import { count, measured, snippet } from '../format.js';
import { createAnswerTable } from './answer_table.js';

const [W, H] = [260, 74];
const PARTS = [
  ['whole', 'whole document', 'All positions'],
  ['answer', 'answer, token by token', 'What the model wrote, with a value for each token'],
];

/** The path of values at places in 0..1, and, with `dots`, a dot for each. */
function line(values, places, [low, high], dots) {
  const path = [];
  let pen = 'M';
  values.forEach((value, i) => {
    if (!Number.isFinite(value)) {
      pen = 'M';
      return;
    }
    const [x, y] = [(places[i] * W).toFixed(1), (H - ((value - low) / (high - low || 1)) * H).toFixed(1)];
    path.push(dots ? `M${x} ${y}h0` : `${pen}${x} ${y}`);
    pen = 'L';
  });
  return path.join('');
}

function extent(series) {
  const known = series.flatMap((values) => [...values]).filter(Number.isFinite);
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
}

/** @param {Object} context */
export function createCurves({ store, data, ui }) {
  const { doc, tokens } = data;
  const charts = h('div', { class: 'curves' });
  const parts = segmented('Part of the document', PARTS, (curves) => store.set({ curves }, { push: true }));
  const begins = h('span', { class: 'quiet' }, `The answer begins at position ${count(tokens.written)}.`);
  const table = createAnswerTable({ data, ui });
  const wrote = tokens.written < tokens.n;
  const node = h('div', {}, wrote && h('div', { class: 'curve-parts' }, parts.node, begins), charts, wrote && table.node);
  const bands = [];
  let part = [0, tokens.n];
  let edges = [0];

  const answers = () => wrote && store.get().curves === 'answer';
  const placeOf = (token) => (token - part[0]) / Math.max(1, part[1] - part[0]);
  const tokenAt = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = part[0] + Math.floor(((event.clientX - box.left) / box.width) * (part[1] - part[0]));
    return Math.min(part[1] - 1, Math.max(part[0], at));
  };

  /** Values of a metric, of the bins of the part shown; one array per head. */
  const seriesOf = (m) =>
    data.slots.filter((slot) => slot.overview).map((slot) => {
      const [, bins] = slot.overview.curves.shape;
      return slot.overview.curves.data.subarray(m * bins + (bins - edges.length + 1), (m + 1) * bins);
    });

  function take() {
    const all = [...(data.slots.find((slot) => slot.overview)?.overview.edges.data ?? [0])];
    edges = answers() ? all.filter((edge) => edge >= tokens.written) : all;
    part = [answers() ? tokens.written : 0, tokens.n];
  }

  const span = (bin) =>
    (edges[bin + 1] - edges[bin] === 1
      ? `“${snippet(tokens.nameOf(edges[bin], edges[bin + 1]), 14).trim() || '␣'}” (${count(edges[bin])})`
      : `${count(edges[bin])}–${count(edges[bin + 1] - 1)}`);

  function readout(metric, series, output) {
    return (event) => {
      const token = tokenAt(event);
      const bin = Math.max(0, edges.findLastIndex((edge, i) => edge <= token && i < edges.length - 1));
      output.textContent = `${span(bin)}: ${series.map((values) => measured(values[bin], metric.unit)).join(' | ')}`;
    };
  }

  /** Where the model began to write: a line, and a tint behind what it wrote. */
  function marks() {
    if (!wrote || answers()) return [];
    const x = placeOf(tokens.written) * W;
    return [
      s('rect', { class: 'written', x, y: -3, width: W - x, height: H + 6 }),
      s('path', { class: 'begins', d: `M${x.toFixed(1)} -3V${H + 3}` }),
    ];
  }

  function chart(metric, m) {
    const series = seriesOf(m);
    const limits = extent(series);
    const range = limits?.map((value) => measured(value, metric.unit));
    const output = h('span', { class: 'quiet' }, limits ? range.join(' – ') : 'not known');
    const head = h('div', { class: 'curve-head', title: metric.help }, h('b', {}, metric.label), output);
    if (!limits) return h('div', { class: 'curve' }, head);
    const band = s('rect', { class: 'band', y: 0, height: H });
    bands.push(band);
    const places = edges.slice(1).map((edge, i) => placeOf((edges[i] + edge) / 2));
    const paths = series.flatMap((values, i) => [
      s('path', { class: `line slot-${i}`, d: line(values, places, limits, false) }),
      answers() && s('path', { class: `line dots slot-${i}`, d: line(values, places, limits, true) }),
    ]);
    const where = answers() ? 'over the tokens of the answer' : 'over positions';
    const begun = wrote && !answers() ? `; the answer begins at position ${count(tokens.written)}` : '';
    const drawn = s(
      'svg',
      {
        viewBox: `0 -3 ${W} ${H + 6}`,
        preserveAspectRatio: 'none',
        role: 'img',
        'aria-label': `${metric.label} ${where}, from ${range.join(' to ')}${begun}`,
        onpointermove: readout(metric, series, output),
        onclick: (event) => ui.goto(tokenAt(event), 'middle'),
      },
      band,
      marks(),
      paths,
    );
    return h('div', { class: 'curve' }, head, drawn);
  }

  function sight() {
    const [first, stop] = (ui.sight ?? [0, 0]).map((token) => Math.min(1, Math.max(0, placeOf(token))) * W);
    for (const band of bands) {
      band.setAttribute('x', first.toFixed(1));
      band.setAttribute('width', Math.max(1.5, stop - first).toFixed(1));
    }
  }

  function refresh() {
    bands.length = 0;
    take();
    parts.show(store.get().curves);
    replace(charts, tokens.n ? doc.metrics.map(chart) : h('p', { class: 'quiet' }, 'There are no positions.'));
    table.show(answers() ? doc.metrics.map((_, m) => seriesOf(m)) : null);
    sight();
  }
  ui.events.on('sight', sight);
  return { node, refresh };
}
