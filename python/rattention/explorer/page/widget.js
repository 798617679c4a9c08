/** Entry of the notebook's widget (anywidget). The model's trait `sheet` holds the text of style.css. */

import { mount } from './app.js';
import { createKernel } from './sources/widget.js';

/** @param {{model: Object, el: HTMLElement}} host @returns {() => void} */
export function render({ model, el }) {
  const shadow = el.attachShadow({ mode: 'open' });
  const style = document.createElement('style');
  style.textContent = model.get('sheet') ?? '';
  const root = document.createElement('main');
  root.className = 'in-notebook';
  shadow.append(style, root);
  return mount(root, createKernel(model));
}

export default { render };
