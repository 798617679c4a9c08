/** Answers from the server that gave this page. */

import { decode, query } from '../wire.js';

const HEADERS = { 'X-Explorer': '1' };

async function refusal(response) {
  try {
    return (await response.json()).error || `the server answered ${response.status}`;
  } catch {
    return `the server answered ${response.status}`;
  }
}

async function fetched(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('the server cannot be reached');
  }
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

function post(path, body) {
  const headers = { ...HEADERS, 'Content-Type': 'application/json' };
  return fetched(path, { method: 'POST', headers, body: JSON.stringify(body) });
}

/** A source: `ask(question, params, signal)` and what else a server can do. */
export function createLive() {
  let reading = ''; // which text the page shows: the server refuses questions about one that it has no longer
  const ask = async (question, params, signal) => {
    const text = query(params);
    const headers = { ...HEADERS, 'X-Reading': reading };
    const response = await fetched(`api/${question}${text ? `?${encodeURI(text)}` : ''}`, { headers, signal });
    const answer = decode(await response.arrayBuffer());
    if (question === 'document') reading = answer.reading;
    return answer;
  };
  return {
    ask,
    turn: (text) => post('api/turn', { text }),
    open: (what) => post('api/open', what),
    cancel: () => post('api/cancel', {}),
  };
}
