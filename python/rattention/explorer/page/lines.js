/** Breaks a text into lines that fit a width, so that every line's place is known before it is drawn. */

const EAST = '\\u1100-\\u11ff\\u2e80-\\ua4cf\\uac00-\\ud7af\\uf900-\\ufaff\\uff00-\\uff60';
const PART = new RegExp(`\\r\\n|[\\n\\r\\u2028\\u2029]|[^\\S\\n\\r\\u2028\\u2029]+|[${EAST}]|[^\\s${EAST}]+`, 'gu');
const BREAK = /^[\n\r\u2028\u2029]/;
const STRONG = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}]|(\p{L})/u;

/** Whether a paragraph runs from right to left: by its first letter. */
function leftwards(paragraph) {
  const found = STRONG.exec(paragraph);
  return Boolean(found) && found[1] === undefined;
}

/** Collects lines: `part` adds a piece of text of some width, `close` ends a line. */
function collector(width) {
  const stops = [];
  let [x, used] = [0, 0];
  const close = (at) => {
    stops.push(at);
    [x, used] = [0, 0];
  };
  const part = (at, size, blank) => {
    if (!blank && used > 0 && x + size > width) close(at);
    x += size;
    used++;
  };
  return { stops, close, part };
}

/** A word wider than a line: cut between its characters. */
function cut(lines, text, at, measure, width) {
  for (const sign of text) {
    lines.part(at, Math.min(measure(sign), width), false);
    at += sign.length;
  }
}

/**
 * @param {string} text
 * @param {number} width of a line, pixels
 * @param {(text: string) => number} measure width of a piece of text
 * @returns {{starts: Int32Array, count: number, rtl: Uint8Array}} where lines begin (and the text's end), their
 *   direction
 */
export function breakLines(text, width, measure) {
  const lines = collector(width);
  PART.lastIndex = 0;
  for (let found = PART.exec(text); found; found = PART.exec(text)) {
    const part = found[0];
    if (BREAK.test(part)) {
      lines.close(found.index + part.length);
      continue;
    }
    const size = measure(part);
    if (size > width) cut(lines, part, found.index, measure, width);
    else lines.part(found.index, size, part.trim() === '');
  }
  const starts = Int32Array.from([0, ...lines.stops, text.length]);
  const unique = starts.length > 2 && starts[starts.length - 1] === starts[starts.length - 2] && !BREAK.test(text.slice(-1));
  const kept = unique ? starts.slice(0, -1) : starts;
  return { starts: kept, count: kept.length - 1, rtl: directions(text, kept) };
}

function directions(text, starts) {
  const rtl = new Uint8Array(starts.length - 1);
  if (!/[\u0590-\u08ff]/.test(text)) return rtl;
  for (let line = 0; line < rtl.length; line++) {
    const fresh = line === 0 || BREAK.test(text[starts[line] - 1]);
    rtl[line] = fresh ? leftwards(text.slice(starts[line], paragraphEnd(text, starts[line]))) : rtl[line - 1];
  }
  return rtl;
}

function paragraphEnd(text, from) {
  const end = text.indexOf('\n', from);
  return end < 0 ? text.length : end;
}

/** A function that measures text in a font and remembers widths. `extra`: more pixels for what is drawn as boxes. */
export function measurer(font, extra) {
  const context = document.createElement('canvas').getContext('2d');
  context.font = font;
  const widths = new Map();
  return (part) => {
    let width = widths.get(part);
    if (width === undefined) {
      const blanks = part.includes('\t') ? part.replaceAll('\t', '    ') : part;
      width = context.measureText(blanks).width + extra(part);
      widths.set(part, width);
    }
    return width;
  };
}
