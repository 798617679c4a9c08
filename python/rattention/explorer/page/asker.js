/** Asks the source: keeps answers, drops superseded requests, reports failures as text. */

import { query } from './wire.js';

const HELD = 48;

/**
 * @param {{ask: Function}} source
 * @param {(message: string|null) => void} report shows a failure; null takes it away
 * @param {(busy: boolean) => void} busy
 */
export function createAsker(source, report, busy = () => {}) {
  const held = new Map();
  const lanes = new Map();
  let open = 0;
  let age = 0;

  const keep = (name, answer) => {
    held.delete(name);
    held.set(name, answer);
    if (held.size > HELD) held.delete(held.keys().next().value);
    return answer;
  };

  const count = (step) => {
    open += step;
    busy(open > 0);
  };

  async function asked(question, params, controller, name) {
    const from = age;
    count(1);
    try {
      const answer = await source.ask(question, params, controller.signal);
      if (controller.signal.aborted || from !== age) return null;
      report(null);
      return keep(name, answer);
    } catch (error) {
      if (error.name !== 'AbortError' && !controller.signal.aborted) report(error.message);
      return null;
    } finally {
      count(-1);
    }
  }

  /** The answer, or null where it was superseded by a later question of the same `lane` or failed (and was reported). */
  async function ask(question, params = {}, lane = null) {
    const name = `${question}?${query(params)}`;
    lanes.get(lane)?.abort();
    const controller = new AbortController();
    if (lane) lanes.set(lane, controller);
    if (held.has(name)) return keep(name, held.get(name));
    return asked(question, params, controller, name);
  }

  const forget = () => {
    age++;
    held.clear();
    for (const controller of lanes.values()) controller.abort();
  };
  return { ask, forget };
}
