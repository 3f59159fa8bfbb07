// The console: which page is shown, how it is kept up to date, keys, theme, token.

import { h, morph } from './lib/dom.js';
import { hasToken, keepToken, onRefused, Problem } from './lib/api.js';
import { isUtc, setUtc } from './lib/format.js';
import { mark, trouble } from './lib/ui.js';
import { bindings, press } from './lib/keys.js';
import * as jobs from './pages/jobs.js';
import * as job from './pages/job.js';
import * as features from './pages/features.js';
import * as models from './pages/models.js';
import * as trainings from './pages/trainings.js';
import * as alerts from './pages/alerts.js';
import * as server from './pages/server.js';
import * as help from './pages/help.js';

const POLL = 2000;

const PAGES = { jobs, features, models, trainings, alerts, server, keys: help };
const MENU = [
  ['jobs', 'Jobs', 'g j'], ['features', 'Features', 'g f'], ['models', 'Models', 'g m'],
  ['trainings', 'Trainings', 'g t'], ['alerts', 'Alerts', 'g a'], ['server', 'Server', 'g s'],
];

const kept = (name) => { try { return localStorage.getItem(`tidemill.${name}`); } catch { return null; } };
const keep = (name, value) => { try { localStorage.setItem(`tidemill.${name}`, value); } catch { /* it is only forgotten */ } };

const root = document.getElementById('app');
let route = null;
let page = null;
let timer = 0;
let asked = null;

function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { parts: parts.length ? parts : ['jobs'], query: new URLSearchParams(query || ''), hash: location.hash };
}

// What a page may use besides its data.
function context(own) {
  return {
    parts: own.route.parts,
    query: own.route.query,
    state: own.state,
    slow: own.slow,
    set(values) { Object.assign(own.state, values); draw(); },
    refresh: () => { own.slow.clear(); return poll(); },
    go: (hash) => { location.hash = hash; },
    room: () => Math.max(240, document.getElementById('main')?.clientWidth - 2 * padding()),
  };
}

const padding = () => (innerWidth < 760 ? 14 : 28);

// What is asked for less often than the page: heavy reads that change slowly.
class Slow {
  constructor() { this.known = new Map(); }
  clear() { for (const one of this.known.values()) one.until = 0; }
  async get(name, ms, ask) {
    const known = this.known.get(name);
    if (known && performance.now() < known.until) return known.value;
    const value = await ask();
    this.known.set(name, { value, until: performance.now() + ms });
    return value;
  }
}

function open() {
  const next = parse();
  const module = next.parts[0] === 'jobs' && next.parts[1] ? job : PAGES[next.parts[0]];
  const identity = next.parts.slice(0, 2).join('/');
  if (page && route && route.parts.slice(0, 2).join('/') === identity && page.module === module) {
    // Another tab of the same thing: what is known stays.
    route = page.route = next;
  } else {
    route = next;
    page = { module, route, state: {}, slow: new Slow(), data: null, error: null };
    window.scrollTo(0, 0);
  }
  draw();
  poll();
  document.title = `${titled()} · Tidemill`;
}

function titled() {
  if (!page.module) return 'Not found';
  return route.parts[1] || MENU.find(([name]) => name === route.parts[0])?.[1] || 'Keys';
}

async function poll() {
  clearTimeout(timer);
  if (asked) asked.abort();
  const own = page;
  if (!own.module || document.hidden) return;
  const control = (asked = new AbortController());
  try {
    const data = await own.module.load(context(own), control.signal);
    if (control.signal.aborted || own !== page) return;
    Object.assign(own, { data, error: null, at: Date.now() });
  } catch (error) {
    if (control.signal.aborted || own !== page || error.name === 'AbortError') return;
    if (!(error instanceof Problem)) console.error(error);
    own.error = error;
  }
  draw();
  clearTimeout(timer);
  timer = setTimeout(poll, own.module.once ? 15 * POLL : POLL);
}

