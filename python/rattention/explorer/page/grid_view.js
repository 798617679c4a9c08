/** Layers x heads, coloured by a metric; the first row and column are means. */

import { h, perFrame, replace, select, sized } from './dom.js';
import { css, gradient } from './colours.js';
import { headName, measured } from './format.js';
import { offered } from './hash.js';

const MARGIN = 22;

function meanOf(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
}

/** Values with means in row 0 and column 0: [L + 1][H + 1]. */
function withMeans(values, layers, heads) {
  const rows = Array.from({ length: layers }, (_, l) => Array.from(values.slice(l * heads, (l + 1) * heads)));
  const across = Array.from({ length: heads }, (_, k) => meanOf(rows.map((row) => row[k])));
  return [[meanOf(rows.flat()), ...across], ...rows.map((row) => [meanOf(row), ...row])];
}

const order = (i) => (i === 0 ? 'mean' : i - 1);
const place = (index) => (index === 'mean' ? 0 : index + 1);

/** @param {Object} context */
export function createGrid({ store, data, ui }) {
  const { doc } = data;
  const canvas = h(
    'canvas',
    {
      class: 'grid',
      tabindex: 0,
      role: 'application',
      'aria-label': 'Layers and heads: arrow keys move, Enter chooses, C compares',
    },
  );
  const metrics = select(
    'Metric of the grid',
    doc.metrics.map((metric, i) => [i, metric.label]),
    (value) => store.set({ metric: Number(value) }),
  );
  const compare = h(
    'button',
    {
      type: 'button',
      class: 'plain',
      'aria-pressed': 'false',
      title: 'Choose a second head to see beside this one',
      onclick: armOrDrop,
    },
    'compare',
  );
  const scale = h('div', { class: 'grid-scale' });
  const holder = h('div', { class: 'grid-holder' }, canvas);
  const node = h('section', { class: 'grid-pane', 'aria-label': 'Layers and heads' },
    h('div', { class: 'grid-head' }, h('h2', {}, 'Layers × heads'), compare), metrics, holder, scale);
  let values = null;
  let armed = false;
  let [cursor, focused] = [[place(store.get().layer), place(store.get().head)], false];
  let cell = [10, 10];

  const at = ([row, column]) => values?.[row]?.[column];
  const metric = () => doc.metrics[store.get().metric];

  function armOrDrop() {
    if (store.get().compare) store.set({ compare: null }, { push: true });
    else armed = !armed;
    ui.note(armed ? 'Now click the head to compare with' : null);
    refresh();
  }

  function choose([row, column], second) {
    const pair = [order(row), order(column)];
    if (!offered(doc, ...pair)) return ui.note('this file does not hold that head');
    if (second || armed) store.set({ compare: pair }, { push: true });
    else store.set({ layer: pair[0], head: pair[1] }, { push: true });
    armed = false;
    refresh();
  }

  function extent() {
    const inner = values.slice(1).flatMap((row) => row.slice(1)).filter(Number.isFinite);
    return inner.length ? [Math.min(...inner), Math.max(...inner)] : [0, 0];
  }

  const xy = ([row, column]) => [MARGIN + column * cell[0] + (column ? 3 : 0), MARGIN + row * cell[1] + (row ? 3 : 0)];

  function drawCell(g, row, column, [low, high]) {
    const value = at([row, column]);
    const [x, y] = xy([row, column]);
    const gap = Math.min(...cell) > 6 ? 1 : 0;
    g.globalAlpha = offered(doc, order(row), order(column)) ? 1 : 0.22;
    g.fillStyle = Number.isFinite(value) ? css(high > low ? (value - low) / (high - low) : 0.5, ui.theme()) : ui.colour('--line');
    g.fillRect(x, y, cell[0] - gap, cell[1] - gap);
    g.globalAlpha = 1;
  }

  function ring(g, spot, colour, wide) {
    const [x, y] = xy(spot);
    g.lineWidth = wide;
    g.strokeStyle = colour;
    g.strokeRect(x - 1.5, y - 1.5, cell[0] + 2, cell[1] + 2);
  }

  function labels(g) {
    g.fillStyle = ui.colour('--quiet');
    g.font = '12px system-ui, sans-serif';
    g.textAlign = 'left';
    g.textBaseline = 'alphabetic';
    g.fillText('mean', MARGIN - 1, 14);
    if (doc.heads * cell[0] > 90) g.fillText('heads →', MARGIN + Math.max(44, 2 * cell[0] + 22), 14);
    g.save();
    g.translate(14, MARGIN + (doc.layers + 1) * cell[1]);
    g.rotate(-Math.PI / 2);
    if ((doc.layers + 1) * cell[1] > 60) g.fillText('← layers', 0, 0);
    g.restore();
  }

  function draw() {
    const [width, height] = [holder.clientWidth, holder.clientHeight];
    if (!width || !height || !doc.layers || !doc.heads) return;
    const fit = (space, count) => Math.max(2, Math.min(18, Math.floor((space - MARGIN - 8) / (count + 1))));
    cell = [fit(width, doc.heads), fit(height, doc.layers)];
    const size = [MARGIN + (doc.heads + 1) * cell[0] + 8, MARGIN + (doc.layers + 1) * cell[1] + 8];
    [canvas.style.width, canvas.style.height] = size.map((x) => `${x}px`);
    const g = sized(canvas, ...size);
    g.clearRect(0, 0, ...size);
    labels(g);
    if (!values) return;
    const limits = extent();
    for (let row = 0; row <= doc.layers; row++) for (let column = 0; column <= doc.heads; column++) drawCell(
      g,
      row,
      column,
      limits,
    );
    const state = store.get();
    ring(g, [place(state.layer), place(state.head)], ui.colour('--accent'), 2);
    if (state.compare) ring(g, state.compare.map(place), ui.colour('--second'), 2);
    if (focused) ring(g, cursor, ui.colour('--ink'), 1);
    showScale(limits);
  }

  function showScale([low, high]) {
    const strip = h('span', { class: 'strip' });
    strip.style.background = gradient(ui.theme());
    replace(scale, measured(low, metric()?.unit), strip, measured(high, metric()?.unit));
  }

  function spotOf(event) {
    const index = (offset, size, most) => {
      const inner = offset - MARGIN;
      return Math.min(most, Math.max(0, Math.floor((inner > size ? inner - 3 : inner) / size)));
    };
    return [index(event.offsetY, cell[1], doc.layers), index(event.offsetX, cell[0], doc.heads)];
  }

  const name = (spot) => {
    const { label, unit } = metric() ?? { label: '' };
    return `${headName(order(spot[0]), order(spot[1]))}: ${label} ${measured(at(spot), unit)}`;
  };
  canvas.addEventListener('pointermove', (event) => ui.hint(name(spotOf(event))));
  canvas.addEventListener('pointerleave', () => ui.hint(null));
  canvas.addEventListener('click', (event) => {
    cursor = spotOf(event);
    choose(cursor, event.shiftKey || event.altKey);
  });
  canvas.addEventListener('focus', () => ((focused = canvas.matches(':focus-visible')), drawSoon()));
  canvas.addEventListener('blur', () => ((focused = false), drawSoon()));
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const act = { Enter: false, ' ': false, c: true, C: true }[event.key];
    if ((!step && act === undefined) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (act !== undefined) return choose(cursor, act);
    cursor = [
      Math.min(doc.layers, Math.max(0, cursor[0] + step[0])),
      Math.min(doc.heads, Math.max(0, cursor[1] + step[1])),
    ];
    focused = true;
    ui.say(name(cursor));
    ui.hint(name(cursor));
    drawSoon();
  });

  function refresh() {
    const { metric: chosen, compare: second } = store.get();
    const each = doc.layers * doc.heads;
    const own = data.grid?.values.data.subarray(chosen * each, (chosen + 1) * each);
    values = own ? withMeans(own, doc.layers, doc.heads) : null;
    metrics.value = String(chosen);
    metrics.title = metric()?.help ?? '';
    compare.setAttribute('aria-pressed', String(Boolean(second) || armed));
    compare.textContent = second ? 'stop comparing' : armed ? 'choose a head…' : 'compare';
    drawSoon();
  }

  const drawSoon = perFrame(draw);
  const watch = new ResizeObserver(drawSoon);
  watch.observe(holder);
  return { node, refresh, arm: armOrDrop, close: () => watch.disconnect() };
}
