/** The wire format of answers: header length, header (JSON), arrays. */

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array };

/** @typedef {{data: Float32Array|Int32Array|Uint8Array|Uint16Array, shape: number[]}} Numbers */

function view(buffer, base, name, { dtype, shape, offset, length }) {
  const Kind = KINDS[dtype];
  if (!Kind) throw new Error(`array ${name} has the type ${dtype}, which this page does not know`);
  const at = base + offset;
  if (at + length * Kind.BYTES_PER_ELEMENT > buffer.byteLength) throw new Error(`array ${name} is cut short`);
  const aligned = at % Kind.BYTES_PER_ELEMENT === 0;
  const data = aligned ? new Kind(buffer, at, length) : new Kind(buffer.slice(
    at,
    at + length * Kind.BYTES_PER_ELEMENT,
  ));
  return { data, shape };
}

/**
 * Decode an answer.
 * @param {ArrayBuffer} buffer
 * @returns {Object} its values, and {@link Numbers} by the names of its arrays
 */
export function decode(buffer) {
  if (buffer.byteLength < 4) throw new Error('the answer is empty');
  const length = new DataView(buffer).getUint32(0, true);
  if (4 + length > buffer.byteLength) throw new Error('the answer is cut short');
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return unpack(header.values, header.arrays, buffer, 4 + length);
}

/** The same from a header that came apart from its arrays (`base`: where they begin in the buffer). */
export function unpack(values, arrays, buffer, base = 0) {
  const answer = { ...values };
  for (const [name, about] of Object.entries(arrays ?? {})) answer[name] = view(buffer, base, name, about);
  return answer;
}

/** `layer=mean&head=3`, names sorted: the name of an answer. */
export function query(params = {}) {
  return Object.keys(params)
    .sort()
    .map((name) => `${name}=${[params[name]].flat().join(',')}`)
    .join('&');
}
