/** The address bar and the state: written as the view changes, read when one goes back. */

import { later } from './dom.js';
import { readHash, writeHash } from './hash.js';

/** @param {Object} store @param {(state: Object) => Object} fitted */
export function followAddress(store, fitted) {
  const address = () => `#${writeHash(store.get())}`;
  const write = (push) => {
    if (address() === (location.hash || '#')) return;
    history[push ? 'pushState' : 'replaceState'](null, '', address());
  };
  const quietly = later(250, () => write(false));
  const stop = store.listen((_, names, { push, quiet }) => {
    if (quiet) return;
    if (push) write(true);
    else quietly();
  });
  quietly();
  const back = () => store.set(fitted(readHash(location.hash)), { quiet: true, back: true });
  addEventListener('popstate', back);
  return () => {
    stop();
    removeEventListener('popstate', back);
  };
}
