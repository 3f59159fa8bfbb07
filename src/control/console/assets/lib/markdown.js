// As much of Markdown as model cards use, as elements: headings, paragraphs, lists, tables, code, emphasis.

import { h } from './dom.js';

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith('`') && part.endsWith('`') && part.length > 1) return h('code', null, part.slice(1, -1));
    if (part.startsWith('**') && part.endsWith('**') && part.length > 4) return h('b', null, part.slice(2, -2));
    return part;
  });
}

const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());

/** Elements of a text in Markdown. HTML in it is shown as text. */
export function markdown(text) {
  const out = [];
  const lines = String(text).split('\n');
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i];
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    if (heading) {
      out.push(h(`h${Math.min(6, heading[1].length + 2)}`, null, inline(heading[2])));
    } else if (line.startsWith('```')) {
      const code = [];
      for (i += 1; i < lines.length && !lines[i].startsWith('```'); i += 1) code.push(lines[i]);
      out.push(h('pre', { class: 'code-block' }, code.join('\n')));
    } else if (/^\s*\|/.test(line)) {
      const rows = [];
      for (; i < lines.length && /^\s*\|/.test(lines[i]); i += 1) rows.push(cells(lines[i]));
      i -= 1;
      const ruled = rows[1] && rows[1].every((cell) => /^:?-+:?$/.test(cell));
      const body = ruled ? rows.slice(2) : rows;
      out.push(h('div', { class: 'scroll' }, h('table', { class: 'rows fit' }, ruled ? h('thead', null, h('tr', null, rows[0].map((cell) => h('th', null, inline(cell))))) : null, h('tbody', null, body.map((row) => h('tr', null, row.map((cell) => h('td', null, inline(cell)))))))));
    } else if (/^\s*[-*]\s+/.test(line)) {
      const items = [];
      for (; i < lines.length && /^\s*[-*]\s+/.test(lines[i]); i += 1) items.push(h('li', null, inline(lines[i].replace(/^\s*[-*]\s+/, ''))));
      i -= 1;
      out.push(h('ul', null, items));
    } else if (line.trim()) {
      const words = [line];
      for (; i + 1 < lines.length && lines[i + 1].trim() && !/^(#|```|\s*\||\s*[-*]\s)/.test(lines[i + 1]); i += 1) words.push(lines[i + 1]);
      out.push(h('p', null, inline(words.join(' '))));
    }
  }
  return h('div', { class: 'markdown' }, out);
}
