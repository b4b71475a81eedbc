/** One door to the vendored libraries. */
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { h, render };
export { useState, useRef, useEffect, useLayoutEffect, useMemo, useId } from "../vendor/preact-hooks.js";
export { batch, computed, effect, signal } from "../vendor/signals.js";

/** The address below which everything lives, with a slash at the end: the server may be mounted under any prefix. */
export const root = () => new URL(import.meta.url.replace(/pages\/(~[^/]+\/)?shared\/[^/]*$/, ""));

/** @type {WeakMap<object, {of: unknown, made: any}>} */
const kept = new WeakMap();

/** What was made for `key` and `of` before, or made now: an element that is the same object is not compared again, so a
 * long log costs nothing while words arrive at its end.
 * @template T @param {object} key @param {unknown} of @param {() => T} make @returns {T} */
export function once(key, of, make) {
  const known = kept.get(key);
  if (known && known.of === of) return known.made;
  const made = make();
  kept.set(key, { of, made });
  return made;
}
