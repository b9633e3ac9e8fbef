/**
 * An answer's Markdown as HTML that can do no harm. A model's text is as hostile as a stranger's: markdown-it is
 * told to escape HTML, and DOMPurify then keeps an allowlist of tags and attributes. Images are never shown: an
 * address chosen by an injected prompt could carry the chat away. Their syntax becomes a plain link.
 */
import DOMPurify from 'dompurify';
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import cpp from 'highlight.js/lib/languages/cpp';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import python from 'highlight.js/lib/languages/python';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import MarkdownIt from 'markdown-it';

for (const [name, language] of Object.entries({ bash, cpp, javascript, json, python, sql, typescript, xml })) {
  hljs.registerLanguage(name, language);
}

/** Above this a code block is shown plain: highlighting would hold up the page. */
const HIGHLIGHT_CHARS_MAX = 20_000;

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true });
markdown.disable('image');
markdown.renderer.rules.fence = (tokens, index) => {
  const token = tokens[index]!;
  const name = token.info.trim().split(/\s+/)[0] ?? '';
  const known = name !== '' && hljs.getLanguage(name) !== undefined && token.content.length <= HIGHLIGHT_CHARS_MAX;
  const code = known
    ? hljs.highlight(token.content, { language: name, ignoreIllegals: true }).value
    : markdown.utils.escapeHtml(token.content);
  const label = markdown.utils.escapeHtml(name || 'text');
  return (
    `<div class="code"><div class="code-head"><span>${label}</span>` +
    `<button type="button" data-copy="">Copy</button></div><pre tabindex="0"><code>${code}</code></pre></div>`
  );
};
// Wide tables scroll by themselves and not the page.
markdown.renderer.rules.table_open = () => '<div class="table" tabindex="0"><table>';
markdown.renderer.rules.table_close = () => '</table></div>';

const ALLOWED_TAGS = [
  'a', 'blockquote', 'br', 'button', 'code', 'del', 'div', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li',
  'ol', 'p', 'pre', 's', 'span', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
];
const ALLOWED_ATTR = ['class', 'data-copy', 'href', 'rel', 'start', 'tabindex', 'target', 'title', 'type'];

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  if (!node.hasAttribute('href')) return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer');
});

export function sanitise(html: string): string {
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  });
}

const BLOCKS_KEPT = 512;
const sanitised = new Map<string, string>();

function sanitiseOnce(html: string): string {
  const known = sanitised.get(html);
  if (known !== undefined) return known;
  const safe = sanitise(html);
  if (sanitised.size >= BLOCKS_KEPT) sanitised.clear();
  sanitised.set(html, safe);
  return safe;
}

/**
 * The answer as one safe HTML string per top-level block. While an answer grows only its last block changes, so
 * the page need not touch the others: a selection in them stays, and long answers cost no more than short ones.
 */
export function renderBlocks(source: string): string[] {
  const env = {};
  const tokens = markdown.parse(source, env);
  const blocks: string[] = [];
  let from = 0;
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at]!;
    if (token.level !== 0 || token.nesting === 1) continue;
    const html = markdown.renderer.render(tokens.slice(from, at + 1), markdown.options, env);
    blocks.push(sanitiseOnce(html));
    from = at + 1;
  }
  return blocks;
}

/**
 * The end of the last whole sentence of `text` after `from`, for the screen reader's live region: it hears
 * sentences and not tokens. Returns `from` when none has ended yet.
 */
export function sentenceEnd(text: string, from: number): number {
  let end = from;
  const pattern = /[.!?…:;]["'”’)\]*_`]*\s|\n/gu;
  pattern.lastIndex = from;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) end = pattern.lastIndex;
  return end;
}

/** Markdown's marks taken out, for reading aloud. */
export function spoken(text: string): string {
  return text
    .replace(/`{1,3}/g, '')
    .replace(/^\s{0,3}(#{1,6}|[-*+>])\s+/gm, '')
    .replace(/\*{1,2}|_{2}/g, '')
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .trim();
}
