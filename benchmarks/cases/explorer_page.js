// Put into the explorer's page before its own modules: what a hand does, and when all it led to has been drawn.

let open = 0;
let changed = 0;
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
      }
    };
    return response;
  } finally {
    open--;
    changed = performance.now();
  }
};

const frame = () => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));

// The map asks 20 ms after the last move: as long as that may come, the page is not at rest.
const PAUSE = 40;

/** Waits until nothing is open, for a pause; gives the time after the frame that drew the last change. */
globalThis.settled = async () => {
  await frame();
  let drawn = performance.now();
  for (;;) {
    await frame();
    const now = performance.now();
    if (open > 0 || changed > drawn) drawn = now;
    else if (now - drawn > PAUSE) return drawn;
  }
};

/** Milliseconds from an action until all it led to has been drawn. */
globalThis.timed = async (act) => {
  await settled();
  const begin = performance.now();
  act();
  return (await settled()) - begin;
};

const map = () => document.querySelector('canvas.map');
const happens = { bubbles: true, cancelable: true };

globalThis.turnWheel = (clientX, clientY, deltaY) =>
  map().dispatchEvent(new WheelEvent('wheel', { ...happens, clientX, clientY, deltaY }));

globalThis.pressOnMap = (key) => map().dispatchEvent(new KeyboardEvent('keydown', { ...happens, key }));

/** Shows a share of the text. */
globalThis.scrollText = async (share) => {
  const scroller = document.querySelector('.scroller');
  scroller.scrollTop = share * (scroller.scrollHeight - scroller.clientHeight);
  await settled();
};

/** Clicks on the token in the middle of what is shown. */
globalThis.clickToken = () => {
  const { left, top, width, height } = document.querySelector('.scroller').getBoundingClientRect();
  const shown = [...document.querySelectorAll('.token')];
  const away = (token) => {
    const box = token.getBoundingClientRect();
    return Math.hypot(box.left - left - width / 2, box.top - top - height / 2);
  };
  const token = shown.reduce((one, other) => (away(other) < away(one) ? other : one));
  const press = { ...happens, button: 0, pointerType: 'mouse' };
  for (const kind of ['pointerdown', 'pointerup']) token.dispatchEvent(new PointerEvent(kind, press));
};
