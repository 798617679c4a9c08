/** Tokens of the document: where they are in the text, and the words and sentences they make. */

/** Offsets that never go back: special tokens may come with any place. */
function ordered(starts, ends) {
  const [from, to] = [Int32Array.from(starts), Int32Array.from(ends)];
  for (let i = 1; i < from.length; i++) {
    from[i] = Math.max(from[i], from[i] === to[i] ? to[i - 1] : from[i - 1]);
    to[i] = Math.max(to[i], from[i], to[i - 1]);
  }
  return [from, to];
}

/** The last index whose value is at most x, in an increasing array; -1 where there is none. */
export function lastAtMost(values, x) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** @param {Object} doc the answer to `document` */
export function createTokens(doc) {
  const [starts, ends] = ordered(doc.starts.data, doc.ends.data);
  const n = starts.length;
  const every = Int32Array.from({ length: n }, (_, i) => i);
  const edges = { token: every, word: doc.words?.data ?? every, sentence: doc.sentences?.data ?? every };
  const special = (token) => doc.starts.data[token] === doc.ends.data[token];

  /** The first token that the model wrote itself; n where all were given. */
  const written = doc.generated ?? n;

  /** The tokens at which parts begin, such as episodes. */
  const parts = doc.parts ?? [];

  /** The unit a token belongs to, as [first, stop). */
  const unitAt = (unit, token) => {
    const at = Math.max(0, lastAtMost(edges[unit], token));
    return [edges[unit][at] ?? 0, edges[unit][at + 1] ?? n];
  };
  const textOf = (first, stop) => (first < stop ? doc.text.slice(starts[first], Math.max(ends[stop - 1], starts[first])) : '');
  /** What stands between a token and the one before it. */
  const gapBefore = (token) => (token > 0 && token < n ? doc.text.slice(ends[token - 1], starts[token]) : '');
  /** What to call [first, stop) in lists and labels. */
  const nameOf = (first, stop) => {
    const own = textOf(first, stop);
    return own.trim() || own || (first < stop && special(first) ? '⟨special⟩' : '');
  };
  /** The first token that reaches beyond a place in the text. */
  const tokenAt = (offset) => {
    const before = Math.min(n, lastAtMost(ends, offset) + 1);
    return Math.min(before, Math.max(0, n - 1));
  };
  return { n, text: doc.text, starts, ends, edges, written, parts, special, unitAt, textOf, gapBefore, nameOf, tokenAt };
}
