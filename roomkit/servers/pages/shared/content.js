/** Any content of a message, as both pages show it. */
import { Icon } from "./icons.js";
import { html, useEffect, useState } from "./lib.js";
import { mediaLink } from "./api.js";
import { fileSize, wordsOf } from "./format.js";
import { richText } from "./rich_text.js";

/** @param {{content: any, roomId: string, growing?: boolean}} props */
export function ContentView({ content, roomId, growing = false }) {
  switch (content.type) {
    case "text":
    case "rich":
      return html`<div class=${growing ? "prose growing" : "prose"}>${richText(content.text ?? "")}<${Choices} content=${content} /></div>`;
    case "composite":
      return html`<div class="prose">${content.parts.map((/** @type {any} */ part) => html`<${ContentView} content=${part} roomId=${roomId} />`)}</div>`;
    case "media":
    case "audio":
    case "video":
      return html`<${Media} content=${content} roomId=${roomId} />`;
    case "location":
      return html`<div class="file"><${Icon} name="place" /><span><b>${content.label ?? "A place"}</b><small>${content.address ?? `${content.latitude.toFixed(5)}, ${content.longitude.toFixed(5)}`}</small></span></div>`;
    case "template":
      return html`<div class="prose"><p>${content.fallback ?? `Template ${content.template_id}`}</p></div>`;
    default:
      return html`<div class="prose"><p>${wordsOf(content) || `(${content.kind ?? content.type})`}</p></div>`;
  }
}

/** @param {{content: any}} props */
function Choices({ content }) {
  const labels = [...(content.buttons ?? []).map((/** @type {any} */ one) => one.label), ...(content.quick_replies ?? [])];
  return labels.length ? html`<p class="choices">${labels.join(" · ")}</p>` : null;
}

/** Where a link leads, if it leads anywhere a page may go: what anybody can write may be no address at all, or a script.
 * @param {string} href @returns {URL | null} */
function address(href) {
  try {
    const url = new URL(href, location.href);
    return ["http:", "https:"].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/** @param {{content: any, roomId: string}} props */
function Media({ content, roomId }) {
  const [href, setHref] = useState(/** @type {string | null} */ (null));
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let here = true;
    mediaLink(roomId, content.url).then((link) => here && (address(link) ? setHref(link) : setFailed(true)), () => here && setFailed(true));
    return () => { here = false; };
  }, [content.url]);
  const name = content.filename ?? content.caption ?? content.mime_type;
  // Only this server's own files are shown in the page: a picture from elsewhere would tell its host who looks at it.
  const ours = href !== null && address(href)?.origin === location.origin;
  if (content.mime_type.startsWith("image/") && !failed && (href === null || ours)) {
    return html`<figure class="media">
      <a class="frame" href=${href} target="_blank" rel="noopener">
        ${href ? html`<img src=${href} alt=${content.caption ?? content.filename ?? "Picture"} loading="lazy" onError=${() => setFailed(true)} />` : html`<${Icon} name="image" size=${28} />`}
      </a>
      ${content.caption && html`<figcaption>${content.caption}</figcaption>`}
    </figure>`;
  }
  if (content.type === "audio" && ours) return html`<audio controls src=${href} preload="metadata"></audio>`;
  return html`<a class="file" href=${href ?? undefined} target="_blank" rel="noopener noreferrer">
    <${Icon} name=${failed ? "warning" : "file"} />
    <span><b>${name}</b><small>${failed ? "not available any more" : [fileSize(content.size_bytes), content.mime_type].filter(Boolean).join(" · ")}</small></span>
  </a>`;
}
