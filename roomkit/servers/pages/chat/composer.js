/** Writing: grows with its text, sends with Enter, takes files from the button, the clipboard or a drop. */
import { upload } from "../shared/api.js";
import { fileSize } from "../shared/format.js";
import { Icon } from "../shared/icons.js";
import { html, useEffect, useRef, useState } from "../shared/lib.js";
import { CallButton, CallStrip } from "./call.js";
import { client, limits, liveliness, mode } from "./model.js";

const MAX_FILE = 25 * 1024 ** 2;

export function Composer() {
  const box = useRef(/** @type {any} */ (null));
  const picker = useRef(/** @type {any} */ (null));
  const draft = `roomkit.draft.${client.roomId}`;
  const [text, shownText] = useState(() => sessionStorage.getItem(draft) ?? "");
  /** What is half written survives a reload, as what is sent does. @param {string} words */
  const setText = (words) => {
    if (words) sessionStorage.setItem(draft, words);
    else sessionStorage.removeItem(draft);
    shownText(words);
  };
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [trouble, setTrouble] = useState("");
  const [busy, setBusy] = useState(false);
  const closed = mode.value === "closed";
  const tooLarge = file !== null && file.size > MAX_FILE;

  useEffect(() => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight, 160)}px`;
  }, [text]);
  useEffect(() => box.current?.focus({ preventScroll: true }), []);
  useEffect(() => {
    const dropped = (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      if (event.type === "drop") take(event.dataTransfer?.files?.[0]);
    };
    addEventListener("dragover", dropped);
    addEventListener("drop", dropped);
    return () => { removeEventListener("dragover", dropped); removeEventListener("drop", dropped); };
  }, []);

  const written = (/** @type {any} */ event) => {
    setText(event.target.value);
    client.typing(event.target.value.trim() !== "");
  };
  const take = (/** @type {File | undefined} */ chosen) => {
    if (!chosen) return;
    setTrouble("");
    setFile(chosen);
    box.current.focus();
  };
  const send = async () => {
    const words = text.trim();
    if (busy || closed || tooLarge || tooLong || (!words && !file)) return;
    if (file) {
      setBusy(true);
      setTrouble("");
      try {
        const content = await upload(client.roomId ?? "", file);
        client.send(words ? { ...content, caption: words } : content);
      } catch (error) {
        setBusy(false);
        return setTrouble(/** @type {Error} */ (error).message);
      }
      setBusy(false);
      setFile(null);
    } else client.send({ type: "text", text: words });
    setText("");
    client.typing(false);
    box.current.focus();
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void send();
  };
  const most = limits.value.text_chars ?? 8000;
  const length = [...text].length;
  const tooLong = length > most;

  return html`<footer class="bottom">
    <${CallStrip} roomId=${client.roomId} />
    <${Typing} />
    ${file && html`<${Attached} file=${file} busy=${busy} trouble=${tooLarge ? `too large (at most ${fileSize(MAX_FILE)})` : trouble} remove=${() => { setFile(null); setTrouble(""); }} />`}
    <form class="composer" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); void send(); }}>
      <button type="button" class="icon-button" aria-label="Attach a file" title="Attach a file" disabled=${closed || busy} onClick=${() => picker.current.click()}><${Icon} name="attach" /></button>
      <input type="file" hidden ref=${picker} accept="image/*,audio/*,video/*,application/pdf,text/plain" onChange=${(/** @type {any} */ event) => { take(event.target.files[0]); event.target.value = ""; }} />
      <textarea ref=${box} rows="1" value=${text} disabled=${closed} onInput=${written} onKeyDown=${keys} onBlur=${() => client.typing(false)}
        onPaste=${(/** @type {ClipboardEvent} */ event) => take(event.clipboardData?.files?.[0])}
        placeholder=${closed ? "This conversation is closed" : "Write a message"} aria-label="Write a message" enterkeyhint="send" autocomplete="off"></textarea>
      <${CallButton} roomId=${client.roomId} disabled=${closed} />
      <button type="submit" class="icon-button send" aria-label="Send" title="Send" disabled=${closed || busy || tooLong || tooLarge || (!text.trim() && !file)}><${Icon} name="send" /></button>
    </form>
    <div class="below">${length > most * 0.8 ? html`<span role="status">${length} of ${most} characters</span>` : html`<span class="keys">Enter sends · Shift + Enter starts a new line</span>`}</div>
  </footer>`;
}

function Typing() {
  const words = liveliness();
  return html`<div class="typing" aria-live="off">${words && html`<span class="dots"><i></i><i></i><i></i></span><span>${words}…</span>`}</div>`;
}

/** @param {{file: File, busy: boolean, trouble: string, remove: () => void}} props */
function Attached({ file, busy, trouble, remove }) {
  const canvas = useRef(/** @type {any} */ (null));
  const picture = file.type.startsWith("image/");
  useEffect(() => {
    if (!picture) return;
    // Drawn rather than linked: the page's policy allows pictures of this server only.
    createImageBitmap(file).then((bitmap) => {
      const side = Math.min(bitmap.width, bitmap.height);
      const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
      canvas.current?.getContext("2d").drawImage(bitmap, x, y, side, side, 0, 0, 88, 88);
    }, () => undefined);
  }, [file]);
  return html`<div class="attached ${trouble ? "bad" : ""}">
    ${picture ? html`<canvas ref=${canvas} width="88" height="88" aria-hidden="true"></canvas>` : html`<${Icon} name="file" />`}
    <span><span>${file.name}</span><br /><small role="status">${trouble || (busy ? "Uploading…" : fileSize(file.size))}</small></span>
    <button class="icon-button" aria-label="Remove the file" disabled=${busy} onClick=${remove}><${Icon} name="close" size=${18} /></button>
  </div>`;
}
