/** What is seen, as a picture; the numbers behind it, as a table. */

import { h } from './dom.js';
import { createRecorder, png } from './scene.js';
import { drawText, mapNumbers, table, textNumbers } from './export.js';

function save(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h('a', { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function picture(kind, name, { width, height, draw }, paper) {
  if (kind === 'png') return save(`${name}.png`, await png(width, height, paper, draw));
  const { g, svg } = createRecorder();
  draw(g);
  return save(`${name}.svg`, svg(width, height, paper), 'image/svg+xml');
}

/** All maps side by side. */
function mapPicture(context) {
  const shown = context.panes.map.views().map((view) => view.shown());
  const width = shown.reduce((sum, one) => sum + one.size[0], 0);
  const draw = (g) => {
    g.save();
    for (const one of shown) {
      one.drawInto(g);
      g.translate(one.size[0], 0);
    }
    g.restore();
  };
  return { width, height: shown[0].size[1], draw };
}

const ACTIONS = {
  text: (context) => ({ picture: () => drawText(context), numbers: () => textNumbers(context) }),
  map: (context) => ({ picture: () => mapPicture(context), numbers: () => mapNumbers(context) }),
};

/** @param {Object} context */
export function exportMenu(context) {
  const act = async (what, kind) => {
    node.open = false;
    const { picture: draw, numbers } = ACTIONS[what](context);
    const name = `attention-${what}`;
    await context.ui.attempt(async () => {
      if (kind === 'csv') save(`${name}.csv`, table(numbers().rows), 'text/csv');
      else if (kind === 'json') save(`${name}.json`, JSON.stringify(numbers(), null, 1), 'application/json');
      else await picture(kind, name, draw(), context.ui.colour('--paper'));
    });
  };
  const row = (what, label) =>
    h(
      'div',
      { class: 'export-row' },
      h('span', {}, label),
      ['png', 'svg', 'csv', 'json'].map((kind) => h(
        'button',
        {
          type: 'button',
          class: 'plain',
          'aria-label': `${label} as ${kind.toUpperCase()}`,
          onclick: () => act(what, kind),
        },
        kind.toUpperCase(),
      )),
    );
  const node = h(
    'details',
    { class: 'menu', 'aria-label': 'Export' },
    h('summary', { class: 'plain' }, 'export'),
    h('div', { class: 'menu-body' }, row('text', 'Text'), row('map', 'Map'), context.canShare && share(context)),
  );
  node.addEventListener('focusout', (event) => {
    if (!node.contains(event.relatedTarget)) node.open = false;
  });
  return node;
}

function share(context) {
  const copy = async () => {
    const done = await context.ui.attempt(() => navigator.clipboard.writeText(location.href));
    if (done) context.ui.note('Link copied');
  };
  return h(
    'div',
    { class: 'export-row' },
    h('span', {}, 'This view'),
    h('button', { type: 'button', class: 'plain', onclick: copy }, 'copy link'),
  );
}
