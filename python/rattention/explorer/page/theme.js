/** Light or dark: chosen, or as the system has it. */

const ORDER = ['auto', 'light', 'dark'];

/** @param {HTMLElement} root @param {Object} store @param {Function} changed */
export function createTheme(root, store, changed) {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const palette = new Map();
  const theme = () => {
    const chosen = store.get().theme;
    return chosen === 'auto' ? (system.matches ? 'dark' : 'light') : chosen;
  };
  function apply() {
    root.dataset.theme = theme();
    palette.clear();
    changed();
  }
  /** The value of one of the style's colours. */
  function colour(name) {
    if (!palette.has(name)) palette.set(name, getComputedStyle(root).getPropertyValue(name).trim());
    return palette.get(name);
  }
  const next = () => store.set({ theme: ORDER[(ORDER.indexOf(store.get().theme) + 1) % ORDER.length] });
  system.addEventListener('change', apply);
  root.dataset.theme = theme();
  return { theme, colour, apply, next, close: () => system.removeEventListener('change', apply) };
}
