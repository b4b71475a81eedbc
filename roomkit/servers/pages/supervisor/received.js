/** What each channel got of a message: its words as they left, in their parts. */
import { api, roomPath } from "../shared/api.js";
import { ContentView } from "../shared/content.js";
import { channelIcon, Icon } from "../shared/icons.js";
import { html, useEffect, useState } from "../shared/lib.js";

/** @param {{event: any, roomId: string, deliveries: import("../shared/types.js").Delivery[]}} props */
export function Received({ event, roomId, deliveries }) {
  const [told, setTold] = useState(/** @type {any[] | null} */ (null));
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let away = false;
    api("GET", roomPath(roomId, `events/${encodeURIComponent(event.id)}/shown`)).then(
      (answer) => { if (!away) setTold(answer.shown); },
      (error) => { if (!away) setTrouble(error.message); },
    );
    return () => { away = true; };
  }, [event.id, roomId]);
  if (trouble) return html`<p class="received-trouble">${trouble}</p>`;
  if (!told) return null;
  return html`<ul class="received" aria-label="What each channel received">${told.map((one) => {
    const delivery = deliveries.find((known) => known.channel_id === one.channel_id);
    return html`<li key=${one.channel_id} data-channel=${one.channel_id}>
      <p class="received-how"><${Icon} name=${channelIcon(one.channel_type)} size=${13} /><b>${one.channel_id}</b><span>${how(one, delivery)}</span></p>
      ${one.same ? null : html`<ol>${one.parts.map((/** @type {any} */ part, /** @type {number} */ number) => html`<li key=${number}><${ContentView} content=${part} roomId=${roomId} /></li>`)}</ol>`}
    </li>`;
  })}</ul>`;
}

/** In words. @param {any} one @param {import("../shared/types.js").Delivery | undefined} delivery */
function how(one, delivery) {
  if (!one.count) return one.reason === "nothing_to_show_here" ? "cannot show this" : one.reason || "nothing";
  const details = /** @type {any} */ (delivery)?.details ?? {};
  const segments = (details.segments ?? []).reduce((/** @type {number} */ sum, /** @type {number} */ count) => sum + count, 0);
  return [
    one.same ? "as written" : "changed for this channel",
    one.count > 1 && `${one.count} parts`,
    segments > 1 && `${segments} segments`,
    details.via && details.via !== one.channel_type && `by ${details.via}`,
  ].filter(Boolean).join(" · ");
}
