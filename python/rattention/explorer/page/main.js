/** Entry of the page: from a server, or from what the page itself holds. */

import { mount } from './app.js';
import { createLive } from './sources/live.js';
import { createOffline } from './sources/offline.js';

const source = document.querySelector('script[data-ask]') ? createOffline(document) : createLive();
/** A page within another (srcdoc) has no address of its own. */
const useAddress = location.protocol !== 'about:';
mount(document.querySelector('main'), source, { useAddress });
