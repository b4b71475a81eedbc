/**
 * The token of this tab. It arrives in the address's fragment, which is never sent to a server, and leaves the address bar at once.
 */
const KEY = "roomkit.token";

/** @returns {{token: string | null, room: string | null}} */
export function session() {
  const told = new URLSearchParams(location.hash.slice(1));
  const token = told.get("token");
  const room = told.get("room");
  if (token) sessionStorage.setItem(KEY + pageName(), token);
  if (room) sessionStorage.setItem(`roomkit.room${pageName()}`, room);
  if (token || room) history.replaceState(null, "", location.pathname + location.search);
  return { token: currentToken(), room: sessionStorage.getItem(`roomkit.room${pageName()}`) };
}

export const currentToken = () => sessionStorage.getItem(KEY + pageName());

/** @param {string | null} token */
export function setToken(token) {
  if (token) sessionStorage.setItem(KEY + pageName(), token);
  else sessionStorage.removeItem(KEY + pageName());
}

/** Both pages may be open in one tab, one after the other: each keeps its own token. */
const pageName = () => `.${document.documentElement.dataset.page ?? "page"}`;