function body() {
  if (!page.module) return [h('header', { class: 'head' }, h('h1', null, 'There is no such page')), h('p', null, h('a', { href: '#/jobs' }, 'Go to the jobs'), '.')];
  if (page.error && page.error.status === 401) return [askForToken()];
  const parts = [];
  if (page.error) parts.push(trouble(page.error));
  if (page.data !== null) {
    try {
      parts.push(page.module.view(page.data, context(page)));
    } catch (error) {
      console.error(error);
      parts.push(trouble(error));
    }
  } else if (!page.error) {
    parts.push(h('p', { class: 'loading', role: 'status' }, 'Reading…'));
  }
  return parts;
}

function askForToken() {
  return h('form', {
    class: 'token', on: {
      submit: (event) => {
        event.preventDefault();
        keepToken(new FormData(event.currentTarget).get('token').trim());
        page.error = null;
        draw();
        poll();
      },
    },
  },
  h('h1', null, hasToken() ? 'This token is not accepted' : 'This server asks for a token'),
  h('p', { class: 'muted' }, 'It is kept in this tab until you close it, and sent to this server alone. Reading takes the scope read_features; changing jobs and versions takes submit; tokens and the audit log take admin.'),
  h('label', { for: 'token' }, 'Token'),
  h('div', { class: 'with-button' }, h('input', { id: 'token', name: 'token', type: 'password', autocomplete: 'off', required: true, spellcheck: 'false' }), h('button', { type: 'submit', class: 'button primary' }, 'Use it')),
  page.error && page.error.message ? h('p', { class: 'hint' }, page.error.message) : null);
}

function theme() {
  return document.documentElement.getAttribute('data-theme') || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
}

export function toggleTheme() {
  const next = theme() === 'dark' ? 'light' : 'dark';
  document.documentElement.setAttribute('data-theme', next);
  keep('theme', next);
  draw();
}

export function toggleZone() {
  setUtc(!isUtc());
  keep('utc', isUtc() ? 'yes' : 'no');
  draw();
}

function draw() {
  const at = route.parts[0];
  const live = page.error ? ['bad', 'no answer'] : page.at ? ['good', 'live'] : ['busy', 'reading'];
  const shell = h('div', { class: 'shell' },
    h('nav', { class: 'side', 'aria-label': 'Main' },
      h('a', { class: 'brand', href: '#/jobs' }, h('img', { src: '/console/icon.svg', alt: '', width: 22, height: 22 }), h('span', null, 'Tidemill')),
      h('ul', null, MENU.map(([name, title, keys]) => h('li', null,
        h('a', { href: `#/${name}`, class: name === at ? 'on' : null, 'aria-current': name === at ? 'page' : null }, h('span', null, title), h('kbd', { 'aria-hidden': 'true' }, keys))))),
      h('div', { class: 'side-foot' },
        h('span', { class: `state ${live[0]}` }, mark(live[0]), live[1]),
        h('button', { type: 'button', class: 'quiet', title: 'Times in local time or UTC (u)', 'aria-pressed': String(isUtc()), on: { click: toggleZone } }, isUtc() ? 'UTC' : 'Local'),
        h('button', { type: 'button', class: 'quiet', title: 'Light or dark (.)', on: { click: toggleTheme } }, theme() === 'dark' ? 'Dark' : 'Light'),
        h('a', { class: 'quiet', href: '#/keys', title: 'Keys (?)' }, 'Keys'))),
    h('main', { id: 'main', tabindex: -1 }, body()));
  morph(root, h('div', null, shell));
  // Where tabs do not all fit, the one that is open is in view.
  const tab = root.querySelector('.tabs .on');
  const opened = tab && tab.getAttribute('href');
  if (opened !== page.tab) {
    page.tab = opened;
    if (tab) tab.parentNode.scrollLeft = tab.offsetLeft - tab.parentNode.offsetLeft - 40;
  }
}

// In a dialog or a field, keys are for that.
document.addEventListener('keydown', (event) => press(event, bindings({ toggleTheme, toggleZone, route: () => route })));
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else poll(); });
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); document.getElementById('main').focus(); });
addEventListener('hashchange', open);
addEventListener('resize', () => { clearTimeout(addEventListener.soon); addEventListener.soon = setTimeout(draw, 120); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
onRefused(() => {});

if (['light', 'dark'].includes(kept('theme'))) document.documentElement.setAttribute('data-theme', kept('theme'));
setUtc(kept('utc') === 'yes');
open();
