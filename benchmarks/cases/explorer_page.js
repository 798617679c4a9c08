// Put into the explorer's page before its own modules: what a hand does, and when all it led to has been drawn.

let open = 0;
let changed = 0;
const answered = new Map(); // question to the time of its last answer
const fetched = globalThis.fetch;
globalThis.fetch = async (...given) => {
  open++;
  changed = performance.now();
  try {
    const response = await fetched(...given);
    const read = response.arrayBuffer.bind(response);
    open++;
    response.arrayBuffer = async () => {
      try {
        return await read();
      } finally {
        open--;
        changed = performance.now();
        answered.set(new URL(response.url).pathname, changed);
      }
    };
    return response;
  } finally {
    open--;
    changed = performance.now();
  }
};

/** Waits for the next frame, until it is drawn; gives the time when it began. */
const frame = () => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn, 0, performance.now())));

// The map asks 20 ms after the last move: as long as that may come, the page is not at rest.
const PAUSE = 40;
// The place in the text goes into the address half a second after it was scrolled; nobody clicks before that.
const REST = 600;

/** Waits until nothing is open, for a pause (milliseconds); gives the time after the frame that drew the last change. */
globalThis.settled = async (pause = PAUSE) => {
  await frame();
  let drawn = performance.now();
  for (;;) {
    await frame();
    const now = performance.now();
    if (open > 0 || changed > drawn) drawn = now;
    else if (now - drawn > pause) return drawn;
  }
};

/** Milliseconds from an action until all it led to has been drawn. */
globalThis.timed = async (act) => {
  await settled();
  const begin = performance.now();
  act();
  return (await settled()) - begin;
};

/** Milliseconds from an action until the answer to the question that counts has been drawn; until the next frame where
 * it was known, and nothing is asked. */
globalThis.timedUntil = async (question, act) => {
  await settled();
  const begin = performance.now();
  act();
  let began = await frame();
  const known = performance.now();
  while (!(answered.get(question) >= begin && answered.get(question) <= began)) {
    if (open === 0 && began - known > PAUSE) return known - begin;
    began = await frame();
  }
  return performance.now() - begin;
};

const map = () => document.querySelector('canvas.map');
const happens = { bubbles: true, cancelable: true };

globalThis.turnWheel = (clientX, clientY, deltaY) =>
  map().dispatchEvent(new WheelEvent('wheel', { ...happens, clientX, clientY, deltaY }));

globalThis.pressOnMap = (key) => map().dispatchEvent(new KeyboardEvent('keydown', { ...happens, key }));

/** Shows a share of the text, and waits. */
globalThis.scrollText = async (share) => {
  const scroller = document.querySelector('.scroller');
  scroller.scrollTop = share * (scroller.scrollHeight - scroller.clientHeight);
  await settled(REST);
};

/** A click on the token in the middle of what is shown. */
globalThis.tokenClick = () => {
  const { left, top, width, height } = document.querySelector('.scroller').getBoundingClientRect();
  const shown = [...document.querySelectorAll('.token')];
  const away = (token) => {
    const box = token.getBoundingClientRect();
    return Math.hypot(box.left - left - width / 2, box.top - top - height / 2);
  };
  const token = shown.reduce((one, other) => (away(other) < away(one) ? other : one));
  const press = { ...happens, button: 0, pointerType: 'mouse' };
  return () => ['pointerdown', 'pointerup'].forEach((kind) => token.dispatchEvent(new PointerEvent(kind, press)));
};
