// The parts that pages are made of.

import { h, s } from './dom.js';
import * as f from './format.js';

// Shapes differ as well as colours do.
const SHAPES = {
  good: () => s('circle', { cx: 6, cy: 6, r: 4.5 }),
  busy: () => s('path', { d: 'M6 1.2a4.8 4.8 0 1 1-4.8 4.8h2.1A2.7 2.7 0 1 0 6 3.3z' }),
  idle: () => s('rect', { x: 2, y: 2, width: 8, height: 8, rx: 1 }),
  bad: () => s('path', { d: 'M6 .8 11.6 11H.4z' }),
  warn: () => s('path', { d: 'M6 .6 11.4 6 6 11.4.6 6z' }),
  done: () => s('path', { d: 'M1.5 6.5 4.6 9.6 10.6 2.6', fill: 'none', 'stroke-width': 2.2, stroke: 'currentColor' }),
};

const TONES = {
  running: 'good', starting: 'busy', restarting: 'warn', stopping: 'busy', stopped: 'idle', finished: 'done', failed: 'bad',
  queued: 'idle', done: 'done', cancelled: 'idle', retrying: 'warn', skipped: 'idle', firing: 'bad', resolved: 'done', pending: 'warn',
  critical: 'bad', warning: 'warn', info: 'idle',
};

/** The mark of a state: a shape in its colour. */
export function mark(tone) {
  return s('svg', { class: `mark ${tone}`, viewBox: '0 0 12 12', width: 10, height: 10, 'aria-hidden': 'true' }, (SHAPES[tone] || SHAPES.idle)());
}

/** A state in a word, with its mark. */
export function state(word, title) {
  const text = String(word || 'unknown').toLowerCase();
  const tone = TONES[text] || 'idle';
  return h('span', { class: `state ${tone}`, title }, mark(tone), text);
}

/** A small word beside something. */
export const chip = (text, tone = '', title) => h('span', { class: `chip ${tone}`, title }, text);

/** The head of a page. */
export function head(title, facts, ...actions) {
  return h('header', { class: 'head' },
    h('div', { class: 'head-line' }, h('h1', { tabindex: -1 }, title), h('div', { class: 'actions' }, actions)),
    facts && h('div', { class: 'facts' }, facts));
}

/** A name and what it is. */
export const fact = (name, value, title) => h('div', { class: 'fact', title }, h('span', { class: 'fact-name' }, name), h('span', { class: 'fact-value' }, value));

/** A part of a page. */
export function section(title, note, ...children) {
  return h('section', { class: 'part' }, h('h2', null, title, note && h('span', { class: 'note' }, note)), children);
}

/** What stands where there is nothing, and what to do about it. */
export function empty(title, what, ...more) {
  return h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), what && h('p', null, what), more);
}

/** What went wrong. */
export function trouble(error) {
  const mend = error.status === 403 ? ' Use a token with the scope that it names: see Server, Token.' : '';
  return h('div', { class: 'trouble', role: 'alert' }, mark('bad'),
    h('div', null, h('strong', null, error.title || 'Something went wrong'), h('p', null, error.message + mend), faults(error.faults)));
}

/** The faults of a file. */
export function faults(list) {
  if (!list || !list.length) return null;
  return h('ul', { class: 'faults' }, list.map((one) => h('li', null,
    one.line ? h('span', { class: 'num muted' }, `line ${one.line}, column ${one.column}: `) : null,
    one.what, one.mend ? h('span', { class: 'muted' }, ` ${one.mend}`) : null)));
}

/**
 * A table. Columns: {name, of(row), num, cls, title}; `open(row)` gives the address that a row leads to.
 */
export function table(label, columns, rows, { key, open, rowClass } = {}) {
  const cell = (column, row, first) => {
    const cls = [column.num && 'num', column.cls].filter(Boolean).join(' ') || null;
    const value = column.of(row);
    const leads = first && open && open(row);
    const shown = leads ? h('a', { href: leads, class: 'row-link' }, value) : value;
    return first ? h('th', { scope: 'row', class: cls }, shown) : h('td', { class: cls, 'data-name': column.name }, shown);
  };
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label },
    h('table', { class: open ? 'rows opens' : 'rows' },
      h('caption', { class: 'hidden' }, label),
      h('thead', null, h('tr', null, columns.map((column) => h('th', { scope: 'col', class: [column.num && 'num', column.cls].filter(Boolean).join(' ') || null, title: column.title }, column.name || h('span', { class: 'hidden' }, 'More'))))),
      h('tbody', null, rows.map((row) => h('tr', { key: key ? key(row) : undefined, class: rowClass && rowClass(row) },
        columns.map((column, i) => cell(column, row, i === 0)))))));
}

