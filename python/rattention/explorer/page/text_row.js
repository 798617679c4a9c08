/** One line of the text as elements: a span per token (tokens of one character share a span). */

import { h } from './dom.js';
import { fillText } from './visible.js';

/** @typedef {{node: HTMLElement, first: number, stop: number, tail?: boolean}} Piece a span, and the tokens it stands for */

/** The first token that reaches into [from, ...). */
function firstToken(tokens, from) {
  let [low, high] = [0, tokens.n];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tokens.ends[middle] > from || (tokens.ends[middle] === from && tokens.special(middle))) high = middle;
    else low = middle + 1;
  }
  return low;
}

function piece(row, token, special, ...text) {
  const node = h('span', { class: special ? 'token special' : 'token', 'data-t': token });
  if (special) node.append('◇');
  else fillText(node, ...text);
  row.node.append(node);
  row.pieces.push({ node, first: token, stop: token + 1 });
}

function gap(row, ...text) {
  const node = h('span', { class: 'gap' });
  fillText(node, ...text);
  row.node.append(node);
}

function addToken(row, tokens, token, at, until) {
  const [start, end] = [Math.max(at, tokens.starts[token]), Math.min(until, tokens.ends[token])];
  if (tokens.special(token)) {
    piece(row, token, true);
    return at;
  }
  if (end <= at) {
    const last = row.pieces[row.pieces.length - 1];
    if (last) last.stop = token + 1;
    return at;
  }
  if (start > at) gap(row, tokens.text, at, start);
  if (token === tokens.written) row.node.append(h('span', { class: 'unseen' }, ' generated text: '));
  piece(row, token, false, tokens.text, start, end);
  return end;
}

/** The blank of a word that begins on the next line is not shaded. */
function markTail(row, tokens, until) {
  const last = row.pieces[row.pieces.length - 1];
  if (last && tokens.ends[last.first] > until && last.node.textContent.trim() === '') last.tail = true;
}

/**
 * @param {Object} tokens
 * @param {number} from place in the text where the line begins
 * @param {number} until where it ends
 * @param {{rtl: boolean, last: boolean}} about direction; whether it is the last line
 * @returns {{node: HTMLElement, pieces: Piece[]}}
 */
export function makeRow(tokens, from, until, { rtl, last }) {
  const row = { node: h('div', { class: 'line', dir: rtl ? 'rtl' : 'ltr' }), pieces: [] };
  let at = from;
  for (let token = firstToken(tokens, from); token < tokens.n; token++) {
    const start = tokens.starts[token];
    if (start > until || (start === until && !(last && tokens.special(token)))) break;
    if (start < from && tokens.special(token)) continue;
    at = addToken(row, tokens, token, at, until);
  }
  if (at < until) gap(row, tokens.text, at, until);
  markTail(row, tokens, until);
  return row;
}
