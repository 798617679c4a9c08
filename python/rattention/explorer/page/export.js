/** The numbers and pictures that can be taken away. */

import { fontOf } from './dom.js';
import { shade } from './colours.js';
import { headName } from './format.js';
import { LINE } from './text_view.js';

const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const cell = (value) => (value === null || Number.isNaN(value) ? '' : quoted(String(value)));

/** Rows of plain objects as CSV. */
export function table(rows) {
  if (!rows.length) return '';
  const names = Object.keys(rows[0]);
  return [names.join(','), ...rows.map((row) => names.map((name) => cell(row[name])).join(','))].join('\r\n');
}

const rounded = (value) => (Number.isFinite(value) ? +value.toPrecision(7) : null);

/** One row per token: where it is, its text (as a JSON string, so that a table never takes it for a formula), its numbers. */
export function textNumbers({ data, store }) {
  const { tokens, slots } = data;
  const columns = slots.flatMap((slot) => {
    const name = headName(slot.layer, slot.head);
    const given = [
      ['received', slot.overview?.received],
      ['reads', slot.reads?.reads],
      ['readers', slot.reads?.readers],
    ];
    return given.filter(([, array]) => array).map(([what, array]) => [`${what} (${name})`, array.data]);
  });
  const row = (t) => ({
    token: t, start: tokens.starts[t], end: tokens.ends[t], text: JSON.stringify(tokens.textOf(t, t + 1)),
    ...(tokens.written < tokens.n && { generated: Number(t >= tokens.written) }),
    ...Object.fromEntries(columns.map(([name, values]) => [name, rounded(values[t])])),
  });
  return {
    title: data.doc.title,
    model: data.doc.model,
    selection: store.get().selection,
    rows: Array.from({ length: tokens.n }, (_, t) => row(t)),
  };
}

function cells({ view, tile }, head) {
  const [perRow, perKey] = [(tile.rows[1] - tile.rows[0]) / tile.height, (tile.keys[1] - tile.keys[0]) / tile.width];
  const found = [];
  for (let y = 0; y < tile.height; y++) {
    const row = tile.rows[0] + y * perRow;
    if (row + perRow <= view[0] || row >= view[1]) continue;
    for (let x = 0; x < tile.width; x++) {
      const key = tile.keys[0] + x * perKey;
      if (key + perKey <= view[2] || key >= view[3]) continue;
      const spans = {
        row_start: Math.round(row),
        row_stop: Math.round(row + perRow),
        key_start: Math.round(key),
        key_stop: Math.round(key + perKey),
      };
      found.push({ head, ...spans, mean_weight: rounded(tile.weights[y * tile.width + x]) });
    }
  }
  return found;
}

/** One row per cell of the map as shown. */
export function mapNumbers({ data, panes }) {
  const shown = panes.map.views().map((view) => [view.shown(), headName(view.slot.layer, view.slot.head)]);
  const rows = shown.filter(([one]) => one.tile).flatMap(([one, head]) => cells(one, head));
  return { title: data.doc.title, model: data.doc.model, view: shown[0]?.[0].view, rows };
}

/** Backgrounds of tokens: one box per piece of a line, also where directions mix. */
function drawShades(g, row, frame, tintOf) {
  for (const piece of row.pieces) {
    const tint = tintOf(piece.first);
    if (!tint) continue;
    g.fillStyle = tint;
    for (const box of piece.node.getClientRects()) g.fillRect(
      box.left - frame.left,
      box.top - frame.top,
      box.width,
      box.height,
    );
  }
}

/** What a line is drawn from: its text at once, so that letters join and directions mix; by pieces where it holds boxes. */
function parts(row) {
  const boxed = row.node.querySelector('.control, .special, .newline, .unseen');
  const seen = [...row.node.children].filter((piece) => !piece.classList.contains('unseen'));
  return boxed ? seen.flatMap((piece) => [...piece.childNodes]) : [row.node];
}

function drawLine(g, row, frame) {
  const rtl = row.node.dir === 'rtl';
  const range = document.createRange();
  for (const node of parts(row)) {
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    g.font = fontOf(node instanceof Element ? node : node.parentElement);
    g.direction = rtl ? 'rtl' : 'ltr';
    g.textAlign = rtl ? 'right' : 'left';
    g.fillText(node.textContent, (rtl ? box.right : box.left) - frame.left, box.top - frame.top + box.height / 2);
  }
}

function underline(g, piece, frame) {
  for (const box of piece.node.getClientRects()) g.fillRect(
    box.left - frame.left,
    box.bottom - frame.top - 2,
    box.width,
    1.5,
  );
}

function drawView(g, view, slot, { ui, data }) {
  const { written } = data.tokens;
  const frame = view.node.getBoundingClientRect();
  const [first, stop] = view.inSight();
  const { levels, show } = slot?.marks ?? {};
  g.textBaseline = 'middle';
  for (const row of view.drawn()) {
    if (row.line < first || row.line >= stop) continue;
    drawShades(g, row, frame, (token) => (levels ? shade(levels[token], show, ui.theme()) : ''));
    g.fillStyle = ui.colour('--ink');
    drawLine(g, row, frame);
    g.fillStyle = ui.colour('--written');
    for (const piece of row.pieces) if (piece.first >= written) underline(g, piece, frame);
  }
}

/** The text as seen: {width, height, draw(context)}. */
export function drawText(context) {
  const views = context.panes.text.views();
  const boxes = views.map((view) => view.node.getBoundingClientRect());
  const height = Math.ceil(Math.max(LINE, ...boxes.map((box) => box.height)));
  const width = Math.ceil(boxes.reduce((sum, box) => sum + box.width, 0));
  const draw = (g) => {
    g.save();
    views.forEach((view, i) => {
      drawView(g, view, context.data.slots[i], context);
      g.translate(boxes[i].width, 0);
    });
    g.restore();
  };
  return { width, height, draw };
}
