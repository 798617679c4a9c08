/** Answers from the kernel behind a notebook's widget. */

import { unpack } from '../wire.js';

/** The bytes of one buffer of a message. */
function bytesOf(view) {
  if (view instanceof ArrayBuffer) return view;
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

/** A source that asks through an anywidget model. */
export function createKernel(model) {
  const waiting = new Map();
  let last = 0;
  const heard = (message, buffers) => {
    const { keep, refuse } = waiting.get(message?.id) ?? {};
    if (!keep) return;
    waiting.delete(message.id);
    if (message.error) return refuse(new Error(message.error));
    try {
      keep(unpack(message.values, message.arrays, buffers?.length ? bytesOf(buffers[0]) : new ArrayBuffer(0)));
    } catch (error) {
      refuse(error);
    }
  };
  model.on('msg:custom', heard);
  const ask = (question, params, signal) =>
    new Promise((keep, refuse) => {
      const id = ++last;
      waiting.set(id, { keep, refuse });
      signal?.addEventListener('abort', () => {
        waiting.delete(id);
        refuse(new DOMException('superseded', 'AbortError'));
      });
      model.send({ id, question, params: params ?? {} });
    });
  return { ask, close: () => model.off('msg:custom', heard) };
}
