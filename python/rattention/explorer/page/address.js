/** The address bar and the state: written as the view changes, read when one goes back. A browser takes so long to
 * write that answers would be drawn a frame or two later: it is done once they are there. */

import { later } from './dom.js';
import { readHash, writeHash } from './hash.js';

/** @param {Object} store @param {(state: Object) => Object} fitted */
export function followAddress(store, fitted) {
  const address = () => `#${writeHash(store.get())}`;
  const write = (push) => {
    if (address() === (location.hash || '#')) return;
    history[push ? 'pushState' : 'replaceState'](null, '', address());
  };
  let pushing = false;
  const soon = later(250, () => {
    write(pushing);
    pushing = false;
  });
  const stop = store.listen((_, names, { push, quiet }) => {
    if (quiet) return;
    pushing ||= Boolean(push);
    soon();
  });
  soon();
  const back = () => {
    pushing = false;
    store.set(fitted(readHash(location.hash)), { quiet: true, back: true });
  };
  addEventListener('popstate', back);
  return () => {
    stop();
    removeEventListener('popstate', back);
  };
}
