/** One head's map on a canvas: draws the best that is held, asks for what is missing. */

import { h, later, perFrame, sized } from './dom.js';
import { count, number, percent, snippet } from './format.js';
import { createTiles } from './map_tiles.js';
import { LEFT, TOP, drawAxes, tokenNames } from './map_axes.js';
import { listenMap } from './map_input.js';

const MOST = 512;

/** What to ask for a view: a little more than it shows, at the resolution of the screen. */
function request([a, b, c, d], width, height, n) {
  const wider = (low, high) => {
    const more = (high - low) * 0.2;
    return [Math.max(0, Math.floor(low - more)), Math.min(n, Math.ceil(high + more))];
  };
  const [rows, keys] = [wider(a, b), wider(c, d)];
  const bins = (range, low, high, pixels) => {
    const size = range[1] - range[0];
    return Math.max(1, size <= MOST ? size : Math.min(MOST, Math.ceil((pixels * size) / (high - low))));
  };
  return { rows, keys, shape: [bins(rows, a, b, height), bins(keys, c, d, width)] };
}

/** @param {Object} context @param {Object} slot @param {number} index @param {Object} shared what all maps have in common */
export function createMapView(context, slot, index, shared) {
  const { store, data, asker, ui } = context;
  const { tokens } = data;
  const n = Math.max(1, tokens.n);
  const tiles = createTiles();
  const canvas = h(
    'canvas',
    {
      class: 'map',
      tabindex: 0,
      role: 'application',
      'aria-label': 'Attention map: arrow keys move, plus and minus zoom, 0 shows all',
    },
  );
  const node = h('div', { class: 'map-frame' }, canvas);
  const name = tokenNames(tokens);
  let size = [0, 0];
  let brushed = null;

  const view = () => store.get().view ?? [0, n, 0, n];
  const plot = () => [Math.max(10, size[0] - LEFT - 4), Math.max(10, size[1] - TOP - 4)];
  const per = () => {
    const [a, b, c, d] = view();
    const [width, height] = plot();
    return [(b - a) / height, (d - c) / width];
  };
  const place = (x, y) => {
    const [rows, keys] = per();
    const inside = (value) => Math.min(n - 1e-6, Math.max(0, value));
    return [inside(view()[0] + (y - TOP) * rows), inside(view()[2] + (x - LEFT) * keys)];
  };

  function drawTile(g, tile, [a, b, c, d], [width, height]) {
    const image = tiles.drawn(tile, shared.range(), store.get().scale, ui.theme());
    const [dy, dx] = [height / (b - a), width / (d - c)];
    const [x, y] = [LEFT + (tile.keys[0] - c) * dx, TOP + (tile.rows[0] - a) * dy];
    const [w, t] = [(tile.keys[1] - tile.keys[0]) * dx, (tile.rows[1] - tile.rows[0]) * dy];
    g.clearRect(Math.max(x, LEFT), Math.max(y, TOP), Math.min(w, width), Math.min(t, height));
    g.drawImage(image, x, y, w, t);
  }

  function drawBrush(g) {
    if (!brushed) return;
    const [from, to] = brushed;
    g.strokeStyle = ui.colour('--accent');
    g.setLineDash([4, 3]);
    g.strokeRect(Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y));
    g.setLineDash([]);
  }

  /** Draw into any 2d context whose unit is a pixel of the page (also used by exports). */
  function drawInto(g) {
    const [width, height] = plot();
    const state = store.get();
    g.clearRect(0, 0, ...size);
    g.save();
    g.beginPath();
    g.rect(LEFT, TOP, width, height);
    g.clip();
    g.imageSmoothingEnabled = false;
    if (shared.range()) for (const tile of tiles.of(view())) drawTile(g, tile, view(), [width, height]);
    g.restore();
    const { selection, keys } = state;
    const { written, parts } = tokens;
    const draw = { colour: ui.colour, tokenName: name, sight: ui.sight, selection, keys, written, parts };
    if (tokens.n) drawAxes(g, draw, { view: view(), width, height });
    drawBrush(g);
  }

  const draw = perFrame(() => {
    if (size[0] > 0) drawInto(sized(canvas, ...size));
  });

  async function load() {
    if (!tokens.n || size[0] < 20) return;
    const wanted = request(view(), ...plot(), n);
    const held = tiles.best(view());
    if (held && held.fine <= Math.max(1, ...per().map((x) => x * 1.3))) return arrived();
    const answer = await asker.ask('map', { layer: slot.layer, head: slot.head, ...wanted }, `map${index}`);
    if (!answer) return;
    tiles.add(answer);
    arrived();
  }

  /** Colours follow what is shown, once a better answer is there. */
  function arrived() {
    shared.arrived(index, tiles.range(view(), store.get().apart ? data.sinks : null));
    draw();
  }

  function hover(x, y) {
    if (!tokens.n) return;
    if (x < LEFT || y < TOP) return leave();
    const [row, key] = place(x, y);
    const cell = tiles.at(row, key);
    const word = (at) => snippet(tokens.nameOf(Math.floor(at), Math.floor(at) + 1), 24) || '␣';
    const many = cell && (cell.rows > 1.01 || cell.keys > 1.01);
    const what = many ? `mean of ${count(Math.round(cell.rows))} × ${count(Math.round(cell.keys))} weights` : 'weight';
    const known = cell && Number.isFinite(cell.weight);
    const value = known ? `${what} ${many ? number(cell.weight) : percent(cell.weight)}` : 'loading';
    const hidden = data.doc.causal && key >= Math.floor(row) + 1 && !(cell?.weight > 0);
    const named = (at) => `“${word(at)}” (${count(Math.floor(at))})`;
    ui.hint(`${named(row)} reads ${named(key)}: ${hidden ? 'hidden, it comes later' : value}`);
  }

  const leave = () => ui.hint(null);

  function brush(from, to, done) {
    brushed = done ? null : [from, to];
    if (done) {
      const [one, other] = [place(from.x, from.y), place(to.x, to.y)];
      const span = (i) => [Math.floor(Math.min(one[i], other[i])), Math.floor(Math.max(one[i], other[i])) + 1];
      store.set({ selection: span(0), keys: span(1) }, { push: true });
      ui.goto(span(0)[0]);
    }
    draw();
  }

  function pick(x, y) {
    if (x < LEFT || y < TOP || !tokens.n) return;
    const [row, key] = place(x, y).map(Math.floor);
    store.set(
      { selection: tokens.unitAt(store.get().unit, row), keys: tokens.unitAt(store.get().unit, key) },
      { push: true },
    );
    ui.goto(row);
  }

  const centre = () => pick(LEFT + plot()[0] / 2, TOP + plot()[1] / 2);
  function tell() {
    const [a, b, c, d] = view().map(Math.round);
    ui.say(`rows ${count(a)} to ${count(b)}, keys ${count(c)} to ${count(d)}`);
  }

  const set = (next) => store.set({ view: next[1] - next[0] >= n && next[3] - next[2] >= n ? null : next });
  listenMap(canvas, { get: view, set, place, per, n, hover, leave, brush, pick, centre, tell });
  const watch = new ResizeObserver(() => {
    size = [node.clientWidth, node.clientHeight];
    canvas.style.width = `${size[0]}px`;
    canvas.style.height = `${size[1]}px`;
    draw();
    load();
  });
  watch.observe(node);

  const loadSoon = later(20, load);
  const whole = () => tiles.best([0, n, 0, n]);
  const shown = () => ({ view: view(), tile: tiles.best(view()) ?? whole(), size, drawInto });
  return { node, slot, draw, load, loadSoon, arrived, shown, close: () => watch.disconnect() };
}
