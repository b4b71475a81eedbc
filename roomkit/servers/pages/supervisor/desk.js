/** Below the transcript: writing to the customer, to colleagues, or to the AI. */
import { Icon } from "../shared/icons.js";
import { html, signal, useEffect, useRef, useState } from "../shared/lib.js";
import { newId } from "../shared/room_client.js";
import { act, bindings, brains, client, iHold, isOpen, people, personToken, room } from "./model.js";

/** @type {[string, string, string, string][]} */
const MODES = [
  ["reply", "Reply", "send", "Write to everyone in the room"],
  ["whisper", "Whisper", "whisper", "Seen only by the channel or person you choose"],
  ["note", "Note", "note", "Seen by staff only"],
  ["draft", "Draft", "pencil", "A reply that waits for approval"],
];
export const writing = signal("reply");
export const deskBox = { focus: () => {} };

export function Desk() {
  const box = useRef(/** @type {any} */ (null));
  const [text, setText] = useState("");
  const [to, setTo] = useState("");
  const [busy, setBusy] = useState(false);
  const attempt = useRef({ what: "", id: "" });
  const now = room.value;
  /** @type {[string, string][]} */
  const targets = [
    ...[...brains.value, ...bindings.value.filter((one) => one.category !== "intelligence")].map((one) => /** @type {[string, string]} */ ([one.channel_id, one.channel_id])),
    ...people.value.filter((one) => one.status === "active" && one.role !== "bot").map((one) => /** @type {[string, string]} */ ([personToken(one.id), `${one.display_name || one.address || one.id} alone`])),
  ];
  const target = targets.some(([value]) => value === to) ? to : targets[0]?.[0] ?? "";
  const targetName = targets.find(([value]) => value === target)?.[1] ?? "";
  useEffect(() => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight, 180)}px`;
  }, [text]);
  useEffect(() => { deskBox.focus = () => box.current?.focus(); }, []);
  if (!now) return null;
  const mode = writing.value;
  const closed = !isOpen(now) && mode !== "note";

  const send = async () => {
    const words = text.trim();
    if (!words || busy || closed) return;
    if (mode === "reply") {
      client.send({ type: "text", text: words });
      client.typing(false);
      return setText("");
    }
    // The same words again after a lost answer are the same attempt: the server then answers with what it has.
    const what = JSON.stringify([now.id, mode, mode === "whisper" && target, words]);
    if (attempt.current.what !== what) attempt.current = { what, id: newId() };
    const body = { text: words, client_id: attempt.current.id };
    box.current.focus(); // now and not when it has worked: whoever has left by then has left
    setBusy(true);
    const told = mode === "note" ? await act("POST", "notes", body, "Note added")
      : mode === "draft" ? await act("POST", "drafts", body, "Draft kept for approval")
      : await act("POST", "whisper", { ...body, to: target }, `Whispered to ${targetName}`);
    setBusy(false);
    if (told) {
      attempt.current.what = "";
      setText("");
    }
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void send();
  };
  const choose = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[/** @type {"ArrowUp"} */ (event.key)];
    if (!by) return;
    event.preventDefault();
    const at = (MODES.findIndex(([name]) => name === mode) + by + MODES.length) % MODES.length;
    writing.value = MODES[at][0];
    /** @type {any} */ (event.currentTarget).children[at].focus();
  };
  const placeholder = closed ? "This room is closed: reopen it to write" : mode === "whisper" ? `Only ${targetName.replace(/ alone$/, "") || "the channel"} sees this` : MODES.find(([name]) => name === mode)?.[3];
  return html`<form class="desk ${mode}" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); void send(); }}>
    <div class="desk-top">
      <div class="modes" role="radiogroup" aria-label="What to write" onKeyDown=${choose}>${MODES.map(([name, label, icon, title]) => html`<button type="button" role="radio" key=${name} aria-checked=${mode === name} tabindex=${mode === name ? 0 : -1} title=${title} onClick=${() => { writing.value = name; box.current.focus(); }}><${Icon} name=${icon} size=${15} />${label}</button>`)}</div>
      ${mode === "whisper" && html`<label class="to">to <select value=${target} onChange=${(/** @type {any} */ event) => setTo(event.target.value)}>${targets.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></label>`}
      ${mode === "reply" && !iHold.value && now.floor.mode === "ai" && html`<span class="hint">The AI answers here too. Take over to answer alone.</span>`}
    </div>
    <div class="desk-line">
      <textarea ref=${box} rows="1" value=${text} disabled=${closed} placeholder=${placeholder} aria-label=${placeholder} onKeyDown=${keys}
        onInput=${(/** @type {any} */ event) => { setText(event.target.value); if (mode === "reply") client.typing(event.target.value !== ""); }}></textarea>
      <button class="button primary" disabled=${!text.trim() || busy || closed}>${{ reply: "Send", note: "Add note", whisper: "Whisper", draft: "Keep draft" }[/** @type {"note"} */ (mode)]}</button>
    </div>
  </form>`;
}
