/** Another text: an example or what one pastes. */

import { h } from './dom.js';

/** @param {Object} context */
export function openDialog(context) {
  const { data, source, ui } = context;
  const box = h('textarea', { rows: 9, 'aria-label': 'Text', placeholder: 'Paste a text' });
  const example = ({ id, title, about }) =>
    h(
      'button',
      { type: 'button', class: 'example', onclick: () => open({ example: id }) },
      h('b', {}, title),
      h('span', { class: 'quiet' }, about ?? ''),
    );
  const examples = data.doc.examples ?? [];
  const cancel = h('button', { type: 'button', class: 'plain', onclick: () => node.close() }, 'cancel');
  const explore = h('button', { type: 'submit', class: 'primary' }, 'Explore this text');
  const form = h('form', { onsubmit: submit }, box, h('div', { class: 'row' }, cancel, explore));
  const node = h(
    'dialog',
    { 'aria-label': 'Open a text' },
    h('h2', {}, 'Open a text'),
    examples.length > 0 && h('div', { class: 'examples' }, examples.map(example)),
    form,
  );

  function submit(event) {
    event.preventDefault();
    if (box.value.trim()) open({ text: box.value });
  }

  async function open(what) {
    node.close();
    if (await ui.during(() => source.open(what))) context.reload({ fresh: true });
  }
  return { node, show: () => node.showModal() };
}