/** Tabs as links; the one that is open is marked. */
export function tabs(label, list, current) {
  return h('nav', { class: 'tabs', 'aria-label': label }, list.map(([name, href, title, badge]) =>
    h('a', { href, class: name === current ? 'tab on' : 'tab', 'aria-current': name === current ? 'page' : null }, title, badge ? h('span', { class: 'badge' }, badge) : null)));
}

/** A part of a whole as a bar; `tone` by what it means. */
export function bar(part, tone = '', label = null) {
  const width = Math.max(0, Math.min(1, Number(part) || 0));
  return h('span', { class: `bar ${tone}`, role: 'img', 'aria-label': label || f.share(width) }, h('i', { vars: { '--w': `${(width * 100).toFixed(1)}%` } }));
}

/** A button. */
export const button = (text, click, { kind = '', disabled, title, type = 'button' } = {}) =>
  h('button', { type, class: `button ${kind}`, disabled, title, on: click ? { click } : {} }, text);

/** Shows for a moment what became of something. */
export function toast(text, tone = 'done') {
  let place = document.getElementById('toasts');
  if (!place) document.body.append(place = h('div', { id: 'toasts', role: 'status', 'aria-live': 'polite' }));
  const note = h('div', { class: `toast ${tone}` }, mark(tone), h('span', null, text));
  place.append(note);
  setTimeout(() => note.remove(), tone === 'bad' ? 9000 : 5000);
}

/**
 * Asks before something is done. `fields` are elements of the form; `act(form data)` does it, and what it throws is shown.
 */
export function confirm({ title, text, fields = [], action, danger = false, act, wide = false }) {
  const problem = h('div', { class: 'dialog-problem' });
  const go = h('button', { type: 'submit', class: `button ${danger ? 'danger' : 'primary'}` }, action);
  const close = () => dialog.close();
  const form = h('form', {
    on: {
      submit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        problem.replaceChildren();
        try {
          const outcome = await act(new FormData(form));
          dialog.close();
          if (typeof outcome === 'string') toast(outcome);
        } catch (error) {
          problem.replaceChildren(trouble(error));
        } finally {
          go.disabled = false;
        }
      },
    },
  },
  h('h2', { id: 'dialog-title' }, title), text && h('p', null, text), fields, problem,
  h('div', { class: 'dialog-actions' }, button('Cancel', close), go));
  const dialog = h('dialog', { class: wide ? 'wide' : null, 'aria-labelledby': 'dialog-title', on: { close: () => dialog.remove() } }, form);
  document.body.append(dialog);
  dialog.showModal();
  const first = form.querySelector('input, textarea, select') || go;
  first.focus();
}

let ids = 0;
/** A field with its label. */
export function field(label, control, hint) {
  const id = control.id || `field-${(ids += 1)}`;
  control.id = id;
  if (hint) control.setAttribute('aria-describedby', `${id}-hint`);
  return h('div', { class: 'field' }, h('label', { for: id }, label), control, hint && h('p', { class: 'hint', id: `${id}-hint` }, hint));
}

/** Choices of which one is taken, as a field. */
export function choice(name, label, options, chosen) {
  return h('fieldset', { class: 'choice' }, h('legend', null, label), options.map(([value, title, what]) =>
    h('label', null, h('input', { type: 'radio', name, value, checked: value === chosen }), h('span', null, h('b', null, title), what && h('span', { class: 'hint' }, what)))));
}

/** Hands text or bytes to the user as a file. */
export function save(name, content, type = 'text/plain') {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = h('a', { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Name and value, one below the other. */
export function pairs(list) {
  return h('dl', { class: 'pairs' }, list.filter(Boolean).map(([name, value]) => [h('dt', null, name), h('dd', null, value)]));
}
