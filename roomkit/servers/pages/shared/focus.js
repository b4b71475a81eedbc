/** Whoever works with the keyboard goes on where they were: what they pressed is often gone once it has worked. */
const PLACES = "button, select, summary, a[href], [tabindex]";
const PATIENCE = 1000;

/** @param {HTMLElement} one */
const there = (one) => one.isConnected && one.checkVisibility();
/** @param {HTMLElement} one */
const usable = (one) => there(one) && one.tabIndex >= 0 && !(/** @type {any} */ (one).disabled);

/** Puts the focus back, or as near as it can: never into a text, where keys that were shortcuts would be words. */
export function keepFocus() {
  /** @type {HTMLElement | null} */
  let last = null;
  /** @type {HTMLElement[]} */
  let around = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let looking;
  /** @type {number | null} Since when the place is there, but of no use: something is under way. */
  let idle = null;
  const look = () => {
    looking = undefined;
    if (!last || document.activeElement !== document.body) return;
    if (usable(last)) {
      if (idle === null) last = null; // left on purpose
      else last.focus({ preventScroll: true });
      return;
    }
    idle ??= Date.now();
    if (there(last) && Date.now() - idle < PATIENCE) return soon();
    const near = around.filter((one) => one.isConnected).flatMap((one) => [.../** @type {NodeListOf<HTMLElement>} */ (one.querySelectorAll(PLACES))].find(usable) ?? []);
    last = null;
    near[0]?.focus({ preventScroll: true });
  };
  const soon = () => { looking ??= setTimeout(look, 60); };
  document.addEventListener("focusin", (event) => {
    last = /** @type {HTMLElement} */ (event.target);
    idle = null;
    around = [];
    for (let up = last.parentElement; up && up !== document.body; up = up.parentElement) around.push(up);
  });
  document.addEventListener("focusout", () => {
    if (last && !usable(last)) idle ??= Date.now();
    soon();
  });
  new MutationObserver(() => { if (last) soon(); }).observe(document.body, { subtree: true, childList: true, attributeFilter: ["disabled", "class"] });
}
