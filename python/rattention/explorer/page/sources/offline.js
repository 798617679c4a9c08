/** Answers from the page itself: compressed blocks, read when first asked for. */

import { decode, query } from '../wire.js';
import { lastAtMost } from '../tokens.js';

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Response(stream).arrayBuffer();
}

/** weight = scale * (2^(8 q / 255) - 1) / 255 */
function unquantised(answer) {
  const { data, shape } = answer.weights;
  if (!(data instanceof Uint8Array)) return answer;
  const values = Float32Array.from({ length: 256 }, (_, q) => (answer.scale * (2 ** ((8 * q) / 255) - 1)) / 255);
  return { ...answer, weights: { data: Float32Array.from(data, (q) => values[q]), shape } };
}

/** Shares of units, spread evenly over the tokens of each. */
function spread(into, starts, unit, share) {
  const [first, stop] = [starts[unit], starts[unit + 1]];
  for (let t = first; t < stop; t++) into[t] += share / (stop - first);
}

function addUnit(answer, passages, unit, part) {
  const starts = passages.starts.data;
  const across = passages.to.shape[1];
  for (let k = unit * across; k < (unit + 1) * across; k++) {
    if (passages.to.data[k] >= 0) spread(answer.reads, starts, passages.to.data[k], part * passages.share.data[k]);
  }
  const back = passages.from.shape[1];
  for (let k = unit * back; k < (unit + 1) * back; k++) {
    const reader = passages.from.data[k];
    if (reader >= 0) for (let t = starts[reader]; t < starts[reader + 1]; t++) answer.readers[t] += passages.given.data[k];
  }
}

/** What `reads` and `readers` would answer, from units: those that [start, stop) touches, averaged by their rows in it. */
function readsFrom(passages, start, stop) {
  const starts = passages.starts.data;
  const n = starts[starts.length - 1];
  const answer = { reads: new Float32Array(n), readers: new Float32Array(n) };
  for (let unit = Math.max(0, lastAtMost(starts, start)); starts[unit] < stop; unit++) {
    const rows = Math.min(stop, starts[unit + 1]) - Math.max(start, starts[unit]);
    addUnit(answer, passages, unit, rows / (stop - start));
  }
  const shape = [n];
  return {
    reads: { data: answer.reads, shape },
    readers: { data: answer.readers, shape },
    unit: passages.unit ?? 'passage',
  };
}

function nearest(names, wanted) {
  const budget = Number(wanted);
  const of = (name) => Math.abs(Number(name.replace('budget=', '')) - budget);
  return names.reduce((best, name) => (best === undefined || of(name) < of(best) ? name : best), undefined);
}

/** A source that reads the `<script data-ask>` blocks of `root`. */
export function createOffline(root) {
  const blocks = new Map();
  for (const node of root.querySelectorAll('script[data-ask]')) {
    blocks.set(`${node.dataset.ask}?${node.dataset.params ?? ''}`, node);
  }
  const answers = new Map();
  const block = (name) => {
    const node = blocks.get(name);
    if (!node) throw new Error('this file does not hold that; open the explorer with the model to see it');
    if (!answers.has(name)) answers.set(name, inflated(node.textContent).then(decode));
    return answers.get(name);
  };
  const budgets = () => [...blocks.keys()].filter((name) => name.startsWith('compression?')).map((name) => name.slice(12));
  const selected = async ({ layer, head, start, stop }) =>
    readsFrom(await block(`passages?${query({ layer, head })}`), start, stop);
  const only = (name, answer) => ({ [name]: answer[name], unit: answer.unit });
  const special = {
    map: async ({ layer, head }) => unquantised(await block(`map?${query({ layer, head })}`)),
    reads: async (params) => only('reads', await selected(params)),
    readers: async (params) => only('readers', await selected(params)),
    compression: async ({ budget }) => {
      const name = nearest(budgets(), budget);
      return { ...(await block(`compression?${name}`)), budget: Number(name?.replace('budget=', '')) };
    },
  };
  const ask = async (question, params) => special[question]?.(params) ?? block(`${question}?${query(params)}`);
  return { ask, offline: true };
}
