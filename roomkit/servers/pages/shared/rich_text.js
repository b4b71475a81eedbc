/** The little Markdown that models write, as elements: nothing is ever parsed as HTML. */
import { h } from "./lib.js";

const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>"')\]]+[^\s<>"')\].,;:!?])/g;

/** @param {string} text */
export function inline(text) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    const at = found.index ?? 0;
    if (at > from) out.push(text.slice(from, at));
    const [whole, code, strong, emphasis, label, href, bare] = found;
    if (code) out.push(h("code", null, code.slice(1, -1)));
    else if (strong) out.push(h("strong", null, strong.slice(2, -2)));
    else if (emphasis) out.push(h("em", null, emphasis.slice(1, -1)));
    else out.push(h("a", { href: href ?? bare, target: "_blank", rel: "noopener noreferrer nofollow" }, label ?? bare));
    from = at + whole.length;
  }
  if (from < text.length) out.push(text.slice(from));
  return out;
}

const BULLET = /^\s*[-*•]\s+/;
const NUMBER = /^\s*\d+[.)]\s+/;

/** Paragraphs, lists, headings and code. A block that is still being written looks like what it will become.
 * @param {string} text */
export function richText(text) {
  const blocks = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    if (line.startsWith("```")) {
      const end = lines.findIndex((other, n) => n > at && other.startsWith("```"));
      const last = end < 0 ? lines.length : end;
      blocks.push(h("pre", { tabIndex: 0 }, h("code", null, lines.slice(at + 1, last).join("\n"))));
      at = last + 1;
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      const kind = BULLET.test(line) ? BULLET : NUMBER;
      const items = take(lines, at, (other) => kind.test(other));
      blocks.push(h(kind === BULLET ? "ul" : "ol", null, ...items.map((item) => h("li", null, ...inline(item.replace(kind, ""))))));
      at += items.length;
    } else if (/^#{1,4}\s/.test(line)) {
      blocks.push(h("p", { class: "heading" }, ...inline(line.replace(/^#+\s/, ""))));
      at += 1;
    } else if (!line.trim()) at += 1;
    else {
      const words = take(lines, at, (other) => other.trim() !== "" && !/^(```|#{1,4}\s)/.test(other) && !BULLET.test(other) && !NUMBER.test(other));
      blocks.push(h("p", null, ...words.flatMap((part, n) => (n ? [h("br", null), ...inline(part)] : inline(part)))));
      at += words.length;
    }
  }
  return blocks;
}

/** @param {string[]} lines @param {number} from @param {(line: string) => boolean} belongs */
function take(lines, from, belongs) {
  let end = from + 1;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return lines.slice(from, end);
}
