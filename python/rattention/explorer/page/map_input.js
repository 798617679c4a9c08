/** Moving about the map: wheel, pinch, drag, double click, keys; Shift and drag brushes. */

/** A view zoomed by `factor` about (row, key), within n tokens; never fewer than `least` of them. */
function zoomed([a, b, c, d], factor, row, key, n, least = 4) {
  const span = (low, high, about) => {
    const size = Math.min(n, Math.max(Math.min(least, n), (high - low) * factor));
    const start = about - ((about - low) / (high - low)) * size;
    const from = Math.min(Math.max(0, start), n - size);
    return [from, from + size];
  };
  return [...span(a, b, row), ...span(c, d, key)];
}

/** A view moved by rows and keys, kept within n tokens. */
function panned([a, b, c, d], rows, keys, n) {
  const y = Math.min(Math.max(rows, -a), n - b);
  const x = Math.min(Math.max(keys, -c), n - d);
  return [a + y, b + y, c + x, d + x];
}

const KEYS = { ArrowUp: [-0.15, 0], ArrowDown: [0.15, 0], ArrowLeft: [0, -0.15], ArrowRight: [0, 0.15] };

/** The view after a key; null where the key means nothing. */
export function keyed(key, view, n) {
  const [rows, keys] = [view[1] - view[0], view[3] - view[2]];
  const [row, col] = [(view[0] + view[1]) / 2, (view[2] + view[3]) / 2];
  if (key === '+' || key === '=') return zoomed(view, 0.6, row, col, n);
  if (key === '-' || key === '_') return zoomed(view, 1 / 0.6, row, col, n);
  if (key === '0' || key === 'Home') return [0, n, 0, n];
  return KEYS[key] ? panned(view, KEYS[key][0] * rows, KEYS[key][1] * keys, n) : null;
}

/** Two fingers or one: what they did since the last event. */
function createFingers() {
  const fingers = new Map();
  const middle = () => {
    const points = [...fingers.values()];
    const x = points.reduce((sum, p) => sum + p.x, 0) / points.length;
    const y = points.reduce((sum, p) => sum + p.y, 0) / points.length;
    const apart = points.length > 1 ? Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) : 0;
    return { x, y, apart };
  };
  const set = (event) => fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  const drop = (event) => fingers.delete(event.pointerId);
  return { set, drop, middle, has: (event) => fingers.has(event.pointerId), count: () => fingers.size };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Object} map get(), set(view), place(x, y) -> [row, key], per() -> tokens per pixel [rows, keys], n,
 *   hover(x, y), leave(), brush(from, to, done), pick(x, y), centre() picks the middle, tell() says what is shown
 */
export function listenMap(canvas, map) {
  const fingers = createFingers();
  let [before, start, brushing, travelled] = [null, null, false, 0];

  const zoomAt = (x, y, factor) => map.set(zoomed(map.get(), factor, ...map.place(x, y), map.n));
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    zoomAt(
      event.offsetX,
      event.offsetY,
      Math.exp(Math.max(-0.5, Math.min(0.5, pixels * (event.ctrlKey ? 0.01 : 0.0022)))),
    );
  }, { passive: false });

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event);
    before = fingers.middle();
    start = before;
    travelled = 0;
    brushing = event.shiftKey;
  });

  function drag(event) {
    fingers.set(event);
    const now = fingers.middle();
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (brushing) map.brush(start, now, false);
    else {
      const [rows, keys] = map.per();
      map.set(panned(map.get(), (before.y - now.y) * rows, (before.x - now.x) * keys, map.n));
      if (before.apart && now.apart) zoomAt(now.x, now.y, before.apart / now.apart);
    }
    before = now;
  }

  canvas.addEventListener('pointermove', (event) => {
    if (fingers.has(event)) drag(event);
    else map.hover(event.offsetX, event.offsetY);
  });
  const release = (event) => {
    if (!fingers.has(event)) return;
    fingers.drop(event);
    if (fingers.count()) {
      before = fingers.middle();
      return;
    }
    if (brushing) map.brush(start, before, true);
    else if (travelled < 4 && event.type === 'pointerup') map.pick(event.offsetX, event.offsetY);
    brushing = false;
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('pointerleave', () => map.leave());
  canvas.addEventListener('dblclick', (event) => zoomAt(event.offsetX, event.offsetY, event.shiftKey ? 2.5 : 0.4));
  canvas.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const view = keyed(event.key, map.get(), map.n);
    if (event.key === 'Enter') map.centre();
    else if (!view) return;
    event.preventDefault();
    event.stopPropagation();
    if (view) map.set(view);
    map.tell();
  });
}
