// The server: its version, tokens by name, and who changed what.

import { h } from '../lib/dom.js';
import { get, hasToken, keepToken, listOf } from '../lib/api.js';
import * as f from '../lib/format.js';
import { button, chip, empty, fact, head, section, table } from '../lib/ui.js';

export async function load(ctx, signal) {
  const [server, audit] = await Promise.all([
    get('/server', signal),
    ctx.slow.get('audit', 4000, async () => {
      try { return await get('/audit?limit=200', signal); } catch (error) { if (error.name === 'AbortError') throw error; return { error }; }
    }),
  ]);
  return { server, audit };
}

export function view({ server, audit }, ctx) {
  const entries = audit.error ? [] : listOf(audit, 'entries');
  return [
    head('Server', [
      fact('Version', server.version), fact('Started', f.time(server.started)), fact('Up for', f.duration(Date.now() - f.millis(server.started))),
      fact('Data', server.data), fact('Jobs', f.count(server.jobs)), server.memory_bytes ? fact('Memory', f.bytes(server.memory_bytes)) : null,
      fact('You are', [server.caller.name, ' ', (server.caller.scopes || []).map((scope) => chip(scope))]),
    ]),
    section('Token', null, hasToken()
      ? h('p', null, 'A token is kept in this tab. ', button('Forget it', () => { keepToken(null); ctx.refresh(); }, { kind: 'small' }))
      : h('form', { class: 'with-button', on: { submit: (event) => { event.preventDefault(); keepToken(new FormData(event.currentTarget).get('token').trim()); ctx.refresh(); } } },
        h('input', { name: 'token', type: 'password', 'aria-label': 'Token', autocomplete: 'off', required: true, placeholder: 'another token' }), h('button', { type: 'submit', class: 'button' }, 'Use it'))),
    section('Tokens', 'names and scopes; the tokens themselves are known to their owners alone',
      server.tokens === null || server.tokens === undefined ? h('p', { class: 'muted' }, 'Names of tokens are shown to a token with the scope admin.')
        : server.tokens.length ? table('Tokens', [{ name: 'Name', of: (one) => h('b', null, one.name) }, { name: 'Scopes', of: (one) => one.scopes.map((scope) => chip(scope)) }], server.tokens) : h('p', { class: 'muted' }, 'This server asks for no token: whoever reaches it may do everything. It listens on this machine alone unless it was told otherwise.')),
    section('Audit log', 'who changed what, newest first', audit.error ? h('p', { class: 'muted' }, audit.error.message)
      : entries.length ? table('Audit log', [
        { name: 'When', of: (one) => f.time(one.at) }, { name: 'Who', of: (one) => h('b', null, one.caller) }, { name: 'From', of: (one) => one.address },
        { name: 'What', of: (one) => one.operation.replace(/_/g, ' ') }, { name: 'Which', cls: 'path', of: (one) => one.path }, { name: 'Took', num: true, of: (one) => f.duration(one.took_ms) }, { name: 'Outcome', of: (one) => outcome(one) },
      ], entries) : empty('Nothing has been changed yet', 'Every request that changes something leaves a line here.')),
    section('For programs', null, h('p', null, h('a', { href: '/openapi.json' }, 'OpenAPI document'), ' · ', h('a', { href: '/metrics' }, 'Metrics'), ' · ', h('a', { href: '/health' }, 'Health'), ' · ', h('a', { href: '/ready' }, 'Readiness'))),
  ];
}

function outcome(one) {
  const done = one.status < 400;
  return chip(done ? 'done' : one.status < 500 ? `refused, ${one.status}` : `failed, ${one.status}`, done ? 'good' : 'bad');
}
