/** Shows what would not be seen: control, bidi and zero-width characters become small labelled boxes. */

import { h } from './dom.js';

const NAMES = {
  0x00ad: 'SHY', 0x061c: 'ALM', 0x200b: 'ZWSP', 0x200c: 'ZWNJ', 0x200d: 'ZWJ', 0x200e: 'LRM', 0x200f: 'RLM',
  0x202a: 'LRE', 0x202b: 'RLE', 0x202c: 'PDF', 0x202d: 'LRO', 0x202e: 'RLO', 0x2060: 'WJ', 0x2066: 'LRI',
  0x2067: 'RLI', 0x2068: 'FSI', 0x2069: 'PDI', 0xfeff: 'BOM', 0x2028: 'LS', 0x2029: 'PS',
};

/** Each tag of the flags that Unicode recommends (England, Scotland, Wales), where it stands in its flag. */
const FLAGS = ['gbeng', 'gbsct', 'gbwls'].flatMap((letters) => {
  const tags = [...letters, '\u007f'].map((letter) => `\\u{${(0xe0000 + letter.charCodeAt(0)).toString(16)}}`);
  return tags.map((tag, i) => `(?<=\\u{1f3f4}${tags.slice(0, i).join('')})${tag}(?=${tags.slice(i + 1).join('')})`);
}).join('|');

/** Joiners that do their work, in emoji and in scripts whose letters join, and tags of flags are left alone. */
const JOINS = '(?<=[\\p{Extended_Pictographic}\\p{Emoji_Modifier}\\ufe0f])\\u200d(?=\\p{Extended_Pictographic})' +
  `|(?<=[\\u0600-\\u0dff])[\\u200c\\u200d](?=[\\u0600-\\u0dff])|${FLAGS}`;
const SIGN = '[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\p{Cf}\\u2028\\u2029\\n' +
  '\\u034f\\u115f\\u1160\\u3164\\uffa0\\u{e0100}-\\u{e01ef}]';
const UNSEEN = new RegExp(`(${JOINS})|(${SIGN})`, 'gu');

const ANY = new RegExp(SIGN, 'u');

/** Whether a text has anything to box (line ends included). */
export const hasUnseen = (text) => ANY.test(text);

const hexOf = (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
const labelOf = (sign) => NAMES[sign.codePointAt(0)] ?? hexOf(sign);

/** A text with what would not be seen, line ends included, replaced by `by(sign)`. */
export const withSigns = (text, by) => text.replace(UNSEEN, (found, joiner) => (joiner === undefined ? by(found) : found));

/** About how many pixels the boxes in a piece of text take. */
export function boxesWidth(text) {
  let width = 0;
  for (const { 2: sign } of text.matchAll(UNSEEN)) if (sign && !(sign in ENDS)) width += 8 + 7.5 * labelOf(sign).length;
  return width;
}

const ENDS = { '\n': ['↵', 'new line'], '\r': ['␍', 'carriage return'] };

function box(sign) {
  if (sign in ENDS) return h('i', { class: 'newline', title: ENDS[sign][1] }, ENDS[sign][0]);
  return h('i', { class: 'control', title: `control character ${hexOf(sign)}` }, labelOf(sign));
}

/** Put [from, until) of a text into a node, as text; what stands around it tells which joiners do their work. */
export function fillText(node, whole, from = 0, until = whole.length) {
  const text = whole.slice(from, until);
  if (!hasUnseen(text)) {
    node.textContent = text;
    return;
  }
  let at = from;
  UNSEEN.lastIndex = from;
  for (let found = UNSEEN.exec(whole); found && found.index < until; found = UNSEEN.exec(whole)) {
    if (found[2] === undefined) continue;
    if (found.index > at) node.append(whole.slice(at, found.index));
    node.append(box(found[2]));
    at = found.index + found[0].length;
  }
  if (at < until) node.append(whole.slice(at, until));
}
