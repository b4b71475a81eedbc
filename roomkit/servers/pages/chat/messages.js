/** The conversation: a log that stays where it is while words arrive. */
import { ContentView } from "../shared/content.js";
import { clockTime, dayName, initials } from "../shared/format.js";
import { Icon } from "../shared/icons.js";
import { html, once, useEffect, useLayoutEffect, useRef, useState } from "../shared/lib.js";
import { client, isAI, lines, nameOf, state } from "./model.js";

const NEAR = 90;

export function Log() {
  const log = useRef(/** @type {any} */ (null));
  const pinned = useRef(true);
  const seen = useRef({ first: "", height: 0, count: 0 });
  const [behind, setBehind] = useState(0);
  const shown = lines.value;

  useLayoutEffect(() => {
    const box = log.current;
    const first = state.value.events[0]?.id ?? "";
    if (pinned.current) box.scrollTop = box.scrollHeight;
    else if (first !== seen.current.first && seen.current.first) box.scrollTop += box.scrollHeight - seen.current.height;
    else if (shown.length > seen.current.count) setBehind(behind + shown.length - seen.current.count);
    seen.current = { first, height: box.scrollHeight, count: shown.length };
  }, [shown]);
  useEffect(() => {
    const settle = () => { if (pinned.current) log.current.scrollTop = log.current.scrollHeight; };
    const watch = new ResizeObserver(settle);
    watch.observe(log.current);
    watch.observe(log.current.firstElementChild);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    const last = state.value.position;
    if (last >= 0 && pinned.current && document.visibilityState === "visible") client.read(last);
  }, [state.value.position]);

  const scrolled = () => {
    const box = log.current;
    pinned.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    if (pinned.current && behind) setBehind(0);
    if (!pinned.current && !behind) setBehind(0.5);
    if (box.scrollTop < 60) client.older();
  };
  const latest = () => {
    pinned.current = true;
    log.current.scrollTo({ top: log.current.scrollHeight, behavior: "smooth" });
    setBehind(0);
  };
  return html`
    <div class="log" ref=${log} onScroll=${scrolled} role="log" aria-label="Conversation" aria-live="polite" aria-relevant="additions" tabindex="0">
      <ol>
        ${state.value.more && html`<li class="older" key="older"><button class="button quiet" onClick=${() => client.older()}>Earlier messages</button></li>`}
        ${shown.length ? shown.map((line) => once(line, null, () => html`<${Line} key=${line.key} line=${line} />`)) : html`<${Welcome} key="welcome" />`}
      </ol>
    </div>
    ${behind > 0 && html`<button class="button latest" onClick=${latest}><${Icon} name="down" size=${16} />${behind >= 1 ? `${Math.floor(behind)} new` : "Latest"}</button>`}`;
}

function Welcome() {
  return html`<li class="welcome"><span class="face ai"><${Icon} name="spark" size=${28} /></span>
    <h2>How can we help?</h2>
    <p>An AI assistant answers at once. You can ask for a person at any time.</p></li>`;
}

/** @param {{line: any}} props */
function Line({ line }) {
  if (line.kind === "day") return html`<li class="day"><time>${dayName(line.at)}</time></li>`;
  if (line.kind === "told") return html`<li class="told ${line.tone}">${line.tone === "ai" && html`<${Icon} name="spark" size=${16} />`}${line.tone === "human" && html`<${Icon} name="person" size=${16} />`}<span>${line.words}</span></li>`;
  return html`<${Message} line=${line} />`;
}

/** @param {{line: any}} props */
function Message({ line }) {
  const { source, pending, growing, own } = line;
  const fresh = useRef(Date.now() - line.at < 4000);
  const name = own ? "You" : nameOf(source, line.event?.metadata);
  const classes = ["message", own && "own", line.first && "first", pending?.state, fresh.current && "new"].filter(Boolean).join(" ");
  const bare = line.content.type === "media" && line.content.mime_type.startsWith("image/") && !line.content.caption;
  const empty = growing && !line.content.text;
  return html`<li class=${classes} data-event=${line.event?.id ?? line.key} aria-busy=${growing ? "true" : undefined}>
    ${!own && line.first && html`<span class="face ${isAI(source) ? "ai" : "human"}" aria-hidden="true">${isAI(source) ? html`<${Icon} name="spark" size=${17} />` : initials(name)}</span>`}
    ${own || !line.first ? html`<span class="unseen">${name}:</span>` : html`<span class="name">${name}</span>`}
    <div class="body">
      <div class="bubble ${bare ? "bare" : ""}">
        ${line.deleted ? html`<span class="gone">Message deleted</span>`
          : empty ? html`<span class="dots" aria-label="writing"><i></i><i></i><i></i></span>`
          : html`<${ContentView} content=${line.content} roomId=${client.roomId} growing=${growing} />`}
      </div>
      ${Object.keys(line.reactions).length > 0 && html`<p class="reactions">${Object.entries(line.reactions).map(([emoji, people]) => `${emoji} ${people.length > 1 ? people.length : ""}`)}</p>`}
    </div>
    ${line.last && html`<${Foot} line=${line} />`}
  </li>`;
}

/** When it was said, and what became of our own words. @param {{line: any}} props */
function Foot({ line }) {
  const { pending } = line;
  if (line.growing) return html`<span class="when"></span>`;
  if (!pending) {
    const cut = ["interrupted", "cancelled", "error"].includes(line.event.metadata?.end_reason) ? " · stopped early" : "";
    return html`<span class="when"><time dateTime=${line.event.created_at}>${clockTime(line.at)}</time>${line.edited && " · edited"}${cut}${line.own && html`<${Icon} name="check" size=${13} /><span class="unseen">Sent</span>`}</span>`;
  }
  if (pending.state === "failed") {
    return html`<span class="when" role="alert">Not sent${pending.error ? `: ${pending.error}` : ""}
      <span class="retry"><button onClick=${() => client.retry(pending.client_id)}>Try again</button><button onClick=${() => client.discard(pending.client_id)}>Remove</button></span></span>`;
  }
  return html`<span class="when">${pending.state === "sent" ? "Sent" : "Sending…"}</span>`;
}
