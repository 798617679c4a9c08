/** From numbers per token to what is shown: one value per unit, levels for shading, the strongest units. */

/**
 * @typedef {Object} Marks
 * @property {Float32Array} levels per token, 0..1, the shade behind it
 * @property {Float32Array} shares per token, the value of its unit
 * @property {{first: number, stop: number, share: number}[]} strongest units, strongest first
 * @property {number} most the largest value among units (full shade)
 * @property {number} sinks share of the tokens left out; 0 where none is
 */

const counts = (value, t, left) => value >= 0 && !(left && left[t]);

/** Where every token is a unit. */
function tokenValues(values, left) {
  const found = new Float32Array(values.length);
  for (let t = 0; t < values.length; t++) if (counts(values[t], t, left)) found[t] = values[t];
  return found;
}

function unitValues(values, edges, left, sum) {
  if (edges.length === values.length) return tokenValues(values, left);
  const found = new Float32Array(edges.length);
  for (let u = 0; u < edges.length; u++) {
    const stop = u + 1 < edges.length ? edges[u + 1] : values.length;
    let [total, counted] = [0, 0];
    for (let t = edges[u]; t < stop; t++) {
      if (!counts(values[t], t, left)) continue;
      total += values[t];
      counted++;
    }
    found[u] = sum || counted === 0 ? total : total / counted;
  }
  return found;
}

function strongestOf(values, most) {
  const kept = [];
  for (let u = 0; u < values.length; u++) {
    if (!(values[u] > 0) || (kept.length === most && values[u] <= values[kept[most - 1]])) continue;
    let at = kept.length;
    while (at > 0 && values[kept[at - 1]] < values[u]) at--;
    kept.splice(at, 0, u);
    if (kept.length > most) kept.pop();
  }
  return kept;
}

function spread(values, edges, n) {
  if (values.length === n) return values;
  const shares = new Float32Array(n);
  for (let u = 0; u < edges.length; u++) {
    const stop = u + 1 < edges.length ? edges[u + 1] : n;
    for (let t = edges[u]; t < stop; t++) shares[t] = values[u];
  }
  return shares;
}

/** The shade grows with the square root of a share. */
function levelled(shares, most) {
  const levels = new Float32Array(shares.length);
  for (let t = 0; t < shares.length; t++) if (shares[t] > 0) levels[t] = Math.sqrt(shares[t] / most);
  return levels;
}

/** Tokens as flags; null where there is none. */
export function flags(tokens, n) {
  if (!tokens?.length) return null;
  const found = new Uint8Array(n);
  for (const token of tokens) if (token < n) found[token] = 1;
  return found;
}

function massOf(values, left) {
  let total = 0;
  for (let t = 0; t < values.length; t++) if (left[t] && values[t] > 0) total += values[t];
  return total;
}

/**
 * @param {Float32Array} values one number per token
 * @param {Int32Array} edges first token of every unit
 * @param {{left: Uint8Array|null, sum: boolean, shares: boolean, most: number}} options tokens to leave out; whether a
 *   unit has the sum of its tokens or their mean; whether values are shares of a whole, to be normalised without
 *   what is left out; how many units to name
 * @returns {Marks}
 */
export function marksOf(values, edges, { left = null, sum = true, shares = true, most = 40 }) {
  const sinks = left && shares ? massOf(values, left) : 0;
  const found = unitValues(values, edges, left, sum);
  const rest = 1 - sinks;
  if (sinks > 0 && rest > 1e-6) for (let u = 0; u < found.length; u++) found[u] /= rest;
  const strongest = strongestOf(found, most);
  const top = strongest.length ? found[strongest[0]] : 0;
  const unit = (u) => ({ first: edges[u], stop: u + 1 < edges.length ? edges[u + 1] : values.length, share: found[u] });
  const perToken = spread(found, edges, values.length);
  return { levels: levelled(perToken, top), shares: perToken, strongest: strongest.map(unit), most: top, sinks };
}
