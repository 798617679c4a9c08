/** Metrics over positions, one small chart each. */

import { h, replace, s } from '../dom.js';
import { count, measured } from '../format.js';

const [W, H] = [260, 74];

function line(values, [low, high]) {
  const path = [];
  let pen = 'M';
  values.forEach((value, i) => {
    if (!Number.isFinite(value)) {
      pen = 'M';
      return;
    }
    const x = values.length > 1 ? (i / (values.length - 1)) * W : W / 2;
    path.push(`${pen}${x.toFixed(1)} ${(H - ((value - low) / (high - low || 1)) * H).toFixed(1)}`);
    pen = 'L';
  });
  return path.join('');
}

function extent(series) {
  const known = series.flatMap((values) => [...values]).filter(Number.isFinite);
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
}

/** @param {Object} context */
export function createCurves({ data, ui }) {
  const { doc, tokens } = data;
  const node = h('div', { class: 'curves' });
  const bands = [];

  const seriesOf = (m) =>
    data.slots.filter((slot) => slot.overview).map((slot) => {
      const [, bins] = slot.overview.curves.shape;
      return slot.overview.curves.data.subarray(m * bins, (m + 1) * bins);
    });

  function readout(metric, series, output) {
    return (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const edges = data.slots[0].overview.edges.data;
      const bin = Math.min(
        series[0].length - 1,
        Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * series[0].length)),
      );
      const numbers = series.map((values) => measured(values[bin], metric.unit)).join(' | ');
      output.textContent = `${count(edges[bin])}–${count(edges[bin + 1] - 1)}: ${numbers}`;
    };
  }

  const go = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    ui.goto(Math.min(tokens.n - 1, Math.floor(((event.clientX - box.left) / box.width) * tokens.n)), 'middle');
  };

  function chart(metric, m) {
    const series = seriesOf(m);
    const limits = extent(series);
    const output = h(
      'span',
      { class: 'quiet' },
      limits ? `${measured(limits[0], metric.unit)} – ${measured(limits[1], metric.unit)}` : 'not known',
    );
    const head = h('div', { class: 'curve-head', title: metric.help }, h('b', {}, metric.label), output);
    if (!limits) return h('div', { class: 'curve' }, head);
    const band = s('rect', { class: 'band', y: 0, height: H });
    bands.push(band);
    const paths = series.map((values, i) => s('path', { class: `line slot-${i}`, d: line(values, limits) }));
    const [low, high] = limits.map((value) => measured(value, metric.unit));
    const label = `${metric.label} over positions, from ${low} to ${high}`;
    const drawn = s(
      'svg',
      {
        viewBox: `0 -3 ${W} ${H + 6}`,
        preserveAspectRatio: 'none',
        role: 'img',
        'aria-label': label,
        onpointermove: readout(metric, series, output),
        onclick: go,
      },
      band,
      paths,
    );
    return h('div', { class: 'curve' }, head, drawn);
  }

  function sight() {
    const [first, stop] = ui.sight ?? [0, 0];
    for (const band of bands) {
      band.setAttribute('x', ((first / Math.max(1, tokens.n)) * W).toFixed(1));
      band.setAttribute('width', Math.max(1.5, ((stop - first) / Math.max(1, tokens.n)) * W).toFixed(1));
    }
  }

  function refresh() {
    bands.length = 0;
    replace(node, tokens.n ? doc.metrics.map(chart) : h('p', { class: 'quiet' }, 'There are no positions.'));
    sight();
  }
  ui.events.on('sight', sight);
  return { node, refresh };
}
