/** The state of the view, and who wants to know when it changes. */

const same = (a, b) => Object.is(a, b) || JSON.stringify(a) === JSON.stringify(b);

/** A store: `get()`, `set(patch, options)`, `listen(f)` with f(state, changed names, options); returns how to stop. */
export function createStore(initial) {
  let state = initial;
  const listeners = new Set();
  const set = (patch, options = {}) => {
    const changed = new Set(Object.keys(patch).filter((name) => !same(state[name], patch[name])));
    if (!changed.size) return;
    state = { ...state, ...patch };
    for (const listener of [...listeners]) listener(state, changed, options);
  };
  const listen = (listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  return { get: () => state, set, listen };
}

/** Named events without state: `tell(name, detail)`, `on(name, f)`. */
export function createEvents() {
  const listeners = new Map();
  const on = (name, listener) => {
    if (!listeners.has(name)) listeners.set(name, new Set());
    listeners.get(name).add(listener);
    return () => listeners.get(name).delete(listener);
  };
  const tell = (name, detail) => [...(listeners.get(name) ?? [])].forEach((listener) => listener(detail));
  return { on, tell };
}
