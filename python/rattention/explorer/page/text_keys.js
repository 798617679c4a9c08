/** Choosing passages in the text: by pointer and by keyboard. */

/** The units that two tokens span together. */
const between = (tokens, unit, a, b) => {
  const [one, other] = [tokens.unitAt(unit, a), tokens.unitAt(unit, b)];
  return [Math.min(one[0], other[0]), Math.max(one[1], other[1])];
};

/** Hovering, clicking and dragging over the text. `choose([first, stop])`, `hover([first, stop]|null)`. */
export function listenPointer(view, tokens, unit, { choose, hover }) {
  const { node } = view;
  let from = -1;
  let over = -1;
  const under = (event) => view.tokenOf(event.target);
  const show = (token, extend) => {
    if (token === over && !extend) return;
    over = token;
    if (from >= 0 && token >= 0) hover(between(tokens, unit(), from, token));
    else hover(token < 0 ? null : tokens.unitAt(unit(), token));
  };
  node.addEventListener('pointerover', (event) => show(under(event), from >= 0));
  node.addEventListener('pointerleave', () => show(-1));
  node.addEventListener('pointerdown', (event) => {
    if (event.button === 0 && event.pointerType !== 'touch') from = under(event);
  });
  node.addEventListener('pointerup', (event) => {
    const [start, token] = [from, under(event)];
    from = -1;
    if (event.button === 0 && start >= 0 && token >= 0) choose(between(tokens, unit(), start, token), event.shiftKey);
  });
  node.addEventListener('click', (event) => {
    const token = under(event);
    if (event.pointerType === 'touch' && token >= 0) choose(tokens.unitAt(unit(), token), false);
  });
}

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const LINES = { ArrowUp: -1, ArrowDown: 1, PageUp: -16, PageDown: 16 };

/** The token a key moves to from `cursor`; -1 where the key moves nothing. */
export function moved(key, cursor, tokens, unit, besides) {
  const last = Math.max(0, tokens.n - 1);
  if (key === 'Home') return 0;
  if (key === 'End') return last;
  if (key in LINES) return besides(cursor, LINES[key]);
  const step = STEPS[key];
  if (!step) return -1;
  const [first, stop] = tokens.unitAt(unit, cursor);
  return step > 0 ? Math.min(last, stop) : tokens.unitAt(unit, Math.max(0, first - 1))[0];
}

/** Arrow keys move a cursor over units, Enter chooses, Shift extends. */
export function listenKeys(view, tokens, unit, { choose, point, cursor, clear }) {
  view.node.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !tokens.n) return;
    const at = cursor();
    if (event.key === 'Enter' || event.key === ' ') choose(tokens.unitAt(unit(), at), event.shiftKey);
    else if (event.key === 'Escape') clear();
    else {
      const next = moved(event.key, at, tokens, unit(), view.besides);
      if (next < 0) return;
      point(next);
      if (event.shiftKey) choose(tokens.unitAt(unit(), next), true);
    }
    event.preventDefault();
    event.stopPropagation();
  });
}
