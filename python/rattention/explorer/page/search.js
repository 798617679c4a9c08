/** Finding in the whole text, not only in what the page holds at the moment. */

import { h, later } from './dom.js';
import { count } from './format.js';

const MOST = 10000;

/** Places of `wanted` in `text` as [start, end), without regard to case; at most 10,000. */
function findAll(text, wanted) {
  if (!wanted) return [];
  const pattern = new RegExp(wanted.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&'), 'gi');
  const found = [];
  for (let hit = pattern.exec(text); hit && found.length < MOST; hit = pattern.exec(text)) {
    found.push([hit.index, hit.index + hit[0].length]);
  }
  return found;
}

/** @param {Object} store @param {Object} tokens @param {{goto: Function, changed: Function}} act */
export function createSearch(store, tokens, act) {
  let hits = [];
  let at = -1;
  const flags = new Uint8Array(tokens.n);
  const box = h(
    'input',
    {
      type: 'search',
      class: 'find',
      placeholder: 'Find in text',
      'aria-label': 'Find in text',
      spellcheck: 'false',
      oninput: () => typed(box.value),
    },
  );
  const status = h('span', { class: 'find-count', role: 'status', 'aria-label': 'Found' });
  const node = h('div', { class: 'find-box' }, box, status);

  const span = ([start, end]) => [tokens.tokenAt(start), tokens.tokenAt(end - 1) + 1];

  function look(wanted) {
    hits = findAll(tokens.text, wanted);
    flags.fill(0);
    for (const hit of hits) flags.fill(1, ...span(hit));
    at = -1;
  }

  function show() {
    const some = hits.length === MOST ? `${count(MOST)}+` : count(hits.length);
    status.textContent = box.value ? `${hits.length ? count(at + 1) : 0} of ${some}` : '';
    node.classList.toggle('none', Boolean(box.value) && !hits.length);
    act.changed();
  }

  function step(by) {
    if (!hits.length) return;
    at = (at + by + hits.length) % hits.length;
    act.goto(span(hits[at])[0]);
    show();
  }

  /** The first hit at or after what is in sight. */
  function jump() {
    const next = hits.findIndex(([start]) => tokens.tokenAt(start) >= store.get().top);
    at = hits.length ? Math.max(0, next) - 1 : -1;
    if (hits.length) step(1);
    else show();
  }

  const typed = later(120, (wanted) => {
    store.set({ find: wanted });
    look(wanted);
    jump();
  });

  box.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') step(event.shiftKey ? -1 : 1);
    else if (event.key === 'Escape') {
      box.value = '';
      typed('');
      box.blur();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** Classes of [first, stop): found, and whether it is the present one. */
  function marks(first, stop) {
    if (!hits.length || !flags[first]) return '';
    const now = at >= 0 ? span(hits[at]) : [0, 0];
    return first < now[1] && stop > now[0] ? ' found present' : ' found';
  }

  function restore() {
    const { find } = store.get();
    if (box.value === find) return;
    box.value = find;
    look(find);
    show();
  }

  const places = () => hits.slice(0, 2000).map(([start]) => tokens.tokenAt(start));
  return { node, marks, places, restore, focus: () => box.select() };
}
