/** The whole document as a ribbon beside the text. */

import { h, perFrame, sized } from './dom.js';
import { hue } from './colours.js';
import { count } from './format.js';

const WIDTH = 40;

/** The largest level within each of `bins` equal parts. */
function peaks(levels, bins) {
  const found = new Float32Array(bins);
  for (let t = 0; t < levels.length; t++) {
    const bin = Math.floor((t * bins) / levels.length);
    if (levels[t] > found[bin]) found[bin] = levels[t];
  }
  if (levels.length < bins) for (let b = 0; b < bins; b++) found[b] = levels[Math.floor((b * levels.length) / bins)];
  return found;
}

/** @param {Object} context @param {(token: number) => void} go */
export function createMinimap({ store, data, search, ui }, go) {
  const { n } = data.tokens;
  const canvas = h('canvas', {});
  const box = h('div', { class: 'minimap-box' });
  const node = h('div', {
    class: 'minimap', tabindex: 0, role: 'slider', 'aria-label': 'Place in the document', 'aria-orientation': 'vertical',
    'aria-valuemin': 0, 'aria-valuemax': Math.max(0, n - 1), 'aria-valuenow': 0,
  }, canvas, box);
  let range = [0, 0];
  let height = 0;

  function ribbon(context, { levels, show }, x, width) {
    context.fillStyle = hue(show, ui.theme());
    const found = peaks(levels, Math.max(1, Math.floor(height)));
    found.forEach((level, y) => {
      if (!(level > 0.03)) return;
      context.globalAlpha = level;
      context.fillRect(x, y, width, 1);
    });
    context.globalAlpha = 1;
  }

  const yOf = (token) => (n ? (token / n) * height : 0);

  function notes(context) {
    const { selection } = store.get();
    if (data.tokens.written < n) {
      context.fillStyle = ui.colour('--written');
      context.fillRect(0, yOf(data.tokens.written), 2, height - yOf(data.tokens.written));
    }
    context.fillStyle = ui.colour('--mark');
    for (const token of search.places()) context.fillRect(WIDTH - 4, yOf(token) - 0.5, 4, 1);
    if (!selection) return;
    context.fillStyle = ui.colour('--accent');
    const tall = yOf(selection[1]) - yOf(selection[0]);
    context.fillRect(0, yOf(selection[0]) - 1, tall > 6 ? 4 : WIDTH, Math.max(3, tall));
  }

  function draw() {
    const context = sized(canvas, WIDTH, height);
    context.clearRect(0, 0, WIDTH, height);
    const slots = data.slots.filter((slot) => slot.marks);
    slots.forEach((slot, i) => ribbon(
      context,
      slot.marks,
      4 + (i * (WIDTH - 8)) / slots.length,
      (WIDTH - 8) / slots.length - (i ? 0 : slots.length - 1),
    ));
    notes(context);
  }

  function showBox() {
    const tall = Math.max(10, yOf(range[1]) - yOf(range[0]));
    box.style.height = `${tall}px`;
    box.style.transform = `translateY(${Math.min(yOf(range[0]), height - tall)}px)`;
  }

  function sight(next) {
    range = next;
    showBox();
    node.setAttribute('aria-valuenow', String(range[0]));
    node.setAttribute('aria-valuetext', `positions ${count(range[0])} to ${count(range[1])} of ${count(n)}`);
  }

  const at = (event) => Math.round(((event.clientY - node.getBoundingClientRect().top) / height) * n);
  const move = (event) => {
    if (event.buttons & 1 && n) go(Math.min(n - 1, Math.max(0, at(event))));
  };
  node.addEventListener('pointerdown', (event) => {
    node.setPointerCapture(event.pointerId);
    move(event);
  });
  node.addEventListener('pointermove', move);
  node.addEventListener('keydown', (event) => {
    const page = Math.max(1, range[1] - range[0]);
    const middle = (range[0] + range[1]) >> 1;
    const steps = { ArrowUp: -page / 2, ArrowDown: page / 2, PageUp: -page * 4, PageDown: page * 4, Home: -n, End: n };
    const to = event.key in steps ? middle + steps[event.key] : undefined;
    if (to === undefined || !n) return;
    event.preventDefault();
    go(Math.min(n - 1, Math.max(0, Math.round(to))));
  });
  const drawSoon = perFrame(draw);
  const watch = new ResizeObserver(() => {
    height = node.clientHeight;
    draw();
    showBox();
  });
  watch.observe(node);
  return { node, draw: drawSoon, sight, close: () => watch.disconnect() };
}
