/** The document as text: only the lines in sight are in the page. */

import { afterDrawing, fontOf, h, perFrame } from './dom.js';
import { shade } from './colours.js';
import { breakLines, measurer } from './lines.js';
import { lastAtMost } from './tokens.js';
import { makeRow } from './text_row.js';
import { boxesWidth, hasUnseen } from './visible.js';

export const LINE = 27;
const SPARE = 6;

/**
 * @param {Object} tokens
 * @param {{onscroll: Function, label: string}} options
 */
export function createTextView(tokens, { onscroll, label }) {
  const rows = new Map();
  const sheet = h('div', { class: 'sheet' });
  const node = h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': label }, sheet);
  let lines = { starts: Int32Array.of(0, 0), count: 0, rtl: new Uint8Array(1) };
  let look = { levels: null, show: 'reads', theme: 'light' };
  let width = 0;
  let measure = null;
  let seen = [0, 0]; // lines in sight when they were last drawn: to ask for them lays the page out

  const unseen = hasUnseen(tokens.text.replaceAll('\n', ''));
  const extra = (part) => (unseen ? boxesWidth(part) : 0);

  const lineOf = (token) =>
    Math.max(0, Math.min(lines.count - 1, lastAtMost(lines.starts, tokens.starts[token] ?? 0)));
  const inSight = () => {
    const first = Math.floor(node.scrollTop / LINE);
    return [first, Math.min(lines.count, first + Math.ceil(node.clientHeight / LINE) + 1)];
  };

  function paintPiece({ node: span, first, stop, tail }) {
    if (tail) return;
    const level = look.levels ? look.levels[first] : 0;
    const colour = shade(level, look.show, look.theme);
    if (span.style.backgroundColor !== colour) span.style.backgroundColor = colour;
    const name = look.classOf ? look.classOf(first, stop) : '';
    const wanted = `token${tokens.special(first) ? ' special' : ''}${name}`;
    if (span.className !== wanted) span.className = wanted;
  }

  function addRow(line) {
    const about = { rtl: lines.rtl[line] === 1, last: line === lines.count - 1 };
    const row = makeRow(tokens, lines.starts[line], lines.starts[line + 1], about);
    row.node.style.transform = `translateY(${line * LINE}px)`;
    row.pieces.forEach(paintPiece);
    rows.set(line, row);
    return row.node;
  }

  function draw() {
    seen = inSight();
    const [from, to] = [Math.max(0, seen[0] - SPARE), Math.min(lines.count, seen[1] + SPARE)];
    for (const [line, row] of rows) {
      if (line >= from && line < to) continue;
      row.node.remove();
      rows.delete(line);
    }
    const fresh = [];
    for (let line = from; line < to; line++) if (!rows.has(line)) fresh.push(addRow(line));
    sheet.append(...fresh);
  }

  const drawSoon = perFrame(() => {
    draw();
    onscroll();
  });

  /** Lay the text out for the width it has now; the token at the top stays there. */
  function layout() {
    const wide = node.clientWidth - 44;
    if (wide === width || wide < 40) return;
    const top = lines.count ? topToken() : 0;
    width = wide;
    measure ??= measurer(fontOf(sheet), extra);
    lines = breakLines(tokens.text, width, measure);
    sheet.style.height = `${lines.count * LINE + 24}px`;
    clear();
    scrollTo(top, 'top');
    draw();
  }

  function clear() {
    rows.forEach((row) => row.node.remove());
    rows.clear();
  }

  const topToken = () => tokens.tokenAt(lines.starts[Math.min(lines.count - 1, Math.floor(node.scrollTop / LINE))] ?? 0);

  /** The tokens in sight, [first, stop). */
  function range() {
    const [first, stop] = inSight();
    if (!lines.count) return [0, 0];
    const last = lines.starts[Math.min(lines.count, stop)];
    return [
      tokens.tokenAt(lines.starts[Math.min(first, lines.count - 1)]),
      Math.min(tokens.n, tokens.tokenAt(last) + 1),
    ];
  }

  /** Scroll a token's line to the top, to the middle, or only into sight. */
  function scrollTo(token, where) {
    const y = lineOf(token) * LINE;
    const [top, height] = [node.scrollTop, node.clientHeight];
    if (where === 'top') node.scrollTop = y;
    else if (where === 'middle' || y < top || y > top + height - 2 * LINE) node.scrollTop = Math.max(
      0,
      y - height * 0.38,
    );
  }

  /** @param {Object} next levels, show, theme, classOf(first, stop) */
  function paint(next) {
    look = { ...look, ...next };
    paintRows((line) => line >= seen[0] && line < seen[1]);
    paintAll();
  }

  function paintRows(wanted) {
    for (const [line, row] of rows) if (wanted(line)) row.pieces.forEach(paintPiece);
  }

  const paintAll = afterDrawing(() => paintRows(() => true));

  /** The token of an element within the text; -1 where there is none. */
  const tokenOf = (target) => {
    const span = target?.closest?.('[data-t]');
    return span && node.contains(span) ? Number(span.dataset.t) : -1;
  };

  /** The token one line up or down, at about the same place in its line. */
  function besides(token, step) {
    const line = lineOf(token);
    const wanted = Math.max(0, Math.min(lines.count - 1, line + step));
    const place = lines.starts[wanted] + (tokens.starts[token] - lines.starts[line]);
    return tokens.tokenAt(Math.min(place, Math.max(lines.starts[wanted], lines.starts[wanted + 1] - 1)));
  }

  node.addEventListener('scroll', drawSoon, { passive: true });
  const watch = new ResizeObserver(() => layout());
  watch.observe(node);
  const drawn = () => [...rows.keys()].sort((a, b) => a - b).map((line) => ({ line, ...rows.get(line) }));
  return {
    node,
    layout,
    paint,
    scrollTo,
    range,
    topToken,
    tokenOf,
    besides,
    drawn,
    inSight,
    close: () => watch.disconnect(),
  };
}
