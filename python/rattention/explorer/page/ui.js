/** What all panes may ask of the page: colours, hints, announcements, going somewhere. */

import { later } from './dom.js';
import { headName } from './format.js';
import { createEvents } from './store.js';

function timer(delay, action) {
  let running = 0;
  const stop = () => clearTimeout(running);
  const start = (value) => {
    stop();
    running = setTimeout(() => action(value), delay);
  };
  return { start, stop };
}

/** Beside the pointer, within the page. */
function placeHint({ root, hint, pointer }) {
  const [wide, tall] = [root.clientWidth, root.clientHeight];
  const [x, y] = pointer() ?? [0, tall];
  const left = Math.max(8, Math.min(x + 14, wide - hint.offsetWidth - 8));
  const top = y + 22 + hint.offsetHeight > tall ? y - hint.offsetHeight - 12 : y + 22;
  hint.style.transform = `translate(${left}px, ${Math.max(8, Math.min(top, tall - hint.offsetHeight - 8))}px)`;
}

/** @param {Object} shell @param {Object} context @param {Object} theme */
export function createUi(shell, context, theme) {
  const remember = later(200, (top) => context.store.set({ top }));

  /** Text beside the pointer, or at the foot of the page where there is none; null takes it away. */
  function hint(text) {
    pending.stop();
    shell.hint.textContent = text ?? '';
    shell.hint.classList.toggle('shown', Boolean(text));
    if (text) placeHint(shell);
  }

  /** The same once the pointer has rested a moment. */
  function slowHint(text) {
    hint(null);
    if (text) pending.start(text);
  }
  const pending = timer(450, hint);

  const said = new Map();
  const tell = later(120, () => {
    shell.live.textContent = [...said.values()].join('. ');
    said.clear();
  });

  /** Announce to screen readers; of each kind the latest, so that none hides another. */
  function say(text, kind = 'place') {
    said.delete(kind);
    said.set(kind, text);
    tell();
  }

  /** Show and announce. */
  function note(text) {
    hint(text);
    if (text) say(text, 'note');
  }

  return {
    theme: theme.theme,
    colour: theme.colour,
    nextTheme: theme.next,
    events: createEvents(),
    sight: [0, 0],
    remember,
    hint,
    slowHint,
    attempt: shell.attempt,
    during: shell.during,
    note,
    say,
    goto: (token, where) => context.panes.text.goto(token, where),
    slotTitle: ({ layer, head }) => headName(layer, head),
  };
}
