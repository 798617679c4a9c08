/** Tiny helpers for the DOM. Document text only ever enters through text nodes. */

const SVG = 'http://www.w3.org/2000/svg';

function assign(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'class') node.setAttribute('class', value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
}

function fill(node, children) {
  for (const child of children.flat()) if (child != null && child !== false) node.append(child);
  return node;
}

/** An HTML element with attributes, listeners (`onclick`: ...) and children (nodes or text). */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  assign(node, properties);
  return fill(node, children);
}

/** An SVG element. */
export function s(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  assign(node, properties);
  return fill(node, children);
}

/** Replace what a node holds. */
export function replace(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

/** A row of exclusive choices: `choices` are [value, label, help]. */
export function segmented(label, choices, choose) {
  const buttons = choices.map(([value, text, help]) =>
    h(
      'button',
      { type: 'button', class: 'segment', title: help, 'aria-pressed': 'false', onclick: () => choose(value) },
      text,
    ),
  );
  const node = h('div', { class: 'segmented', role: 'group', 'aria-label': label }, buttons);
  return {
    node,
    show: (value) => choices.forEach(([own], i) => buttons[i].setAttribute('aria-pressed', own === value)),
  };
}

/** A select element: `choices` are [value, label]. */
export function select(label, choices, choose) {
  const options = choices.map(([value, text]) => h('option', { value }, text));
  return h('select', { 'aria-label': label, title: label, onchange: (event) => choose(event.target.value) }, options);
}

/** The font of an element, as canvases want it (the style's own `font` is empty where digits are tabular). */
export function fontOf(node) {
  const { fontStyle, fontWeight, fontSize, fontFamily } = getComputedStyle(node);
  return `${fontStyle} ${fontWeight} ${fontSize} ${fontFamily}`;
}

/** Size a canvas for the screen's pixels; returns its context in CSS pixels. */
export function sized(canvas, width, height) {
  const ratio = Math.min(globalThis.devicePixelRatio || 1, 2);
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Call `action` at most once per frame. */
export function perFrame(action) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      action();
    });
  };
}

/** Waits until what was changed is drawn; in a page that nobody sees, which draws nothing, for a moment. */
export const drawn = () => new Promise((done) => {
  requestAnimationFrame(() => setTimeout(done));
  setTimeout(done, 200);
});

/** Call `action` once what was changed is drawn: for what may be seen a frame later. */
export function afterDrawing(action) {
  let waiting = false;
  return async () => {
    if (waiting) return;
    waiting = true;
    await drawn();
    waiting = false;
    action();
  };
}

/** Call `action` once `delay` milliseconds have passed without another call. */
export function later(delay, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), delay);
  };
}
