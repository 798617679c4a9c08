/** Progress while the answers are being computed, with a way to stop. */

import { h } from './dom.js';

const PAUSE = 400;

/** @param {Object} source @param {{failed: Function, ready: Function, attempt: Function}} act */
export function createProgress(source, act) {
  const stage = h('span', { class: 'stage' });
  const meter = h('progress', { 'aria-label': 'Progress' });
  const stop = h(
    'button',
    { type: 'button', class: 'plain', onclick: () => source.cancel().catch((error) => act.failed(error.message)) },
    'cancel',
  );
  const node = h('div', { class: 'progress', role: 'status', hidden: true }, stage, meter, source.cancel && stop);
  let timer = 0;
  let running = false;
  let pending = false;

  function show({ stage: text, done, total }) {
    stage.textContent = total ? `${text} ${done} of ${total}` : text ?? 'Working';
    if (total) [meter.max, meter.value] = [total, done];
    else meter.removeAttribute('value');
  }

  async function look() {
    let answer = null;
    try {
      answer = await source.ask('progress', {});
    } catch (error) {
      act.failed(error.message);
    }
    if (!running) return;
    if (answer?.state === 'working' || pending) {
      if (answer?.state === 'working') show(answer);
      timer = setTimeout(look, PAUSE);
      return;
    }
    end();
    if (answer?.state === 'failed') act.failed(answer.error ?? 'it failed');
    if (answer) act.ready();
  }

  /** Show progress until something asked for is done; true when it was. */
  async function during(action) {
    pending = true;
    begin();
    const done = await act.attempt(action);
    pending = false;
    end();
    return done;
  }

  function end() {
    running = false;
    clearTimeout(timer);
    node.hidden = true;
  }

  function begin() {
    if (running) return;
    running = true;
    node.hidden = false;
    show({ stage: 'Working' });
    look();
  }
  return { node, begin, during, end };
}
