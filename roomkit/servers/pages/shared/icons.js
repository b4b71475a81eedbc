/** Line drawings, 24 by 24, in the colour of the text around them. */
import { h } from "./lib.js";

/** @type {Record<string, string>} */
const PATHS = {
  send: "M4.5 12 20 4.5 15 20l-3.5-6.5L4.5 12Zm7 1.5L20 4.5",
  attach: "m20 11.5-8.2 8.1a5 5 0 0 1-7.1-7.1l8.6-8.5a3.4 3.4 0 0 1 4.8 4.8l-8.6 8.4a1.7 1.7 0 0 1-2.4-2.4l7.6-7.5",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7.5 8.5c.8-3.6 3.9-5.5 7.5-5.5s6.7 1.9 7.5 5.5",
  spark: "M12 3.5c.6 4.8 3.2 7.6 8 8.5-4.8.9-7.4 3.7-8 8.5-.6-4.8-3.2-7.6-8-8.5 4.8-.9 7.4-3.7 8-8.5Z",
  down: "M12 5v14m-6-6 6 6 6-6",
  close: "m6 6 12 12M18 6 6 18",
  check: "m5 12.5 4.5 4.5L19 7.5",
  warning: "M12 4 2.8 19.5h18.4L12 4Zm0 6v4.5m0 2.7v.1",
  clock: "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17ZM12 7.5V12l3 2",
  file: "M7 3.5h7l4.5 4.5v12.5H7a1.5 1.5 0 0 1-1.5-1.5V5A1.5 1.5 0 0 1 7 3.5ZM14 3.5V8h4.5",
  image: "M5 4.5h14A1.5 1.5 0 0 1 20.5 6v12a1.5 1.5 0 0 1-1.5 1.5H5A1.5 1.5 0 0 1 3.5 18V6A1.5 1.5 0 0 1 5 4.5ZM3.5 16l5-4.5 4 3.5 3-2.5 5 4M15.5 9.2v.1",
  place: "M12 21s6.5-6 6.5-11a6.5 6.5 0 0 0-13 0c0 5 6.5 11 6.5 11Zm0-8.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.3l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.7l1-1",
  refresh: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3M19.5 4v4h-4",
  bell: "M6 16.5V11a6 6 0 1 1 12 0v5.5l1.5 2h-15l1.5-2ZM10 21h4",
  sound: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5H4ZM15.5 9a4 4 0 0 1 0 6M18 6.5a7.5 7.5 0 0 1 0 11",
  silent: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5H4ZM16 9.5l5 5m0-5-5 5",
  theme: "M12 20.5a8.5 8.5 0 1 0 0-17v17Zm0-17a8.5 8.5 0 0 0 0 17",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Zm5-1.5 5 5",
  tool: "M14.5 6.5a4 4 0 0 1 5-2.8l-2.7 2.7.8 2 2 .8 2.7-2.7a4.5 4.5 0 0 1-6 5.5L8.5 20a2 2 0 0 1-3.5-3.5l7.8-7.7a4.5 4.5 0 0 1 1.7-2.3Z",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z",
  hidden: "m4 4 16 16M9.5 6c.8-.3 1.6-.5 2.5-.5 6 0 9.5 6.5 9.5 6.5a17 17 0 0 1-3 3.7M6 7.8A16 16 0 0 0 2.5 12S6 18.5 12 18.5c1.5 0 2.8-.4 4-.9",
  note: "M5 4.5h14V15l-4.5 4.5H5v-15ZM14.5 19.5V15H19M8.5 9h7m-7 3.5h4",
  whisper: "M4 5.5h16v10.5h-8l-4.5 3.7V16H4V5.5Zm4 5.2v.1m4-.1v.1m4-.1v.1",
  hand: "M7 12.5V6.8a1.5 1.5 0 0 1 3 0v4-6a1.5 1.5 0 0 1 3 0v6-4.5a1.5 1.5 0 0 1 3 0v5.2-2.5a1.5 1.5 0 0 1 3 0v5.5a6.5 6.5 0 0 1-6.5 6.5c-3 0-4.5-1.3-6-4L4 12.7a1.5 1.5 0 0 1 2.5-1.5l.5 1.3Z",
  back: "M9.5 6 4 11.5 9.5 17M4 11.5h10.5a5 5 0 0 1 5 5v2",
  stop: "M6.5 6.5h11v11h-11z",
  pencil: "m5 19 .8-4L16.5 4.3a1.7 1.7 0 0 1 2.4 0l.8.8a1.7 1.7 0 0 1 0 2.4L9 18.2 5 19Z",
  chevron: "m9 5.5 6.5 6.5L9 18.5",
  muted: "M12 14.5a3 3 0 0 1-3-3V6.5a3 3 0 0 1 6 0v5M6 11.5a6 6 0 0 0 9.5 5M18 11.5c0 1-.2 1.9-.6 2.7M12 17.5V21M4 4l16 16",
  voice: "M12 14.5a3 3 0 0 0 3-3v-5a3 3 0 0 0-6 0v5a3 3 0 0 0 3 3Zm-6-3a6 6 0 0 0 12 0M12 17.5V21",
  lock: "M6 10.5h12v9.5H6v-9.5Zm2.5 0V8a3.5 3.5 0 0 1 7 0v2.5",
  phone: "M6.5 3.5h3l1.5 4.5-2 1.5a11 11 0 0 0 5.5 5.5l1.5-2 4.5 1.5v3a2 2 0 0 1-2 2A15.5 15.5 0 0 1 4.5 5.5a2 2 0 0 1 2-2Z",
  mail: "M3.5 6h17v12.5h-17V6Zm0 .5 8.5 6.5 8.5-6.5",
  web: "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17ZM3.5 12h17M12 3.5c2.5 2.5 3.5 5.5 3.5 8.5s-1 6-3.5 8.5c-2.5-2.5-3.5-5.5-3.5-8.5s1-6 3.5-8.5Z",
  code: "m8.5 7-5 5 5 5m7-10 5 5-5 5",
  team: "M9 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Zm-6.5 8c.6-3.2 3.3-5 6.5-5s5.9 1.8 6.5 5M16 11.5a3 3 0 0 0 0-6m2 9c1.9.7 3.1 2.3 3.5 4.5",
};

/** @param {{name: string, size?: number}} props */
export const Icon = ({ name, size = 20 }) => h(
  "svg",
  { viewBox: "0 0 24 24", width: size, height: size, fill: "none", stroke: "currentColor", "stroke-width": 1.7, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" },
  h("path", { d: PATHS[name] ?? PATHS.web }),
);

/** @type {Record<string, string>} */
const CHANNELS = { ai: "spark", assistant: "spark", bot: "spark", web: "web", phone: "phone", sms: "phone", rcs: "phone", whatsapp: "phone", voice: "voice", realtime_voice: "voice", email: "mail", websocket: "web", http: "code", app: "code", system: "clock" };

/** @param {string} type */
export const channelIcon = (type) => CHANNELS[type] ?? "link";
