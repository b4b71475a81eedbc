/** One door to the vendored libraries. */
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { h, render };
export { useState, useRef, useEffect, useLayoutEffect, useMemo, useId } from "../vendor/preact-hooks.js";
export { batch, computed, effect, signal } from "../vendor/signals.js";

/** The address below which everything lives, with a slash at the end: the server may be mounted under any prefix. */
export const root = () => new URL("../../", import.meta.url);
